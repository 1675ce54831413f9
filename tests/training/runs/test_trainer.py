"""Fine-tuning on the trainer that pre-training uses: unreadable clips, NaN, accumulated batches, notes of the best."""

import json

import pytest
import yaml
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

from deepavfusion.training import finetune
from deepavfusion.training.tasks import base
from tests.training.stand_in import StandInClips

from .test_resume import finetuning_recipe


class LabeledClips(StandInClips):
    label_names, multi_label = ["low", "lower", "high", "higher"], False

    def classes(self):
        return [[index % 4] for index in range(len(self))]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Fine-tunes on stand-in clips; gives the exit code. Clips named in `broken` and `poisoned` are bad."""
    recipe = yaml.safe_load(finetuning_recipe())
    recipe["task"] = {"name": "recognition"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))

    def start(folder, *arguments, broken=(), poisoned=()):
        def build(source, config, split, train, seed, task):
            bad = {"broken": broken, "poisoned": poisoned} if train else {}
            return LabeledClips(config, source["train_size"] if train else source["eval_size"], train, **bad)

        monkeypatch.setattr(base, "build_dataset", build)
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        return finetune.main([str(tmp_path / "tiny.yaml"), f"run.output_dir={tmp_path / folder}", *arguments])

    yield start
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def largest_difference(a, b, without="nothing"):
    a, b = (load_file(folder / "model.safetensors") for folder in (a, b))
    return max(float((a[name] - b[name]).abs().max()) for name in a if not name.endswith(without))


def test_accumulated_batches_equal_one_large_batch(run, tmp_path):
    assert run("one", "optim.batch_size=8") == 0
    assert run("four", "optim.batch_size=2", "optim.gradient_accumulation=4") == 0
    # The bias of keys changes no attention: its gradient is rounding alone, which AdamW scales up.
    assert largest_difference(tmp_path / "one", tmp_path / "four", without="k_proj.bias") < 2e-5


def test_batches_without_a_readable_clip_move_nothing(run, tmp_path, capsys):
    settings = ("data.max_unreadable_fraction=1.0", "optim.weight_decay=0.0")
    assert run("out", *settings, broken=range(32)) == 0
    assert capsys.readouterr().out.count("skipped, cannot be read: clip-") == 32
    assert run("still", "optim.base_lr=1e-30", "optim.weight_decay=0.0") == 0
    assert largest_difference(tmp_path / "out", tmp_path / "still") < 1e-25
    found = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert len(found["training"]["skipped_clips"]) == 32
    assert found["training"]["clips_seen"] == 0


def test_too_many_unreadable_clips_and_nan_stop_the_run_with_their_names(run, capsys):
    assert run("broken", broken=range(4)) == 1
    assert "clip-3.mp4: no decodable frame" in capsys.readouterr().err
    assert run("nan", poisoned=[5]) == 1
    error = capsys.readouterr().err
    assert "The loss of step" in error
    assert "clip-5.mp4" in error
    assert error.count(".mp4") == 8
