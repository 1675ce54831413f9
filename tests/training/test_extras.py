"""Every command where exactly the packages are installed that setup.cfg declares for it."""

import json
import shlex
import shutil
import subprocess
import tempfile
import venv
from importlib import metadata
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement

import deepavfusion_cli as cli
from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForPreTraining,
    DeepAVFusionModel,
    export_original_state_dict,
)
from deepavfusion.training import extras
from tests.inference.test_commands import MODELS
from tests.isolated import ROOT, copy_source, declared, hub_environment, run_with_extras
from tests.media_factory import write_kinds
from tests.modeling_deepavfusion.cases import make_model, save_model

from .stand_in import TINY_RECIPE
from .test_finetune import SIZES, arguments

FINETUNED = ("recognition", "separation", "segmentation", "localization")
# Runs commands in one process, for importing torch takes seconds; ends with the first exit code that is not 0.
RUN = """
import json, sys
import deepavfusion_cli as cli
for arguments in json.loads(sys.argv[1]):
    code = cli.main(arguments)
    if code:
        sys.exit(f"deepavfusion {' '.join(arguments)}: exit code {code}")
"""
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    module = importlib.import_module(f"deepavfusion.{name}")
    if hasattr(module, "__path__"):
        importlib.import_module(f"{module.__name__}.__main__")
"""


def programs() -> set[str]:
    """Modules that can be run, such as "training.pretrain"."""
    found = [path for package in ("inference", "training") for path in (ROOT / package).rglob("*.py")]
    found = [path for path in found if "__name__ == " in path.read_text(encoding="utf-8")]
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found}
    return {name.removesuffix(".__main__") for name in names}


def extra_of(program: str) -> str | None:
    return extras.EXTRAS.get(program.removeprefix("training.").removeprefix("inference."))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model for each command, a published checkpoint with its configuration, media files and a recipe."""
    folder = tmp_path_factory.mktemp("extras")
    for name, (model_class, overrides) in MODELS.items():
        save_model(folder / name, model_class, **overrides)
    write_kinds(folder, seconds=2.5, sound_seconds=2.5, silent_seconds=1.0, rate=22050, picture="cello.png")
    encoder = make_model(DeepAVFusionModel)
    encoder.config.save_pretrained(folder / "config")
    torch.save(export_original_state_dict(encoder), folder / "published.pth")
    DeepAVFusionForPreTraining(DeepAVFusionConfig(**SIZES)).save_pretrained(folder / "encoder")
    (folder / "tiny.yaml").write_text(TINY_RECIPE)
    clips = folder / "clips"
    clips.mkdir()
    for index in range(6):
        (clips / f"{index}.mov").symlink_to(folder / "clip.mov")
    return folder


def inference_commands(folder: Path) -> list[list[str]]:
    clip, out = str(folder / "clip.mov"), folder / "out"
    commands = [
        ["--help"],
        ["convert", str(folder / "published.pth"), str(out / "convert"), "--config", str(folder / "config")],
    ]
    for name in ("classify", "separate", "segment", "localize"):
        place = [] if name == "classify" else ["--out", str(out / name)]
        commands.append([name, clip, "--model", str(folder / name), "--device", "cpu", *place])
    commands.append(["localize", clip, "--model", str(folder / "pretrain"), "--map", "attention", "--out", str(out)])
    commands.append(["embed", clip, "--model", str(folder / "pretrain"), "--out", str(out / "embed")])
    return commands


def training_commands(folder: Path) -> list[list[str]]:
    out, pretrain = folder / "runs", ["pretrain", str(folder / "tiny.yaml")]
    own = [
        "data.name=folder",
        f"data.path={folder / 'clips'}",
        "data.max_sounding=null",
        "data.validation_fraction=0.34",
    ]
    tuned = arguments(folder / "encoder", out / "again", "data.eval_size=4", "optim.epochs=1")
    tuned = [*tuned, "run.trackers=tensorboard", "optim.mixed_precision=no"]  # one precision a process
    return [
        [*pretrain, f"run.output_dir={out / 'scenes'}", "run.trackers=tensorboard", "optim.epochs=1"],
        [*pretrain, f"run.output_dir={out / 'own'}", "optim.batch_size=2", *own],
        *(["finetune", f"scenes_{task}", *tuned, f"run.output_dir={out / task}"] for task in FINETUNED),
        ["probe", "scenes_probe", *tuned, f"run.output_dir={out / 'probe'}"],
        ["evaluate", "scenes_recognition", *tuned, "--model", str(out / "recognition"), "--out", str(out / "again")],
    ]


def check_inference(folder: Path) -> None:
    written = {path.name for path in (folder / "out").rglob("*") if path.is_file()}
    assert {"model.safetensors", "clip_separated.wav", "clip_spectrograms.png", "clip.safetensors"} <= written
    assert {"clip_at_1.25s_mask.png", "clip_at_1.25s_overlay.png", "clip_at_1.25s_heat.png"} <= written


