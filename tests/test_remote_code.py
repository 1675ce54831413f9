"""Saved checkpoints carry their code: they load through every Auto class where this package is not installed."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import deepavfusion
import deepavfusion.processors
from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
    DeepAVFusionProcessor,
)
from deepavfusion.auto_deepavfusion import AUTO_MODELS, custom_pipelines
from tests.modeling_deepavfusion.cases import CASES, assert_outputs_equal, make_inputs, make_model

from .isolated import OPTIONAL, run_isolated

# checkpoint -> what saved it and under which configuration
CHECKPOINTS = {
    "encoder": (DeepAVFusionModel, CASES["factorized"]),
    "pretraining": (DeepAVFusionForPreTraining, CASES["swin"]),
    "video": (DeepAVFusionForPreTraining, CASES["divided_video"] | {"fusion_type": "dense"}),
    "classification": (DeepAVFusionForAudioVisualClassification, {"hidden_size": 128}),
    "separation": (DeepAVFusionForSourceSeparation, {}),
    "segmentation": (DeepAVFusionForSemanticSegmentation, {}),
    "localization": (DeepAVFusionForSoundLocalization, {"localization_map": "similarity"}),
}
ENCODER_AUTO_CLASSES = ("AutoModel", "AutoModelForPreTraining")


def loading_classes(checkpoint: str) -> list[str]:
    """Auto classes that a checkpoint is loaded by: its own ones, and the encoder's; one head tries all others' too."""
    own = [auto for auto, model_class in AUTO_MODELS.items() if model_class is CHECKPOINTS[checkpoint][0]]
    return sorted({*own, *ENCODER_AUTO_CLASSES, *(AUTO_MODELS if checkpoint == "classification" else ())})


# Loads each checkpoint by each Auto class, saves it again, loads that again, and writes down the outputs.
LOAD_EVERYTHING = """
import importlib.util, json, sys
from pathlib import Path

folder, hidden = Path(sys.argv[1]), sys.argv[2].split(",")
for name in ["deepavfusion", *filter(None, hidden)]:
    assert importlib.util.find_spec(name) is None, name
    try:
        __import__(name)
    except ModuleNotFoundError:
        pass
    else:
        raise AssertionError(name + " can be imported")

import torch
import transformers

results = {}
for checkpoint in sorted(p for p in folder.iterdir() if (p / "config.json").is_file()):
    inputs = torch.load(checkpoint / "inputs.pt", weights_only=True)
    for auto_class in json.loads(sys.argv[3])[checkpoint.name]:
        auto = getattr(transformers, auto_class)
        source = checkpoint
        for stage in ("loaded", "saved again"):
            config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=True)
            model, report = auto.from_pretrained(source, trust_remote_code=True, output_loading_info=True)
            assert not model.training
            with torch.no_grad():
                outputs = model(**inputs[auto_class])
                encoded = model.base_model(**inputs["AutoModel"])
            again = checkpoint.parent / "again" / checkpoint.name / auto_class
            model.save_pretrained(again)
            results[checkpoint.name, auto_class, stage] = {
                "class": type(model).__name__,
                "module": type(model).__module__,
                "config": type(config).__name__,
                "config_values": json.loads(config.to_json_string(use_diff=False)),
                "missing": sorted(report["missing_keys"]),
                "unexpected": sorted(report["unexpected_keys"]),
                "outputs": dict(outputs),
                "encoded": dict(encoded),
                "files": sorted(p.name for p in again.iterdir()),
            }
            source = again
    for auto_class in ("AutoConfig", "AutoModel", "AutoModelForPreTraining"):
        try:
            getattr(transformers, auto_class).from_pretrained(checkpoint, trust_remote_code=False)
        except ValueError as error:
            results[checkpoint.name, auto_class, "untrusted"] = str(error)
