"""Handlers of the events of the page."""

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


__all__ = ["in_a_sentence"]
