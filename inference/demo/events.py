"""Handlers of the events of the page, and the components of their results."""

import functools
import html
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from deepavfusion_cli.terminal import say

from .workspace import error_sentence


def in_a_sentence(handler: Callable) -> Callable:
    """Decorate the handler of an event: errors are shown to the visitor in a sentence, and printed."""

    def shown(error: Exception, values: Sequence[Any]) -> gr.Error:
        text = error_sentence(error, [value for value in values if isinstance(value, str) and os.path.isabs(value)])
        say(f"deepavfusion demo: {text}", stream=sys.stderr)
        return gr.Error(html.escape(text), duration=None, title="That did not work", print_exception=False)

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def guarded(*values):
            try:
                yield from handler(*values)
            except Exception as error:
                raise shown(error, values) from None
    else:

        @functools.wraps(handler)
        def guarded(*values):
            try:
                return handler(*values)
            except Exception as error:
                raise shown(error, values) from None

    return guarded


def result(component: Callable, name: str, **options):
    """A component that is hidden until it has something to show, or will have.

    Args:
        component: Class of the component.
        name: Its id in the page.
        **options: More of its arguments.
    """
    return component(interactive=False, elem_id=name, visible=False, **options)


def hidden() -> dict[str, Any]:
    """Update that empties and hides a component."""
    return gr.update(value=None, visible=False)


def visible(value: Any = None) -> dict[str, Any]:
    """Update that shows a component with a value; without one, the progress of what will be its value."""
    return gr.update(value=value, visible=True)


__all__ = ["hidden", "in_a_sentence", "result", "visible"]
