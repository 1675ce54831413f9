"""Every recipe of the package from the data set's files to the report, on small copies of the public data sets."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionConfig, DeepAVFusionForSoundLocalization, DeepAVFusionModel
from deepavfusion.training.config.recipe import load_recipe, recipe_command, recipe_names
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.files import FileClips
from deepavfusion.training.data.sources import DATA_SETS
from deepavfusion.training.data.stills import BoxClips, StillClips
from tests.tiny import WIDE

from .data.copies import COPIES, Clips

RECIPES = sorted({*recipe_names("pretrain"), *recipe_names("evaluate")})
# Of every command and task one; `make test-slow` runs all others.
QUICK = {
    *("vggsound_base", "audioset_finetune", "vggsound_probe", "vggsound_retrieval", "vggsound_music_separation"),
    *("avsbench_avss", "vggss_localization", "is3_localization"),
}
LAYOUTS = [(name, layout) for name, layouts in COPIES.items() for layout in range(len(layouts))]
FRAMES = [(name, layout) for name, layout in LAYOUTS if not {"recognition"} & {*DATA_SETS[name].tasks}]
VIDEOS = sorted({*COPIES} - {name for name, _ in FRAMES})
SIZES = {**WIDE, "spectrogram_length": 64}
MODEL = DeepAVFusionConfig(**SIZES)
STEP = (
    *("optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=2", "optim.gradient_accumulation=1"),
    *("run.eval_epochs=1", "run.log_steps=1", "data.train_size=2"),
)
EVALUATION = ("run.cpu=true", "data.num_workers=0", "data.max_unreadable_fraction=0", "data.eval_size=2")


@pytest.fixture(scope="module")
def copy_of(tmp_path_factory):
    """Gives the copy of a data set in one of its layouts."""
    clips = Clips(tmp_path_factory.mktemp("originals"))

    @cache
    def make(name, layout=0):
        return COPIES[name][layout](clips, tmp_path_factory.mktemp(name))

    return make


@pytest.fixture(autouse=True)
def _fresh_accelerator():
    """Forget the precision of the recipe before."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Models by task: of recipes that only evaluate one of their task, of all others an encoder."""
    torch.manual_seed(0)
    models = {"retrieval": DeepAVFusionModel(MODEL), "localization": DeepAVFusionForSoundLocalization(MODEL)}
    folder = tmp_path_factory.mktemp("origin")
    for task, model in models.items():
        model.save_pretrained(folder / task)
    return folder


def test_there_is_a_copy_of_every_data_set():
    assert set(COPIES) == set(DATA_SETS) - {"shards"}  # which `data prepare` makes


def test_every_command_and_task_is_in_the_quick_tests():
    def kinds(names):
        recipes = [load_recipe(recipe_command(name), name) for name in names]
        return {(recipe.command, recipe.task.name) for recipe in recipes}

    assert kinds(QUICK) == kinds(RECIPES)


def words_of(copy):
    return [str(copy.path), *(f"data.{key}={value}" for key, value in copy.options.items()), "--num-workers", "0"]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_copy_is_checked(name, layout, copy_of, tmp_path, capsys):
    copy, report = copy_of(name, layout), tmp_path / "report.json"
    parts = {"audioset": "all", "avsbench": "s4"}.get(name)
    part = [] if parts is None else [f"data.subset={parts}"]
    assert cli.main(["data", "check", name, *words_of(copy), *part, "--report", str(report)]) == 0
    assert "all can be read" in capsys.readouterr().out
    splits = json.loads(report.read_text())["splits"].values()
    assert sum(len(split["missing"]) for split in splits) == copy.missing
    assert all(split["found"] > 0 and split["unreadable"] == [] for split in splits)