assert not [name for name in sys.modules if name.partition(".")[0] in ("deepavfusion", *filter(None, hidden))]
torch.save(results, folder / "results.pt")
"""


@pytest.fixture(scope="module")
def models():
    return {
        name: make_model(model_class, seed=seed, **overrides)
        for seed, (name, (model_class, overrides)) in enumerate(CHECKPOINTS.items())
    }


@pytest.fixture(scope="module", params=["everything", "the minimum"])
def results(request, models, tmp_path_factory):
    """What the isolated process found: with all optional packages, and without torchvision, PIL, av, accelerate."""
    without = () if request.param == "everything" else OPTIONAL
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, model in models.items():
        model.save_pretrained(folder / name)
        inputs = {auto: make_inputs(model.config, cls) for auto, cls in AUTO_MODELS.items()}
        torch.save(inputs, folder / name / "inputs.pt")
    home = tmp_path_factory.mktemp("home")
    names = json.dumps({checkpoint: loading_classes(checkpoint) for checkpoint in CHECKPOINTS})
    run_isolated(LOAD_EVERYTHING, str(folder), ",".join(without), names, home=home, without=without)
    return torch.load(folder / "results.pt", weights_only=True)


each_checkpoint = pytest.mark.parametrize("checkpoint", CHECKPOINTS)
each_loading = pytest.mark.parametrize(
    ("checkpoint", "auto_class"), [(name, auto) for name in CHECKPOINTS for auto in loading_classes(name)]
)
# A product of another alignment in memory may round another way.
SAME = {"rtol": 1e-6, "atol": 1e-6}
each_stage = pytest.mark.parametrize("stage", ["loaded", "saved again"])


@each_loading
@each_stage
def test_loads_by_every_auto_class(results, models, checkpoint, auto_class, stage):
    found, model = results[checkpoint, auto_class, stage], models[checkpoint]
    assert found["class"] == AUTO_MODELS[auto_class].__name__
    assert found["module"].startswith("transformers_modules.")
    assert found["config"] == "DeepAVFusionConfig"
    for name, value in json.loads(model.config.to_json_string(use_diff=False)).items():
        if name not in ("_name_or_path", "architectures", "transformers_version", "custom_pipelines"):
            assert found["config_values"][name] == value, name
    saved_by = type(model) if stage == "loaded" else AUTO_MODELS[auto_class]
    assert found["config_values"]["custom_pipelines"] == custom_pipelines(saved_by)
    with torch.no_grad():
        inputs = make_inputs(model.config)
        assert_outputs_equal(found["encoded"], dict(model.base_model(**inputs)), **SAME)
        if AUTO_MODELS[auto_class] is type(model):
            expected = model(**make_inputs(model.config, type(model)))
            assert_outputs_equal(found["outputs"], dict(expected), **SAME)


@each_loading
def test_only_heads_are_added_or_dropped(results, models, checkpoint, auto_class):
    """The encoder is always taken over; decoders of a pre-training are left without a word, other heads are named."""
    found, model = results[checkpoint, auto_class, "loaded"], models[checkpoint]
    wanted = AUTO_MODELS[auto_class]
    if wanted is type(model):
        assert found["missing"] == found["unexpected"] == []
    else:
        assert bool(found["missing"]) == (wanted is not DeepAVFusionModel)
        head = {name for name in model.state_dict() if not name.startswith("deepavfusion.")}
        kept = {name for name in head if "_decoder." in name or isinstance(model, DeepAVFusionModel)}
        assert set(found["unexpected"]) <= head - kept
    assert not [name for name in found["missing"] if name.startswith(("deepavfusion.", "image.", "audio.", "fusion"))]
    again = results[checkpoint, auto_class, "saved again"]
    assert again["missing"] == again["unexpected"] == []


@each_checkpoint
@pytest.mark.parametrize("auto_class", ["AutoConfig", "AutoModel", "AutoModelForPreTraining"])
def test_needs_trust(results, checkpoint, auto_class):
    assert "trust_remote_code=True" in results[checkpoint, auto_class, "untrusted"]


@each_loading
def test_saving_again_keeps_the_code(results, checkpoint, auto_class):
    files = {name for name in results[checkpoint, auto_class, "saved again"]["files"] if name.endswith(".py")}
    assert files == carried_files()


def carried_files(start: str = "auto_deepavfusion", package=deepavfusion) -> set[str]:
    """Names of the files that one imports, directly or not; all others stay behind."""
    folder = Path(package.__file__).parent
    reached, todo = set(), [start]
    while todo:
        name = todo.pop()
        reached.add(f"{name}.py")
        source = (folder / f"{name}.py").read_text()
        todo += [n for n in re.findall(r"^\s*from \.(\w+) import", source, flags=re.M) if f"{n}.py" not in reached]
    return reached


@each_checkpoint
def test_a_folder_holds_code_weights_and_configuration(models, checkpoint, tmp_path):
    models[checkpoint].save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    encoder = AUTO_MODELS["AutoModel"], AUTO_MODELS["AutoModelForPreTraining"]
    modules = {"modules.json", "sentence_bert_config.json"} if isinstance(models[checkpoint], encoder) else set()
    assert names == {"config.json", "model.safetensors"} | modules | carried_files()
    stored = json.loads((tmp_path / "config.json").read_text())
    assert stored["architectures"] == [type(models[checkpoint]).__name__]
    for auto_class, reference in stored["auto_map"].items():
        module, name = reference.split(".")
        assert re.search(rf"^(class |from \S+ import .*\b){name}\b", (tmp_path / f"{module}.py").read_text(), re.M), (
            auto_class
        )
    assert set(stored["auto_map"]) == {"AutoConfig", *AUTO_MODELS}


def test_conversion_stays_behind():
    assert {"unimodal_deepavfusion.py", "swin_deepavfusion.py"} < carried_files()
    assert not [name for name in carried_files() if name.startswith("conversion")]


def test_the_base_class_imports_no_head():
    heads = ("auto", "classification", "localization", "pretraining", "segmentation", "separation")
    assert not [name for name in carried_files("modeling_deepavfusion") if name.startswith(heads)]
    reached = carried_files("processing_deepavfusion", deepavfusion.processors)
    assert not [name for name in reached if "pipeline" in name]


# Loads a separation model by four Auto classes and its processor, and saves each model with the processor beside it.
NEXT_GENERATION = """
import importlib.util, json, sys
from pathlib import Path

