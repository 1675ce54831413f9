"""JSON of arrays, tensors and special values, and files that appear when they are whole."""

import errno
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionModel
from deepavfusion.inference.files import damaged_file, draft_of, plain, to_json, writing
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


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_appear_whole_with_the_permissions_of_new_ones(tmp_path, umask):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"earlier")
    path.chmod(0o600)
    earlier = os.umask(umask)
    try:
        with writing(path) as draft:
            Path(draft.name).write_bytes(b"by its path")
            assert path.read_bytes() == b"earlier"
            assert draft_of(Path(draft.name).name) == "clip.mp4"
    finally:
        os.umask(earlier)
    assert os.listdir(tmp_path) == ["clip.mp4"]
    assert path.read_bytes() == b"by its path"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
@pytest.mark.parametrize("locked", [True, False])
def test_whatever_error_ends_the_writing_the_draft_is_removed(tmp_path, error, locked):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"earlier")

    def write():
        with writing(path, locked=locked) as draft:
            draft.write(b"half")
            raise error(errno.ENOSPC, "full")

    with pytest.raises(error) as caught:
        write()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"clip.mp4": b"earlier"}
    assert getattr(caught.value, "filename", None) == (str(path) if error is OSError else None)


def test_only_names_of_drafts_are_those_of_drafts():
    assert draft_of(".a.b.tmp.7.tmp") == "a.b.tmp"
    assert [draft_of(name) for name in ("a.7.tmp", ".a.tmp", ".7.tmp", ".a.7.tmpx")] == [None] * 4
