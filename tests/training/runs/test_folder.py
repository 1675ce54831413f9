"""What commands do to the folder that they are given: nothing that was not theirs is changed, whatever is there."""

import itertools
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining
from deepavfusion.inference.files import DiskFullError
from deepavfusion.inference.folder import MARK_FILE, FolderError
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training import finetune, pretrain
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.data.identity import ClipDigests, TrainingClips
from deepavfusion.training.data.scenes import __main__ as scenes
from deepavfusion.training.runs import run as runs
from deepavfusion.training.runs.checkpoints import COMPLETE
from deepavfusion.training.runs.folder import RunFolder
from deepavfusion.training.tasks import TASKS, Recognition, base, pretraining
from deepavfusion_cli.early.runs import BatchLayout
from tests.training.stand_in import TINY_RECIPE, StandInClips
from tests.training.test_finetune import SIZES, arguments

ALONE = SimpleNamespace(is_main_process=True, wait_for_everyone=lambda: None)
BATCH = BatchLayout(8, 1, 1)
SMALL = ["data.eval_size=8", "data.cache_dir=null", "data.num_workers=0", "optim.batch_size=8", "run.cpu=true"]
# Files of a user, some with names near to those of the package.
FOREIGN = (
    "notes.txt",
    "clip.mp4",
    "checkpoints/best/model.safetensors",
    "checkpoints/checkpoint-3-best/model.safetensors",
    "checkpoints/checkpoint-notes/complete",
    "checkpoints/step-3/model.safetensors",
    "checkpoints/.writing-mine/a",
    "checkpoints/list.txt",
    "pictures/holiday.png",
    "scene/mine.wav",
    "code/train.py",
)


def snapshot(folder):
    """Every path below a folder with its content; locks, which name processes, without."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() and path.name != ".lock" else None
        for path in folder.rglob("*")
    }


def put(folder, names, text="a user's"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text} {name}")


def opened(path, command="finetune", recipe="first", batch=BATCH, **options):
    folder = RunFolder(path, command, ALONE, **options)
    folder.plan({"recipe": recipe}, batch)
    return folder


def train(folder, step=4, finished=True, name="first"):
    """What an engine does with a folder: checkpoints, metrics, and results by way of the draft."""
    if folder.finished:
        return
    folder.claim()
    folder.begin("recipe")
    folder.metrics.append({"step": step, "kind": "train"})
    put(folder.checkpoints, [f"checkpoint-{step}/{COMPLETE}", f"checkpoint-{step}/model.safetensors"], name)
    put(folder.checkpoints, ["checkpoint-99/half", ".writing-initial-model/half"], name)
    if finished:
        other = "training_curves.png" if folder.command == "pretrain" else "pictures/001-frame.png"
        put(folder.draft, ["model.safetensors", "config.json", "README.md", other], name)
        folder.publish()
    folder.close()


def model(path):
    file = path / "model.safetensors"
    return file.read_text() if file.is_file() else None


STATES = ("absent", "foreign", "older", "started", "stopped", "finished", "finished, no checkpoints")


def prepare(path, state, rng):
    """A folder in one of the states, with a random part of the user's files in it."""
    foreign = rng.sample(FOREIGN, rng.randint(1, len(FOREIGN)))
    if state == "older":
        put(path, ["recipe.yaml", "model.safetensors", f"checkpoints/checkpoint-4/{COMPLETE}"])
    elif state not in ("absent", "foreign"):
        folder = opened(path)
        train(folder, finished=state.startswith("finished"))
        if state == "started":
            shutil.rmtree(path / "checkpoints")
        if state == "finished, no checkpoints":
            shutil.rmtree(path / "checkpoints")
    if state != "absent":
        put(path, foreign)
    return foreign if state != "absent" else []


