"""JSON of arrays, tensors and special values."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.inference.files import plain, to_json


def test_json_has_no_nan_and_takes_arrays():
    value = {
        1: np.float32(0.5),
        "nan": float("nan"),
        "inf": [np.inf, -np.inf],
        "array": np.arange(2),
        "tensor": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "path": Path("a/b"),
        "set": {2, 1},
        "flag": np.bool_(True),
        "nothing": None,
    }
    text = to_json(value)

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(text, parse_constant=refuse) == {
        "1": 0.5,
        "nan": None,
        "inf": [None, None],
        "array": [0, 1],
        "tensor": [1.5, None],
        "path": "a/b",
        "set": [1, 2],
        "flag": True,
        "nothing": None,
    }
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})