def prepared(name, copy, out, *subset):
    """Prepare a copy of a data set; gives the options of recipes that read it."""
    chosen = {key: value for key, value in copy.options.items() if key != "validation_fraction"}
    words = ["data", "prepare", name, str(copy.path), str(out), "--fps", "4", "--short-side", "48", *subset]
    options = [f"data.{key}={value}" for key, value in chosen.items()]
    return cli.main([*words, *options, "--num-workers", "0", "--no-check-space"])


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_a_copy_is_prepared(name, layout, copy_of, tmp_path, capsys):
    copy, out = copy_of(name, layout), tmp_path / "prepared"
    assert prepared(name, copy, out) == 0, capsys.readouterr().err
    options = {key: float(value) if key == "validation_fraction" else value for key, value in copy.options.items()}
    source = {"name": name, "path": str(copy.path), **options}
    shards = {"name": "shards", "path": str(out), **options}
    for split in ("test",) if name == "is3" else ("train", "test"):
        found, expected = (
            build_dataset(data, MODEL, split, split == "train", 0, task=DATA_SETS[name].tasks[0])
            for data in (shards, source)
        )
        assert (len(found), found.label_names) == (len(expected), expected.label_names)
        sample, other = found[0], expected[0]
        assert sample.keys() == other.keys()
        assert sample["pixel_values"].shape == other["pixel_values"].shape
        assert Path(sample["path"]).name == Path(other["path"]).name
        if name == "is3":
            assert isinstance(found, BoxClips)
            assert isinstance(expected, BoxClips)
            assert [found.offscreen(i) for i in range(len(found))] == [expected.offscreen(i) for i in range(len(found))]


@pytest.mark.parametrize("name", VIDEOS)
def test_the_list_of_a_copy_gives_the_same_clips(name, copy_of, tmp_path):
    copy, out = copy_of(name), tmp_path / "usable.parquet"
    assert cli.main(["data", "check", name, *words_of(copy), "--out", str(out)]) == 0
    source = {"name": name, "path": str(copy.path)}
    compared = 0
    for task in DATA_SETS[name].tasks:
        for options in ({}, *([{"validation_fraction": 0.5}] * (task == "recognition"))):
            for split in ("train", "validation", "test"):
                if name != "folder" and split == "validation" and not options:
                    continue
                found, expected = (
                    build_dataset(source | options | more, MODEL, split, split == "train", 0, task=task)
                    for more in ({"checked_list": str(out)}, {})
                )
                assert isinstance(found, FileClips)
                assert isinstance(expected, FileClips)
                columns = [name for name in ("path", "label", "start", "end") if name in expected.rows.column_names]
                assert found.rows.select_columns(columns).to_list() == expected.rows.select_columns(columns).to_list()
                assert (found.card, found.label_names) == (expected.card, expected.label_names)
                assert getattr(found, "pairs", None) == getattr(expected, "pairs", None)
                assert np.array_equal(getattr(found, "groups", []), getattr(expected, "groups", []))
                compared += len(found)
    assert compared > 10


@pytest.mark.parametrize(("name", "layout"), FRAMES)
def test_the_list_of_frames_gives_the_same_samples(name, layout, copy_of, tmp_path, monkeypatch):
    copy, out = copy_of(name, layout), tmp_path / "usable.parquet"
    words = [word for word in words_of(copy) if not word.startswith("data.validation_fraction")]
    assert cli.main(["data", "check", name, *words, "--out", str(out)]) == 0
    options = {key: value for key, value in copy.options.items() if key != "validation_fraction"}
    source = {"name": name, "path": str(copy.path), **options}
    held = [{}] if name in ("avsbench", "is3") else [{}, {"validation_fraction": 0.5}]
    compared = 0
    for more in held:
        for split in ("train", "validation", "test"):
            for task in DATA_SETS[name].tasks:
                arguments = (MODEL, split, split == "train", 0, task)
                try:
                    expected = build_dataset(source | more, *arguments)
                except ValueError:
                    with pytest.raises(ValueError, match="split"):
                        build_dataset(source | more | {"checked_list": str(out)}, *arguments)
                    continue
                with monkeypatch.context() as patch:
                    for search in ("avsbench.os.scandir", "boxes.vggss.locator"):
                        patch.setattr(f"deepavfusion.training.data.sets.{search}", None)  # folders are not searched
                    found = build_dataset(source | more | {"checked_list": str(out)}, *arguments)
                assert isinstance(found, StillClips)
                assert isinstance(expected, StillClips)
                assert (found.card, found.label_names) == (expected.card, expected.label_names)
                assert getattr(found, "mask_classes", None) == getattr(expected, "mask_classes", None)
                assert [found.describe(i) for i in range(len(found))] == [
                    expected.describe(i) for i in range(len(expected))
                ]
                for still, other in zip(found.rows, expected.rows, strict=True):
                    assert still._replace(name="") == other._replace(name="")
                sample, other = found[len(found) - 1], expected[len(expected) - 1]
                assert sample.keys() == other.keys()
                assert all(torch.equal(sample[key], value) for key, value in other.items() if torch.is_tensor(value))
                compared += 1
    assert compared >= 1


