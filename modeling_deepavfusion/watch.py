"""Waiting for the imports after which the classes of this package have to be registered with transformers.

transformers has no way to announce classes without importing them, and importing them imports torch and most of
transformers. `import deepavfusion` alone needs neither, and so waits until one of the Auto classes or a class of its
own has been imported, by whomever. It then registers all before that import statement ends.
"""

import sys
import threading
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

_WATCHED = ("transformers", __package__)
# Modules after whose import the classes may be looked up, or may rely on each other.
_AWAITED = (
    "transformers.models.auto.configuration_auto",
    f"{__package__}.modeling_deepavfusion",
    f"{__package__}.processors.processing_deepavfusion",
)


class _Watcher(MetaPathFinder):
    """Finder that leaves finding to others and counts the modules of transformers and this package in the making.

    Args:
        register: Called once, at the end of the outermost import after which an awaited module is there; until then,
            modules that it imports may be incomplete.
    """

    def __init__(self, register: Callable[[], None]):
        self._register, self._making = register, threading.local()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find a module as the other finders do."""
        if name.partition(".")[0] not in _WATCHED:
            return None
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec"))
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._count(spec.loader)
        return spec

    def _count(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: Any) -> None:
            depth = self._making.depth = getattr(self._making, "depth", 0) + 1
            try:
                execute(module)
            finally:
                self._making.depth = depth - 1
            if depth == 1 and any(name in sys.modules for name in _AWAITED):
                try:
                    sys.meta_path.remove(self)
                except ValueError:  # removed before, maybe by another thread
                    return
                self._register()

        loader.exec_module = exec_module


def watch(register: Callable[[], None]) -> None:
    """Call a function once an awaited module has been imported; at once if it has been.

    Args:
        register: Imports and registers the classes of this package.
    """
    if any(name in sys.modules for name in _AWAITED):
        register()
    else:
        sys.meta_path.insert(0, _Watcher(register))


__all__ = ["watch"]