@pytest.mark.parametrize("state", STATES)
def test_no_command_with_whatever_options_takes_what_is_not_its_own(state, tmp_path):
    rng = random.Random(STATES.index(state))
    options = itertools.product(("pretrain", "finetune"), ("first", "second"), *([(False, True)] * 4))
    for number, (command, recipe, resume, allow_changed, overwrite, ends) in enumerate(options):
        path = tmp_path / str(number)
        foreign = prepare(path, state, rng)
        before, stood = snapshot(path), model(path)
        same = (command, recipe) == ("finetune", "first")
        what = f"{state} {command} {recipe} resume={resume} allow={allow_changed} overwrite={overwrite}"
        try:
            folder = opened(path, command, recipe, resume=resume, allow_changed=allow_changed, overwrite=overwrite)
            assert snapshot(path) == before, what  # a plan writes nothing
            train(folder, step=8, finished=ends, name="second")
        except FolderError:
            assert snapshot(path) == before, what
            refused = True
        else:
            refused = False
        after = snapshot(path)
        assert {name: after[name] for name in foreign} == {name: before[name] for name in foreign}, what
        if state in ("foreign", "older"):
            assert refused, what
        if state in ("absent", "started"):
            assert not refused, what
        if stood is not None and not overwrite:
            assert model(path) == stood, what
        if stood is not None and not ends:
            assert model(path) == stood, what  # the earlier model stays until the new one is whole
            assert all(after.get(name) == before.get(name) for name in ("README.md", "metrics.jsonl")), what
        if state == "stopped" and resume and not same and not overwrite:
            assert refused != (allow_changed and command == "finetune"), what
        if not refused and ends and not folder.finished:
            assert model(path) == "second model.safetensors", what
            assert not (path / ".draft").exists(), what


def test_what_the_earlier_run_left_and_the_new_one_has_not_is_removed(tmp_path):
    path = tmp_path / "run"
    train(opened(path))
    put(path, FOREIGN)
    assert (path / "pictures" / "001-frame.png").exists()
    train(opened(path, "pretrain", overwrite=True), step=8, name="second")
    assert not (path / "pictures" / "001-frame.png").exists()
    assert (path / "pictures" / "holiday.png").exists()
    left = {entry.name for entry in (path / "checkpoints").iterdir()}
    assert "checkpoint-4" not in left
    assert {"checkpoint-8", "checkpoint-3-best"} < left


FIRST = {"training clips": {"items": 9, "classes": ["a", "b"], "digest": "1"}}
OTHER = "Name another run.output_dir, start over with run.resume=false, or resume it anyway with run.allow_changed"
FINISHED = "Name another run.output_dir, or train anew in its place with run.overwrite=true"


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"items": 10, "digest": "2"}, "data: 9 -> 10 training clips"),
        ({"digest": "2"}, "data: other training clips, or in another order"),
        ({"classes": ["a", "c"], "digest": "2"}, "data: classes a, b -> a, c"),
        ({"classes": ["a", "b", "c"]}, "data: classes a, b -> a, b, c"),
        ({"classes": None}, "data: classes a, b -> none"),
        ({"classes": [str(k) for k in range(11)]}, "data: classes a, b -> 11, 0 ..."),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_run_does_not_go_on_with_other_clips(finished, now, line, tmp_path):
    path, other = tmp_path / "run", {"training clips": FIRST["training clips"] | now}
    folder = opened(path)
    folder.compare(FIRST)
    train(folder, finished=finished)
    folder = opened(path)
    folder.compare(FIRST)
    assert (folder.finished, folder.resume_from is None) == (finished, finished)
    before = snapshot(path)
    with pytest.raises(FolderError) as refusal:
        opened(path).compare(other)
    assert f"of other data (before -> now):\n  {line}\nName another" in str(refusal.value)
    assert ("allow_changed" in str(refusal.value)) == ("classes" not in line)
    assert (FINISHED if finished else OTHER if "classes" not in line else "or start over") in str(refusal.value)
    if "classes" in line:  # to which the weights do not belong
        with pytest.raises(FolderError, match="of other data"):
            opened(path, allow_changed=True).compare(other)
    assert snapshot(path) == before
    folder = opened(path, allow_changed=True, overwrite=finished)
    folder.compare({**other, "more clips": {"items": 1}} if "classes" not in line else FIRST)
    assert folder.resume_from is not None
    folder = opened(path, overwrite=True, resume=not finished)
    folder.compare(other)
    assert not folder.finished
    assert folder.resume_from is None
    train(folder, step=8, finished=False)
    with pytest.raises(FolderError, match="of other data"):
        opened(path).compare(FIRST)


