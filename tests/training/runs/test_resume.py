"""A run that is killed and resumes is the run that was never killed: same losses, same weights, bit for bit."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from deepavfusion.training.data.scenes import ScenesConfig
from deepavfusion.training.data.scenes.export import write_scene
from deepavfusion.training.data.shards import Encoding, finish, prepare
from deepavfusion.training.prepare import preparation_of
from tests.training.stand_in import TINY_RECIPE
from tests.warm import warm_python

SCRIPT = Path(__file__).with_name("kill_and_resume.py")
# Every step is logged, so that the moment of a kill can be chosen; clips are read by a process of their own.
SETTINGS = ["run.log_steps=1", "run.save_epochs=0.5", "run.eval_epochs=1", "optim.epochs=4", "data.num_workers=1"]
MODEL_DROPS = ["model.drop_path_rate=0.2", "model.hidden_dropout_prob=0.1"]


def finetuning_recipe():
    """Recognition with all its draws, by the model of the pre-training recipe."""
    recipe = yaml.safe_load(TINY_RECIPE)
    del recipe["run"]["num_reconstructions"]
    return yaml.safe_dump(
        recipe
        | {
            "command": "finetune",
            "task": {"name": "recognition", "mixup": 0.5, "label_smoothing": 0.1, "modality_dropout": 0.4},
            "data": recipe["data"] | {"selection_size": 6},
            "optim": recipe["optim"] | {"layer_decay": 0.75},
            "run": recipe["run"] | {"num_examples": 0},
        }
    )


RECIPES = {"pretrain": TINY_RECIPE, "finetune": finetuning_recipe()}


def run(folder, mode, command, *extra, recipe_text=None):
    recipe = folder / "tiny.yaml"
    recipe.write_text(recipe_text or RECIPES[command])
    line = [warm_python(), str(SCRIPT), str(mode), command, str(recipe), str(folder), *SETTINGS, *extra]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment)
    log = (folder / "log.txt").read_text() if (folder / "log.txt").exists() else ""
    assert done.returncode == 0, done.stderr + log
    return json.loads(done.stdout), log


def records(folder):
    """What a run's metrics say, without its times."""
    timing = ("samples_per_second", "data_wait_fraction", "eta", "seconds")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Command and world size -> folder of an uninterrupted and an interrupted run on so many processes."""
    cache = {}

    def get(command, world):
        if (command, world) not in cache:
            folder = tmp_path_factory.mktemp(f"{command}{world}")
            cache[command, world] = (folder, *run(folder, world, command, *MODEL_DROPS))
        return cache[command, world]

    return get


@pytest.mark.parametrize(
    ("command", "world"),
    [
        ("pretrain", 1),
        pytest.param("pretrain", 2, marks=pytest.mark.slow),
        pytest.param("finetune", 1, marks=pytest.mark.slow),
        pytest.param("finetune", 2, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_never_killed(runs, command, world):
    folder, codes, log = runs(command, world)
    assert codes["whole"] == codes["resumed"] == [0] * world, log
    assert codes["killed"] == [-9] * world
    assert codes["terminated"] == [143] * world, log
    total = len(records(folder / "whole"))
    assert codes["lines_after_kill"] < codes["lines_after_term"] < total
    assert log.count("resumed after step") == 2
    assert records(folder / "interrupted") == records(folder / "whole")
    whole, interrupted = (load_file(folder / name / "model.safetensors") for name in ("whole", "interrupted"))
    assert set(whole) == set(interrupted)
    for name, tensor in whole.items():
        assert torch.equal(tensor, interrupted[name]), name


def test_every_record_is_there_once(runs):
    folder, _, _ = runs("pretrain", 1)
    train = [record["step"] for record in records(folder / "interrupted") if record["kind"] == "train"]
    assert train == list(range(1, 17))
    assert [record["step"] for record in records(folder / "interrupted") if record["kind"] == "evaluation"] == [
        0,
        4,
        8,
        12,
        16,
    ]


@pytest.mark.slow
def test_processes_and_shards_change_nothing_but_rounding(tmp_path):
    codes, log = run(tmp_path, "layouts", "pretrain", "optim.epochs=2")
    assert codes == {"one": [0], "two": [0, 0], "sharded": [0, 0], "begun": [143], "moved": [0, 0]}, log
    assert log.count("resumed after step") == 1
    one = load_file(tmp_path / "one" / "model.safetensors")
    for name in ("two", "sharded", "moved"):
        other = load_file(tmp_path / name / "model.safetensors")
        assert set(other) == set(one)
        assert max(float((one[key] - other[key]).abs().max()) for key in one) < 2e-5, name
        losses = [[row["loss"] for row in records(tmp_path / run_name)] for run_name in ("one", name)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
        probes = [records(tmp_path / run_name)[0]["fusion_accuracy"] for run_name in ("one", name)]
        assert probes[0] == probes[1]


@pytest.fixture(scope="module")
def scenes_in_shards(tmp_path_factory):
    """Scenes exported as mp4, and prepared."""
    root, config = tmp_path_factory.mktemp("scenes"), ScenesConfig(image_size=32, seconds=1.0)
    for index in range(28):
        clip, *_ = write_scene(config, index, root / "made" / str(index))
        (root / "videos").mkdir(exist_ok=True)
        clip.rename(root / "videos" / f"{index:03d}.mp4")
    preparation = preparation_of({"name": "folder", "path": str(root / "videos")}, Encoding(quality=95), 8)
    list(prepare(preparation, root / "shards"))
    assert finish(preparation, root / "shards").clips == 28
    return root / "shards"


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_shards_are_read_exactly_however_often_a_run_is_killed(scenes_in_shards, tmp_path, kills):
    recipe = yaml.safe_load(TINY_RECIPE)
    recipe["data"] = {"name": "shards", "path": str(scenes_in_shards), "validation_fraction": 0.15, "eval_size": 4}
    recipe["run"] |= {"num_reconstructions": 1}
    settings = [f"optim.epochs={2 if kills == 2 else 8}", "run.eval_epochs=8"]
    text = yaml.safe_dump(recipe)
    codes, log = run(tmp_path, f"kills={kills}", "pretrain", *settings, recipe_text=text)
    assert codes["whole"] == [0], log
    assert set(codes["resumed"]) == {0}, log
    assert all(set(ended) == {-9} for ended, _ in codes["killed"]), log
    total = len(records(tmp_path / "whole"))
    assert all(3 <= lines < total for _, lines in codes["killed"])
    whole, interrupted = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "interrupted"))
    assert set(whole) == set(interrupted)
    for name, tensor in whole.items():
        assert torch.equal(tensor, interrupted[name]), name
    assert [row["step"] for row in records(tmp_path / "interrupted")] == [
        row["step"] for row in records(tmp_path / "whole")
    ]
