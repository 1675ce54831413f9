"""JSON of arrays, tensors and special values."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionModel
from deepavfusion.inference.files import damaged_file, plain, to_json
from tests.modeling_deepavfusion.cases import make_model


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


def test_what_encoders_save_is_not_damaged(tmp_path):
    """modules.json of sentence-transformers is a list, all others are objects."""
    make_model(DeepAVFusionModel).save_pretrained(tmp_path)
    assert (tmp_path / "modules.json").is_file()
    assert damaged_file(tmp_path) is None
    (tmp_path / "modules.json").write_text("{}")
    assert damaged_file(tmp_path) == "modules.json holds something other than a JSON list"