def test_a_run_of_an_earlier_version_goes_on_with_the_clips_that_are_there(tmp_path):
    for finished in (True, False):
        path = tmp_path / str(finished)
        train(opened(path), finished=finished)
        assert "contents" not in json.loads((path / MARK_FILE).read_text())
        folder = opened(path)
        folder.compare(FIRST)
        assert (folder.finished, folder.resume_from is None) == (finished, finished)


def test_clips_of_a_run_that_goes_on_with_others_are_known_together(tmp_path):
    path, file = tmp_path / "run", tmp_path / "run" / "training_clips.parquet"
    clips = [TrainingClips(ClipDigests.of([name], [1])) for name in ("a.mp4", "b.mp4")]
    for number, options in enumerate(({}, {"allow_changed": True}, {"resume": False})):
        folder = opened(path, recipe=str(number), **options)
        folder.claim()
        folder.begin("recipe", clips[min(number, 1)])
        put(folder.checkpoints, [f"checkpoint-4/{COMPLETE}"])
        folder.close()
        assert len(TrainingClips.read(file)) == (1, 2, 1)[number]
    file.write_bytes(b"damaged")
    folder = opened(path, recipe="2")
    folder.claim()
    folder.begin("recipe", clips[0])
    folder.close()
    assert len(TrainingClips.read(file)) == 1


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize("finished", [True, False])
def test_published_files_follow_the_umask(umask, finished, tmp_path):
    folder = opened(tmp_path / "run")
    folder.claim()
    folder.begin("recipe")
    put(folder.draft, ["model.safetensors", "scene/clip.safetensors"])
    for file in ("model.safetensors", "scene/clip.safetensors"):
        (folder.draft / file).chmod(0o600)  # as safetensors does
    before = os.umask(umask)
    try:
        folder.publish(finished)
    finally:
        os.umask(before)
        folder.close()
    for file in ("model.safetensors", "scene/clip.safetensors"):
        assert stat.S_IMODE((folder.path / file).stat().st_mode) == 0o666 & ~umask


def test_the_same_command_on_a_finished_run_has_nothing_to_do(tmp_path, capsys):
    path = tmp_path / "run"
    train(opened(path))
    before = snapshot(path)
    folder = opened(path)
    assert folder.finished
    folder.report_finished()
    assert "nothing to do" in capsys.readouterr().out
    assert snapshot(path) == before
    (path / "README.md").unlink()  # results that are missing are written anew from the last checkpoint
    folder = opened(path)
    assert not folder.finished
    assert folder.resume_from.name == "checkpoint-4"
    train(folder, finished=False)
    folder = opened(path)
    assert folder.replaces
    assert [record["step"] for record in folder.metrics.read()] == [4, 4]
    train(folder)
    assert opened(path).finished


