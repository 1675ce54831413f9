"""Markers of transformers' common tests, which pytest would refuse as unknown."""

import pytest

MARKERS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    for name in MARKERS:
        config.addinivalue_line("markers", f"{name}: of transformers' common tests")
