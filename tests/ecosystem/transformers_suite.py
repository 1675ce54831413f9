"""The common tests of transformers, which its wheel does not contain.

`TRANSFORMERS_SOURCE` is the path of a checkout of the installed version of transformers, or of its unpacked source
distribution, which `make test-ecosystem` downloads.
"""

import importlib
import os
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

import transformers

VARIABLE = "TRANSFORMERS_SOURCE"
_PACKAGE = "transformers_suite"
# What the common tests import from folders that the source distribution lacks.
_LEFT_OUT = {
    # Exports are tested by test_onnx.py and, with dynamic shapes, by `make test`.
    f"{_PACKAGE}.exporters.test_export": "ExportTesterMixin",
    # No model of the package generates.
    f"{_PACKAGE}.generation.test_utils": "GenerationTesterMixin",
    # Copies of files of the Hub, of which none is needed.
    "fetch_hub_objects_for_ci": "url_to_local_path",
}


def missing_source() -> str | None:
    """Reason why the common tests cannot be run; None if they can."""
    given = os.environ.get(VARIABLE)
    if not given:
        return f"{VARIABLE} is not set: it is the path of a checkout of transformers {transformers.__version__}"
    if not (Path(given) / "tests" / "test_modeling_common.py").is_file():
        return f"{VARIABLE}={given} has no tests/test_modeling_common.py"
    return None


def load_mixin(module: str, name: str) -> Any:
    """Import a class or function of common tests, such as `ModelTesterMixin` of `test_modeling_common`."""
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(Path(os.environ[VARIABLE]) / "tests")]
        sys.modules[_PACKAGE] = package
        for path, content in _LEFT_OUT.items():
            folder = path.rpartition(".")[0]
            if folder:
                sys.modules[folder] = ModuleType(folder)
            sys.modules[path] = left_out = ModuleType(path)
            setattr(left_out, content, str if content.islower() else type(content, (), {}))
    return getattr(importlib.import_module(f"{_PACKAGE}.{module}"), name)


def build_tests(name: str, base: type, fields: dict[str, Any], reasons: dict[str, str]) -> type:
    """Build a test case.

    Args:
        name: Name of the class.
        base: Class of common tests.
        fields: What they ask of a test case.
        reasons: Tests that do not apply -> why. They are skipped; each must exist.
    """
    if unknown := [test for test in reasons if not hasattr(base, test)]:
        raise ValueError(f"Expected names of tests of {base.__name__}, got {', '.join(unknown)}.")

    def skip(reason):
        return lambda self: self.skipTest(reason)

    skipped = {test: skip(reason) for test, reason in reasons.items()}
    return type(name, (base, unittest.TestCase), {**fields, **skipped})


__all__ = ["VARIABLE", "build_tests", "load_mixin", "missing_source"]
