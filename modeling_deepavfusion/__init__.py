"""DeepAVFusion: early-fusion audio-visual transformers for Hugging Face transformers.

Importing this package registers its classes with the Auto classes, and the model cards of its models with `Trainer`. It
takes no time: they are imported with the first use of one of them, or once transformers has imported its Auto classes.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # `python -m deepavfusion...` is a command, prepared before torch is imported
    from deepavfusion_cli import prepare_module

    prepare_module()

from .version import __version__ as __version__
from .watch import watch

if TYPE_CHECKING:
    from .registration import *  # noqa: F403

_REGISTRATION = f"{__name__}.registration"


def _register() -> None:
    """Import all public names, which registers the classes, and make them attributes of this package.

    If another thread is importing them, it is waited for. In the same thread, they are not there yet.
    """
    registered = importlib.import_module(_REGISTRATION)
    names = getattr(registered, "__all__", None)
    if names is not None:
        globals().update({name: getattr(registered, name) for name in names}, __all__=[*names, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__all__" or not name.startswith("__"):
        _register()
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


watch(_register)