def data_options(recipe, copy_of):
    """Overrides of section `data` by which a recipe reads the copy of its data set."""
    if recipe.data.name == "scenes":
        return ["data.cache_dir=null"]
    copy = copy_of(recipe.data.name, int(recipe.data.subset == "ms3"))  # both releases of AVSBench are used
    return [f"data.path={copy.path}", *(f"data.{key}={value}" for key, value in copy.options.items())]


def check_outcome(folder, task):
    found = json.loads((folder / "evaluation.json").read_text())
    assert (found["task"], found["skipped"]) == (task, 0)
    assert found["num_clips"] > 0
    assert found["metrics"]
    assert len((folder / "report.html").read_text()) > 1000
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("scenes")])
def test_a_recipe_runs_on_prepared_shards(name, copy_of, origin, tmp_path, capsys):
    data = load_recipe(recipe_command(name), name).data
    copy = copy_of(data.name, int(data.subset == "ms3"))
    chosen = [
        f"data.{key}={getattr(data, key)}" for key in ("subset", "drop_overlap") if getattr(data, key) is not None
    ]
    assert prepared(data.name, copy, tmp_path / "shards", *chosen) == 0, capsys.readouterr().err
    options = ["data.name=shards", f"data.path={tmp_path / 'shards'}"]
    options += [f"data.{key}={value}" for key, value in copy.options.items()]
    run_to_report(name, options, origin, tmp_path, capsys)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in RECIPES])
def test_a_recipe_runs_to_its_report(name, copy_of, origin, tmp_path, capsys):
    recipe = load_recipe(recipe_command(name), name)
    run_to_report(name, data_options(recipe, copy_of), origin, tmp_path, capsys)


def run_to_report(name, data, origin, tmp_path, capsys):
    """Train by a recipe, and evaluate."""
    command = recipe_command(name)
    recipe, out = load_recipe(command, name), tmp_path / "out"
    options = [*EVALUATION, *data]
    if command != "evaluate":
        sizes = [f"model.init_from={origin / 'retrieval'}"]
        if command == "pretrain":
            sizes = [] if recipe.data.name == "scenes" else [f"model.{key}={value}" for key, value in SIZES.items()]
        elif recipe.run.keep_best:
            sizes.append("data.selection_size=2")
        words = [command, name, f"run.output_dir={out}", *sizes, *STEP, *options]
        assert cli.main(words) == 0, capsys.readouterr().err
        assert check_outcome(out, recipe.task.name)["training"]["steps"] == 1
        assert (out / "README.md").is_file()
    if command != "pretrain":
        model, evaluation = origin / recipe.task.name if command == "evaluate" else out, tmp_path / "evaluation"
        words = ["evaluate", name, "--model", str(model), "--out", str(evaluation), *options]
        assert cli.main(words) == 0, capsys.readouterr().err
        check_outcome(evaluation, recipe.task.name)