def check_training(folder: Path) -> None:
    for name in (*FINETUNED, "probe", "again"):
        assert (folder / "runs" / name / "report.html").is_file(), name
    for name in ("scenes", "own"):
        assert (folder / "runs" / name / "model.safetensors").is_file(), name


def test_the_base_install_runs_inference(folder):
    result = run_with_extras((), "-c", RUN, json.dumps(inference_commands(folder)), home=folder)
    assert result.returncode == 0, result.stderr
    check_inference(folder)


@pytest.mark.slow
def test_the_extra_train_runs_training(folder):
    result = run_with_extras(["train"], "-c", RUN, json.dumps(training_commands(folder)), home=folder)
    assert result.returncode == 0, result.stderr
    check_training(folder)


@pytest.mark.parametrize(
    "extra",
    # Gradio is not installed for `make test`.
    [None, "train", "eval", pytest.param("demo", marks=pytest.mark.ecosystem)],
)
def test_programs_import_what_they_declare_alone(folder, extra):
    assert set(extras.EXTRAS.values()) == {"train", "eval", "demo"}
    names = sorted(name for name in programs() if extra_of(name) == extra)
    assert names
    result = run_with_extras([extra] if extra else (), "-c", IMPORT, *names, home=folder)
    assert result.returncode == 0, result.stderr


def test_a_module_that_is_run_names_the_extra(folder):
    result = run_with_extras((), "-m", "deepavfusion.training.pretrain", "scenes_tiny", home=folder)
    assert (result.returncode, result.stdout) == (2, "")
    needed = [Requirement(line) for line in declared("train")]
    install = shlex.join(["pip", "install", *map(str, needed)])
    advice = f"needs the packages {', '.join(r.name for r in needed)}; install them by `{install}`"
    assert result.stderr == f"deepavfusion pretrain: {advice}\n"


def test_the_demo_names_its_extra(folder):
    code = f"import sys, deepavfusion_cli as cli; sys.exit(cli.main(['demo', {str(folder / 'localize')!r}]))"
    result = run_with_extras((), "-c", code, home=folder, without=["gradio"])
    assert (result.returncode, result.stdout) == (2, "")
    (gradio,) = declared("demo")
    advice = f"needs the package gradio; install it by `{shlex.join(['pip', 'install', str(Requirement(gradio))])}`"
    assert result.stderr.splitlines()[-1] == f"deepavfusion demo: {advice}"


@pytest.mark.parametrize("line", declared("train"))
def test_each_package_of_the_extra_is_named(line, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no run is
    found, package = metadata.distribution, Requirement(line).name

    def distribution(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    for command in cli.COMMANDS:
        if extras.EXTRAS.get(cli.MODULES.get(command, command)) == "demo":
            continue  # which need not be installed
        needed = extras.EXTRAS.get(cli.MODULES.get(command, command)) == "train"
        install = shlex.join(["pip", "install", str(Requirement(line))])
        message = f"deepavfusion {command}: needs the package {package}; install it by `{install}`"
        assert extras.missing_extra(command) == (message if needed else None)
    assert cli.main(["finetune", "scenes_recognition", "model.init_from=null"]) == 2
    assert capsys.readouterr().err == f"{extras.missing_extra('finetune')}\n"
    program = "python -m deepavfusion.training.experiments.ablations"
    assert extras.missing_extra("experiments.ablations").startswith(f"{program}: needs the package {package}; ")


def test_extras_are_known_by_the_names_of_programs():
    assert {name for name in extras.EXTRAS if not {f"training.{name}", f"inference.{name}"} & programs()} == set()
    # `recipes` is answered by the command line itself, without the package.
    modules = {name: cli.MODULES.get(name, name) for name in cli.COMMANDS if name != "recipes"}
    commands = {f"{'inference' if name in cli.INFERENCE else 'training'}.{modules[name]}" for name in modules}
    assert commands <= programs()


def test_code_that_was_never_installed_declares_nothing(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", absent)
    assert extras.missing_extra("pretrain") is None


@pytest.mark.network
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("extra", ["", "[train]"])
def test_real_environments(folder, extra):
    """What the hidden packages stand for: `pip install deepavfusion` and `deepavfusion[train]`."""
    for earlier in ("out", "runs"):
        shutil.rmtree(folder / earlier, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        source, environment = Path(place, "source"), Path(place, "venv")
        copy_source(source)
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        constraints = ["--constraint", ROOT / "constraints.txt"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, f"{source}{extra}"], check=True)
        commands = training_commands(folder) if extra else inference_commands(folder)
        options = {"cwd": folder, "env": hub_environment(Path(place, "home")), "check": True}
        subprocess.run([python, "-c", RUN, json.dumps(commands)], **options)
    check_training(folder) if extra else check_inference(folder)
