"""The common tests of transformers, which its wheel does not contain.

`TRANSFORMERS_SOURCE` is the path of a checkout of the installed version of transformers, or of its unpacked source
distribution, which `make test-ecosystem` downloads.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import transformers

VARIABLE = "TRANSFORMERS_SOURCE"
_PACKAGE = "transformers_suite"
# What `test_modeling_common` imports from folders that the source distribution lacks.
_LEFT_OUT = {
    # Exports are tested by test_onnx.py and, with dynamic shapes, by `make test`.
    "exporters.test_export": "ExportTesterMixin",
    # No model of the package generates.
    "generation.test_utils": "GenerationTesterMixin",
}


def missing_source() -> str | None:
    """Reason why the common tests cannot be run; None if they can."""
    given = os.environ.get(VARIABLE)
    if not given:
        return f"{VARIABLE} is not set: it is the path of a checkout of transformers {transformers.__version__}"
    if not (Path(given) / "tests" / "test_modeling_common.py").is_file():
        return f"{VARIABLE}={given} has no tests/test_modeling_common.py"
    return None


def load_model_tester() -> type:
    """Import `ModelTesterMixin`."""
    package = ModuleType(_PACKAGE)
    package.__path__ = [str(Path(os.environ[VARIABLE]) / "tests")]
    sys.modules[_PACKAGE] = package
    for name, mixin in _LEFT_OUT.items():
        folder, _, _ = name.partition(".")
        sys.modules[f"{_PACKAGE}.{folder}"] = ModuleType(folder)
        sys.modules[f"{_PACKAGE}.{name}"] = module = ModuleType(name)
        setattr(module, mixin, type(mixin, (), {}))
    return importlib.import_module(f"{_PACKAGE}.test_modeling_common").ModelTesterMixin


__all__ = ["VARIABLE", "load_model_tester", "missing_source"]
