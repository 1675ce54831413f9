"""A damaged checkpoint does not block the run: the newest whole one is used, and the run says so."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepavfusion.inference.files import UnreadableError
from deepavfusion.inference.folder import FolderError
from deepavfusion.training.runs.checkpoints import (
    CHECKSUMS,
    COMPLETE,
    checkpoint_path,
    complete_checkpoints,
    damage,
    load_weights,
    newest_whole,
    restore_training_state,
)
from deepavfusion.training.runs.folder import RunFolder
from deepavfusion_cli.early.runs import BatchLayout
from tests.faults.test_surroundings import FAKE
from tests.training.runs.test_checkpoints import save, trained

BATCH = BatchLayout(1, 1, 1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A whole checkpoint."""
    return save(tmp_path_factory.mktemp("whole") / "checkpoint-1", *trained((0, 1)))


@pytest.fixture
def run(tmp_path, checkpoint):
    """A run that was stopped after three checkpoints."""
    folder = RunFolder(tmp_path / "run", "pretrain", FAKE)
    folder.plan({"seed": 1}, BATCH)
    folder.claim()
    folder.begin("recipe")
    for step in (1, 2, 3):
        shutil.copytree(checkpoint, checkpoint_path(folder.checkpoints, step))
    folder.close()
    return folder.path


def planned(path):
    folder = RunFolder(path, "pretrain", FAKE)
    folder.plan({"seed": 1}, BATCH)
    return folder


def flip(data):
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


DAMAGE = {
    "cut": (lambda data: data[:-1], "bytes"),
    "longer": (lambda data: data + b"\0", "bytes"),
    "empty": (lambda data: b"", "0 bytes"),
    "a bit": (flip, "is not what was written"),
    "zeros": (lambda data: bytes(len(data)), "is not what was written"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("name", ["model.safetensors", "training_state.pt"])
def test_the_newest_whole_checkpoint_is_used_and_said(run, name, kind):
    file = checkpoint_path(run / "checkpoints", 3) / name
    file.write_bytes(DAMAGE[kind][0](file.read_bytes()))
    folder = planned(run)
    assert folder.resume_from.name == "checkpoint-2"
    damaged, resumed = folder.notes()
    assert damaged.startswith(f"checkpoint-3 is damaged ({name} ")
    assert DAMAGE[kind][1] in damaged
    assert resumed == f"resumed after step 2 from {folder.resume_from}"
    folder.claim()
    folder.begin("recipe")
    folder.close()
    assert [path.name for path in complete_checkpoints(folder.checkpoints)] == ["checkpoint-1", "checkpoint-2"]


def test_a_missing_file_and_damaged_checksums_count(run):
    (checkpoint_path(run / "checkpoints", 3) / "model.safetensors").unlink()
    for content in ("{", "[]", '{"x": 3}', "\0"):
        (checkpoint_path(run / "checkpoints", 2) / CHECKSUMS).write_text(content)
        folder = planned(run)
        assert folder.resume_from.name == "checkpoint-1"
        assert folder.damaged == {
            "checkpoint-3": "model.safetensors is missing",
            "checkpoint-2": "checksums.json cannot be read",
        }


def test_without_any_whole_checkpoint_the_run_says_what_to_do(run):
    for step in (1, 2, 3):
        (checkpoint_path(run / "checkpoints", step) / "training_state.pt").write_bytes(b"")
    with pytest.raises(FolderError, match="start over with run.resume=false") as caught:
        planned(run)
    assert [f"checkpoint-{step}: training_state.pt has 0 bytes" in str(caught.value) for step in (1, 2, 3)] == [
        True
    ] * 3
    assert RunFolder(run, "pretrain", FAKE, resume=False).resume_from is None
    assert len(complete_checkpoints(run / "checkpoints")) == 3  # nothing is removed by a plan


@pytest.mark.parametrize("missing", [False, True])
def test_the_best_checkpoint_must_be_whole_as_well(run, missing):
    state = {"best_model_checkpoint": "/another/machine/checkpoint-2"}
    path = checkpoint_path(run / "checkpoints", 3)
    (path / "trainer_state.json").write_text(json.dumps(state))
    assert newest_whole(run / "checkpoints").path == path
    best = checkpoint_path(run / "checkpoints", 2)
    if missing:
        shutil.rmtree(best)
    else:
        (best / "model.safetensors").write_bytes(b"")
    found = newest_whole(run / "checkpoints")
    assert found.path.name == "checkpoint-1"
    assert found.damaged["checkpoint-3"].startswith("of the best checkpoint, checkpoint-2, ")


def test_checkpoints_of_earlier_versions_have_no_checksums(run):
    (checkpoint_path(run / "checkpoints", 3) / CHECKSUMS).unlink()
    assert planned(run).resume_from.name == "checkpoint-3"


def test_a_whole_checkpoint_lists_all_its_files(checkpoint):
    listed = json.loads((checkpoint / CHECKSUMS).read_text())
    assert set(listed) == {file.name for file in checkpoint.iterdir()} - {CHECKSUMS, COMPLETE}
    assert damage(checkpoint) is None


@given(st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_is_found(checkpoint, tmp_path, data):
    copy = tmp_path / "checkpoint-1"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(checkpoint, copy)
    file = copy / data.draw(st.sampled_from(["model.safetensors", "training_state.pt"]))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    file.write_bytes(bytes(content))
    assert damage(copy) == f"{file.name} is not what was written"


def test_what_is_damaged_during_a_run_is_named(checkpoint, tmp_path):
    path = shutil.copytree(checkpoint, tmp_path / "checkpoint-1")
    model, optimizer, scheduler = trained((0, 0))
    for name in ("model.safetensors", "training_state.pt"):
        (path / name).write_bytes(b"damaged")
    for read in (lambda: load_weights(model, path), lambda: restore_training_state(path, model, optimizer, scheduler)):
        with pytest.raises(UnreadableError, match=r"^/.*/checkpoint-1/\w+\.\w+: it is damaged") as caught:
            read()
        assert str(caught.value).count(str(path)) == 1
        assert "weights_only" not in str(caught.value)