def test_a_run_that_replaces_a_model_goes_on_after_a_kill(tmp_path):
    path = tmp_path / "run"
    train(opened(path))
    train(opened(path, recipe="second", overwrite=True), step=8, finished=False)
    folder = opened(path, recipe="second")
    assert folder.resume_from.name == "checkpoint-8"
    train(folder, step=9, name="second")
    assert model(path) == "second model.safetensors"
    records = [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert records == [8, 9]


@pytest.mark.parametrize("renames", range(7))
def test_a_kill_between_the_renames_is_made_good(renames, tmp_path, monkeypatch, capsys):
    path = tmp_path / "run"
    train(opened(path))
    replace, calls = os.replace, []

    def dying(source, target):
        if ".draft" in str(source) and not str(source).endswith(".tmp"):
            if len(calls) == renames:
                raise KeyboardInterrupt
            calls.append(target)
        return replace(source, target)

    monkeypatch.setattr(os, "replace", dying)
    try:
        train(opened(path, "pretrain", overwrite=True), name="second")
    except KeyboardInterrupt:
        assert renames < 6
    monkeypatch.undo()
    folder = opened(path, "pretrain")
    assert folder.finished
    folder.report_finished()
    names = ("model.safetensors", "config.json", "README.md", "training_curves.png")
    assert [(path / name).read_text() for name in names] == [f"second {name}" for name in names]
    assert not (path / "pictures").exists()
    assert not (path / ".draft").exists()


def test_a_folder_in_use_and_one_that_cannot_be_written_to_are_refused(tmp_path, monkeypatch):
    train(opened(tmp_path / "run"))
    code = (
        "import fcntl, os, sys\nfile = open(os.path.join(sys.argv[1], '.lock'), 'w')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\nprint(os.getpid(), file=file, flush=True)\n"
        "print('locked', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(FolderError, match=f"in use by another run .process {other.pid}"):
            opened(tmp_path / "run")
        other.stdin.close()
    assert opened(tmp_path / "run").finished
    (tmp_path / "file").touch()
    for path in ("file", "file/run"):
        with pytest.raises(FolderError, match="is a file|cannot be written to"):
            RunFolder(tmp_path / path, "finetune", ALONE)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(DiskFullError, match="162 kB needed there, 1 kB free"):
        opened(tmp_path / "new").require_space_for(torch.nn.Linear(100, 100))
    assert not (tmp_path / "new").exists()


def test_a_folder_that_changes_meanwhile_is_not_taken(tmp_path):
    folder = opened(tmp_path / "run")
    train(opened(tmp_path / "run", recipe="second"))
    before = snapshot(tmp_path)
    with pytest.raises(FolderError, match="changed by another run"):
        folder.claim()
    assert snapshot(tmp_path) == before


# Batches


def test_the_effective_batch_decides_and_the_error_says_what_keeps_it(tmp_path):
    path = tmp_path / "run"
    train(opened(path, batch=BatchLayout(8, 2, 4)), finished=False)
    for same in (BatchLayout(64, 1, 1), BatchLayout(16, 4, 1), BatchLayout(32, 1, 2)):
        assert opened(path, batch=same).resume_from is not None
    for other, keeps in (
        (BatchLayout(8, 2, 1), "optim.gradient_accumulation=8 keeps it"),
        (BatchLayout(48, 2, 1), "optim.batch_size=32 keeps it"),
        (BatchLayout(48, 3, 2), "optim.batch_size=32 optim.gradient_accumulation=1 keeps it"),
        (BatchLayout(48, 2, 3), "a number of processes that divides 64 can keep it"),
    ):
        with pytest.raises(FolderError, match=keeps) as caught:
            opened(path, batch=other)
        assert "64 = optim.batch_size=8 x optim.gradient_accumulation=2 x 4 processes" in str(caught.value)
        assert opened(path, batch=other, allow_changed=True).resume_from is not None


def test_ways_of_dealing_out_clips_that_differ_are_told_apart():
    config = DeepAVFusionConfig(**SIZES)

    def of(recipe, *changes):
        recipe = load_recipe("finetune", recipe, changes)
        return runs.fingerprint(TASKS[recipe.task.name], recipe, config)

    assert of("scenes_recognition", "optim.batch_size=8") == of("scenes_recognition", "optim.batch_size=4")
    for recipe, *changes in (
        ("scenes_recognition", "task.mixup=0.5"),
        ("scenes_localization", "model.localization_loss=matching"),
    ):
        assert of(recipe, *changes, "optim.batch_size=8") != of(recipe, *changes, "optim.batch_size=4")


# Commands


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("pretrained")
    made = DeepAVFusionForPreTraining(DeepAVFusionConfig(**SIZES))
    made.save_pretrained(folder)
    DeepAVFusionProcessor.from_config(made.config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def fresh_processes():
    yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def command(name, pretrained, out, *extra):
    if name == "pretrain":
        return ["pretrain", "scenes_tiny", f"run.output_dir={out}", "run.cpu=true", *extra]
    return [name, "scenes_probe" if name == "probe" else "scenes_recognition", *arguments(pretrained, out, *extra)]


MISTAKES = {
    "data": ["data.name=folder", "data.path=/nothing/here"],
    "origin": ["model.init_from=/nothing/here"],
    "attention": ["model.attn_implementation=flesh"],
    "tracker": ["run.trackers=abacus"],
    "key": ["optim.epoch=3"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", ["pretrain", "finetune", "probe"])
def test_mistakes_are_found_before_anything_is_written(name, mistake, pretrained, tmp_path):
    train(opened(tmp_path / "stopped"), finished=False)
    train(opened(tmp_path / "finished"))
    put(tmp_path / "finished", FOREIGN)
    before = snapshot(tmp_path)
    for folder in ("stopped", "finished", "new/run"):
        options = [*MISTAKES[mistake], "run.resume=false", "run.overwrite=true"]
        assert cli.main(command(name, pretrained, tmp_path / folder, *options)) == 2
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("options", [[], ["run.resume=false"], ["run.allow_changed_recipe=true"]])
@pytest.mark.parametrize("name", ["pretrain", "finetune", "probe"])
def test_folders_of_others_are_refused(name, options, pretrained, tmp_path, capsys):
    put(tmp_path / "mine", FOREIGN)
    put(tmp_path / "older", [*FOREIGN, "recipe.yaml", "README.md", f"checkpoints/checkpoint-4/{COMPLETE}"])
    train(opened(tmp_path / "finetuned"))
    train(opened(tmp_path / "pretrained", "pretrain"))
    before = snapshot(tmp_path)
    for folder, message in (
        ("mine", f"has no {MARK_FILE}"),
        ("older", "written by an earlier version"),
        ("finetuned", "run.overwrite=true"),
        ("pretrained", "run.overwrite=true"),
    ):
        assert cli.main(command(name, pretrained, tmp_path / folder, *options)) == 2
        assert message in capsys.readouterr().err
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_evaluations_and_conversions_leave_other_folders_alone(options, pretrained, tmp_path, capsys):
    put(tmp_path / "mine", ["README.md", "evaluation.json"])
    train(opened(tmp_path / "run"))
    checkpoint = tmp_path / "published.pth"
    checkpoint.touch()
    before = snapshot(tmp_path)
    for folder in ("mine", "run"):
        out = str(tmp_path / folder)
        evaluated = ["evaluate", "scenes_retrieval", "--model", str(pretrained), "--out", out, *options, *SMALL]
        assert cli.main(evaluated) == 2
        assert cli.main(["convert", str(checkpoint), out, *options]) == 2
        assert capsys.readouterr().err.count("another") == 2
        assert snapshot(tmp_path) == before


def test_an_evaluation_of_another_model_is_replaced_only_on_request(pretrained, tmp_path, capsys):
    twin = shutil.copytree(pretrained, tmp_path / "twin")
    evaluated = ["evaluate", "scenes_retrieval", *SMALL, "--out", str(tmp_path / "out"), "--model"]
    assert cli.main([*evaluated, str(pretrained)]) == 0
    assert cli.main([*evaluated, str(pretrained)]) == 0
    before = snapshot(tmp_path)
    assert cli.main([*evaluated, str(twin)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert snapshot(tmp_path) == before
    assert cli.main([*evaluated, str(twin), "--overwrite"]) == 0
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["model"] == "twin"


def test_pretraining_replaces_a_model_once_the_new_one_is_whole(tmp_path, monkeypatch):
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(TINY_RECIPE)
    monkeypatch.setattr(
        base, "build_dataset", lambda source, config, split, train, seed, task: StandInClips(config, 16, train)
    )
    for name in ("draw_reconstructions", "training_curves"):
        monkeypatch.setattr(pretraining, name, lambda *arguments: None)

    def run(*changes):
        fresh = ("optim.epochs=1", f"run.output_dir={out}", *changes)
        return pretrain.main([str(recipe), *fresh])

    assert run() == 0
    put(out, FOREIGN)
    own = ("checkpoints/checkpoint-1/", "checkpoints/checkpoint-2/")
    first = {name: content for name, content in snapshot(out).items() if not name.startswith(own)}
    others = ["run.seed=1", "run.overwrite=true"]
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_card", lambda *arguments: 1 / 0)
        assert run(*others) == 1
    between = snapshot(out)
    changed = {name for name in first if between.get(name) != first[name]}
    assert changed == {MARK_FILE}
    DeepAVFusionForPreTraining.from_pretrained(out)
    assert run(*others) == 0
    last = snapshot(out)
    assert all(last[name] == first[name] for name in FOREIGN)
    assert last["model.safetensors"] != first["model.safetensors"]
    assert last["README.md"] != first["README.md"]
    assert b"seed: 1" in last["recipe.yaml"]
    assert json.loads(last[MARK_FILE])["finished"]


def failing(task, *arguments, full, **options):
    """In place of `Task.evaluate`: fails at the end of a run."""
    if full:
        raise ZeroDivisionError
    return base.Task.evaluate(task, *arguments, full=full, **options)


def test_fine_tuning_goes_on_with_the_same_effective_batch_alone(pretrained, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"

    def run(*changes):
        return finetune.main(["scenes_recognition", *arguments(pretrained, out, "optim.epochs=1", *changes)])

    with monkeypatch.context() as patch:
        patch.setattr(Recognition, "evaluate", failing)
        assert run() == 1
    put(out, FOREIGN)
    before = snapshot(out)
    for changes in (["optim.batch_size=4"], ["optim.gradient_accumulation=2"]):
        assert run(*changes) == 2
        assert "keeps it" in capsys.readouterr().err
        assert snapshot(out) == before
    assert run("optim.batch_size=4", "optim.gradient_accumulation=2") == 0
    assert "resumed after step 3 from" in capsys.readouterr().out
    after = snapshot(out)
    assert all(after[name] == before[name] for name in FOREIGN)
    assert after["model.safetensors"] == before["model.safetensors"]
    assert "evaluation.json" in after
    assert load_file(out / "model.safetensors")


def test_old_checkpoints_go_and_those_that_a_user_renamed_stay(pretrained, tmp_path):
    out = tmp_path / "out"
    train(opened(out), finished=False)
    put(out, FOREIGN)
    before = snapshot(out)
    changes = ["optim.epochs=4", "run.keep_checkpoints=1", "run.keep_best=false", "run.resume=false"]
    assert finetune.main(["scenes_recognition", *arguments(pretrained, out, *changes)]) == 0
    after = snapshot(out)
    assert all(after[name] == before[name] for name in FOREIGN)
    left = {path.name for path in (out / "checkpoints").iterdir()}
    assert left == {"checkpoint-12", *(name.split("/")[1] for name in FOREIGN if name.startswith("checkpoints/"))}


def test_scenes_are_written_over_scenes_alone(tmp_path, capsys):
    put(tmp_path / "mine", ["clip.mp4"])
    small = ["--index", "3", "--image-size", "32", "--seconds", "0.75", "--still", "--out"]
    with pytest.raises(SystemExit):
        scenes.main([*small, str(tmp_path / "mine")])
    assert snapshot(tmp_path / "mine") == {"clip.mp4": b"a user's clip.mp4"}
    scenes.main([*small, str(tmp_path / "scene")])
    with pytest.raises(SystemExit):
        scenes.main([*small, str(tmp_path / "scene")])
    scenes.main([*small, str(tmp_path / "scene"), "--overwrite"])
    assert (tmp_path / "scene" / "clip.mp4").stat().st_size > 1000
