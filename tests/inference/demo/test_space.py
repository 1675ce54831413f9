"""The repository of a Space: what it holds, what is refused, and that nothing of this installation is needed."""

import json
from importlib import metadata

import pytest
import yaml

from deepavfusion import DeepAVFusionForSoundLocalization, DeepAVFusionProcessor
from deepavfusion.inference.demo import space
from deepavfusion.inference.demo.space import export_space, requirements
from deepavfusion_cli.paths import FolderError
from tests.isolated import run_isolated
from tests.modeling_deepavfusion.cases import make_model


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "runs" / "my model"
    network = make_model(DeepAVFusionForSoundLocalization)
    network.save_pretrained(folder)
    DeepAVFusionProcessor.from_model(network).save_pretrained(folder)
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "model.safetensors").write_bytes(b"x")
    return folder


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Gradio need not be installed."""
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "6.31.0" if name == "gradio" else version(name))


def test_a_space_holds_all_that_it_needs(model, tmp_path):
    out = tmp_path / "space"
    out.mkdir()  # empty
    export_space(out, [str(model), "ORG/NAME"], fit="pad", seed=5)
    assert {path.name for path in out.iterdir()} == {
        *("app.py", "requirements.txt", "README.md", "models", "deepavfusion", "deepavfusion_cli")
    }
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert "models/my-model/model.safetensors" in names
    assert {"deepavfusion/inference/demo/templates/demo.css", "deepavfusion_cli/options.json"} <= names
    assert {"deepavfusion/training/recipes/scenes_tiny.yaml", "deepavfusion/processors/__init__.py"} <= names
    assert not [name for name in names if name.startswith("models/") and "checkpoints" in name]
    assert not [name for name in names if "experiments" in name or name.endswith(".pyc")]
    assert not [name for name in names if name.startswith("deepavfusion/training/cli")]
    _, header, text = (out / "README.md").read_text(encoding="utf-8").split("---\n")
    about = yaml.safe_load(header)
    assert (about["sdk"], about["sdk_version"], about["app_file"]) == ("gradio", "6.31.0", "app.py")
    assert about["models"] == ["ORG/NAME"]
    assert "`my-model`, `ORG/NAME`" in text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_it_runs_where_this_package_is_not_installed(model, tmp_path):
    """Its `app.py` calls the command with the models that lie beside it."""
    export_space(tmp_path / "space", [str(model), "ORG/NAME"], fit="pad", seed=5)
    source = """
import importlib.util, json, sys
finders = [getattr(finder, "finder", finder) for finder in sys.meta_path]
sys.meta_path[:] = [finder for finder in finders if "editable" not in str(finder)]
sys.path.insert(0, sys.argv[1])
import deepavfusion.inference.demo as demo
from deepavfusion_cli.preflight import parse
from deepavfusion.inference.demo.models import load_models
spec = importlib.util.spec_from_file_location("app", sys.argv[1] + "/app.py")
app = importlib.util.module_from_spec(spec)
spec.loader.exec_module(app)
given = parse("demo", [str(app.FOLDER / app.MODELS[0]), *app.OPTIONS])
(model,) = load_models(given.models, "cpu", given.fit)
print(json.dumps([demo.__file__, app.MODELS, given.host, given.port, given.seed, model.abilities]))
"""
    printed = run_isolated(source, str(tmp_path / "space"), home=tmp_path / "home")
    file, models, *rest = json.loads(printed.splitlines()[-1])
    assert file == str(tmp_path / "space" / "deepavfusion" / "inference" / "demo" / "__init__.py")
    assert models == ["models/my-model", "ORG/NAME"]
    assert rest == ["0.0.0.0", 7860, 5, ["localize"]]


def test_a_folder_with_anything_in_it_is_refused(model, tmp_path):
    for name in ("full", "file"):
        target = tmp_path / name
        target.mkdir() if name == "full" else target.write_text("mine")
        if name == "full":
            (target / "mine").write_text("mine")
        with pytest.raises(FolderError, match=f"--export-space={target} is .*: name a new folder"):
            export_space(target, [str(model)])
    assert (tmp_path / "full" / "mine").read_text() == (tmp_path / "file").read_text() == "mine"


def test_what_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(target):
        raise OSError("the disk is full")

    monkeypatch.setattr(space, "_copy_code", fail)
    with pytest.raises(OSError, match="the disk is full"):
        export_space(tmp_path / "space", [str(model)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
    with pytest.raises(OSError, match="there is no model in that folder"):
        export_space(tmp_path / "space", [str(tmp_path)])


def test_requirements_are_those_of_the_package_and_of_the_extra(monkeypatch):
    declared = ["torch<2.15,>=2.9", 'gradio>=6; extra == "demo"', 'datasets>=4; extra == "train"']
    monkeypatch.setattr(metadata, "requires", lambda name: declared)
    assert requirements() == ["gradio>=6", "torch<2.15,>=2.9"]
