"""Mutated checkpoints, configurations and published files are loaded or refused in one line."""

import json
import shutil
from collections import Counter

import pytest

from deepavfusion import load_original_checkpoint
from tests.faults.contract import (
    READ,
    REFUSED,
    published_tensors,
    run_command,
    small_model,
    try_model,
    try_mutated_model,
    try_mutated_tensors,
)

SEED = 12
FEW, MANY = 36, 600


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("saved") / "model")


def test_a_whole_model_is_loaded(saved):
    assert try_model(saved) == READ


def fuzz(saved, folder, numbers) -> Counter:
    """Outcomes of mutated models; raises for the first that breaks the contract."""
    return Counter(try_mutated_model(saved, folder, SEED, number)[1] for number in numbers)


def test_mutated_models_are_loaded_or_refused(saved, tmp_path):
    outcomes = fuzz(saved, tmp_path / "model", range(FEW))
    assert outcomes[REFUSED] > FEW // 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_mutated_models_are_loaded_or_refused(saved, tmp_path):
    outcomes = fuzz(saved, tmp_path / "model", range(FEW, FEW + MANY))
    assert sum(outcomes.values()) == MANY


def test_mutated_published_tensors_are_refused():
    """Whatever is done to one tensor, the file is no longer that of a model."""
    tensors = published_tensors()
    load_original_checkpoint(tensors)
    outcomes = Counter(try_mutated_tensors(tensors, SEED, number)[1] for number in range(60))
    assert outcomes[REFUSED] > 50


@pytest.mark.parametrize("name", ["x", "bert", None, 5])
def test_models_of_another_type_are_refused_without_a_question(saved, tmp_path, name):
    """Of an unknown type with code beside it, transformers asks on the terminal whether to run the code."""
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": name}))
    assert config["auto_map"]
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no audio")
    code, out, err = run_command(["classify", "--model", str(folder), str(broken), "--device", "cpu"])
    assert (code, out) == (2, "")
    assert err == f"deepavfusion classify: {folder} holds a model of type {name!r}: expected 'deepavfusion'.\n"