assert importlib.util.find_spec("deepavfusion") is None
import torch
import transformers

source, target = Path(sys.argv[1]), Path(sys.argv[2])
inputs = torch.load(sys.argv[3], weights_only=True)
found = {}
processor = transformers.AutoProcessor.from_pretrained(source, trust_remote_code=True)
for name in json.loads(sys.argv[4]):
    model = getattr(transformers, name).from_pretrained(source, trust_remote_code=True)
    with torch.no_grad():
        found[name] = dict(model(**inputs[name]))
    model.save_pretrained(target / name)
    processor.save_pretrained(target / name)
torch.save(found, target / "outputs.pt")
"""


def test_three_generations(models, tmp_path):
    """What was loaded and saved without the package loads and saves again, each time in a fresh process and cache."""
    separation = models["separation"]
    names = [
        "AutoModelForAudioFrameClassification",
        "AutoModel",
        "AutoModelForPreTraining",
        "AutoModelForMaskGeneration",
    ]
    inputs = {name: make_inputs(separation.config, AUTO_MODELS[name]) for name in names}
    torch.save(inputs, tmp_path / "inputs.pt")
    source = tmp_path / "generation0" / names[0]
    separation.save_pretrained(source)
    DeepAVFusionProcessor.from_config(separation.config).save_pretrained(source)
    code = {path.name: path.read_bytes() for path in source.glob("*.py")}
    assert set(code) == carried_files() | carried_files("auto_processing_deepavfusion", deepavfusion.processors)
    for generation in (1, 2, 3):
        target = tmp_path / f"generation{generation}"
        home = tmp_path / f"home{generation}"
        run_isolated(NEXT_GENERATION, source, target, tmp_path / "inputs.pt", json.dumps(names), home=home)
        shutil.rmtree(source.parent)
        outputs = torch.load(target / "outputs.pt", weights_only=True)
        with torch.no_grad():
            assert_outputs_equal(outputs[names[0]], dict(separation(**inputs[names[0]])), **SAME)
            assert_outputs_equal(outputs["AutoModel"], dict(separation.deepavfusion(**inputs["AutoModel"])), **SAME)
        for name in names:
            assert {path.name: path.read_bytes() for path in (target / name).glob("*.py")} == code
            stored = json.loads((target / name / "config.json").read_text())
            assert stored["custom_pipelines"] == custom_pipelines(AUTO_MODELS[name])
            assert {
                reference.split(".")[0] for auto, reference in stored["auto_map"].items() if auto != "AutoConfig"
            } == {"auto_deepavfusion"}
        source = target / names[0]


def exported_files():
    package = Path(deepavfusion.__file__).parent
    processors = Path(deepavfusion.processors.__file__).parent
    return sorted([*package.glob("*_deepavfusion.py"), *processors.glob("*_deepavfusion.py")])


def test_names_are_unique_over_both_folders():
    names = [path.name for path in exported_files()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", exported_files(), ids=lambda path: path.name)
def test_source_can_be_carried(path):
    """transformers copies files along `from .name import ...` of one folder and follows no other form."""
    source = path.read_text()
    for line in re.findall(r"^\s*(?:from|import) [^\n]*", source, flags=re.MULTILINE):
        words = line.split()
        assert words[:3] != ["from", "__future__", "import"], line
        assert not words[1].startswith("deepavfusion"), line
        if words[1].startswith("."):
            assert re.fullmatch(r"\.\w+_deepavfusion", words[1]), line
            assert (path.parent / f"{words[1][1:]}.py").is_file(), line
