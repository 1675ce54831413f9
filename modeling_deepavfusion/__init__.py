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
    """Import all public names, which registers the classes, and make them attributes of this package."""
    registered = importlib.import_module(_REGISTRATION)
    globals().update({name: getattr(registered, name) for name in registered.__all__})
    globals()["__all__"] = [*registered.__all__, "__version__"]


def __getattr__(name: str) -> Any:
    if (name == "__all__" or not name.startswith("__")) and _REGISTRATION not in sys.modules:
        _register()
    if name not in globals():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__getattr__("__all__")})


watch(_register)
