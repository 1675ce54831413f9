"""Mutated checkpoints, configurations and published files are loaded or refused in one line."""

from collections import Counter

import pytest
import torch

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForAudioVisualClassification,
    export_original_state_dict,
    load_original_checkpoint,
)
from tests.faults.contract import READ, REFUSED, mutated_model, small_model, try_model
from tests.faults.mutations import generator, mutate_tensors
from tests.tiny import INFERABLE

SEED = 12
FEW, MANY = 36, 600


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return small_model(tmp_path_factory.mktemp("saved") / "model")


def test_a_whole_model_is_loaded(saved, capsys):
    assert try_model(saved, capsys) == READ


def fuzz(saved, folder, numbers, capsys) -> Counter:
    """Outcomes of mutated models; raises for the first that breaks the contract."""
    outcomes = Counter()
    for number in numbers:
        what = mutated_model(saved, folder, SEED, number)
        try:
            outcomes[try_model(folder, capsys)] += 1
        except Exception as error:
            raise AssertionError(f"seed {SEED}, number {number}: {what}") from error
    return outcomes


def test_mutated_models_are_loaded_or_refused(saved, tmp_path, capsys):
    outcomes = fuzz(saved, tmp_path / "model", range(FEW), capsys)
    assert outcomes[REFUSED] > FEW // 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_mutated_models_are_loaded_or_refused(saved, tmp_path, capsys):
    outcomes = fuzz(saved, tmp_path / "model", range(FEW, FEW + MANY), capsys)
    assert sum(outcomes.values()) == MANY


def test_mutated_published_tensors_are_refused():
    """Whatever is done to one tensor, the file is no longer that of a model, except where nothing follows from it."""
    torch.manual_seed(0)
    config = DeepAVFusionConfig(**{**INFERABLE, "num_hidden_layers": 1}, num_labels=3)
    tensors = export_original_state_dict(DeepAVFusionForAudioVisualClassification(config))
    load_original_checkpoint(tensors)
    for number in range(60):
        what, changed = mutate_tensors(tensors, generator(SEED, number))
        if changed.keys() == tensors.keys() and all(torch.equal(changed[name], tensors[name]) for name in tensors):
            continue  # flattened what is flat
        with pytest.raises(ValueError, match=r"\S") as refused:
            load_original_checkpoint(changed)
        assert len(str(refused.value).splitlines()) == 1, what
