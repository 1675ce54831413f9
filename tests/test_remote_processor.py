"""Saved processors carry their code too, beside a model's, and give the same inputs where this package is absent."""

import io
import json

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionModel, DeepAVFusionProcessor
from tests.modeling_deepavfusion.cases import assert_outputs_equal, make_model

from .isolated import OPTIONAL, run_isolated

CONFIGURATIONS = {"image": {"image_size": [32, 48]}, "video": {"num_frames": 4, "video_attention": "divided"}}
ORDERS = {"model first": ("model", "processor"), "processor first": ("processor", "model")}

PROCESS = """
import sys
from pathlib import Path

import torch
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor

folder, minimal = Path(sys.argv[1]), sys.argv[2] == "minimal"
arrays = {name: value.numpy() for name, value in torch.load(folder / "arrays.pt", weights_only=True).items()}
results = {}
for checkpoint in sorted(p for p in folder.iterdir() if (p / "processor_config.json").is_file()):
    model = AutoModel.from_pretrained(checkpoint, trust_remote_code=True)
    source = checkpoint
    for stage in ("loaded", "saved again"):
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=True)
        extractor = AutoFeatureExtractor.from_pretrained(source, trust_remote_code=True)
        video = model.config.num_frames > 1
        sight = {"videos": [arrays["frames"]] * 2} if video else {"images": [arrays["frames"][0], arrays["frames"][1]]}
        sound = {"audio": [arrays["stereo"], arrays["short"]], "sampling_rate": 44100}
        calls = {"both": {**sight, **sound}, "sight": sight, "sound": sound}
        calls["one silent"] = {**sight, "audio": [arrays["stereo"], None], "sampling_rate": 44100}
        found = {name: dict(processor(**arguments)) for name, arguments in calls.items()}
        found["extractor"] = dict(extractor(arrays["short"], sampling_rate=44100))
        if not minimal:
            found["file"] = dict(processor(videos=str(folder / "clip.mp4")))
            if not video:
                from PIL import Image

                found["PIL image"] = dict(processor(images=Image.fromarray(arrays["image"])))
        with torch.no_grad():
            outputs = {name: dict(model(**found[name])) for name in ("both", "sight", "sound", "one silent")}
        again = folder / "again" / checkpoint.name
        processor.save_pretrained(again)
        results[checkpoint.name, stage] = {
            "class": type(processor).__name__,
            "module": type(processor).__module__,
            "inputs": found,
            "outputs": outputs,
            "files": sorted(path.name for path in again.iterdir()),
        }
        source = again
    try:
        AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    except ValueError as error:
        results[checkpoint.name, "untrusted"] = str(error)
    if minimal:
        try:
            processor(videos=str(folder / "clip.mp4"))
        except ImportError as error:
            results[checkpoint.name, "no decoder"] = str(error)
hidden = sys.argv[3].split(",")
assert not [name for name in sys.modules if name.partition(".")[0] in hidden]
torch.save(results, folder / "results.pt")
"""


def make_arrays():
    """Frames of floating-point numbers, which are resized alike with and without PIL."""
    generator = np.random.default_rng(0)
    return {
        "frames": generator.random((6, 40, 60, 3), dtype=np.float32),
        "image": generator.integers(0, 256, (40, 60, 3), dtype=np.uint8),
        "stereo": generator.uniform(-1, 1, (2, 50_000)).astype(np.float32),
        "short": generator.uniform(-1, 1, 9_000).astype(np.float32),
    }


def write_clip(path):
    """One second of noise to see and to hear."""
    av = pytest.importorskip("av")
    generator = np.random.default_rng(1)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        sight, sound = container.add_stream("h264", rate=8), container.add_stream("aac", rate=16000)
        sight.width, sight.height, sight.pix_fmt = 64, 48, "yuv420p"
        sound.layout = "mono"
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(generator.integers(0, 256, (48, 64, 3), dtype=np.uint8), format="rgb24")
            container.mux(sight.encode(frame))
        container.mux(sight.encode(None))
        for start in range(0, 16000, 1000):
            samples = generator.uniform(-0.5, 0.5, (1, 1000)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    path.write_bytes(buffer.getvalue())


@pytest.fixture(scope="module")
def models():
    return {name: make_model(DeepAVFusionModel, **overrides) for name, overrides in CONFIGURATIONS.items()}


@pytest.fixture(scope="module")
def processors(models):
    return {name: DeepAVFusionProcessor.from_config(model.config) for name, model in models.items()}


@pytest.fixture(scope="module", params=["everything", "the minimum"])
def folder(request, models, processors, tmp_path_factory):
    """Checkpoints, and what a process made of them with all packages, or without torchvision, PIL, av, accelerate."""
    minimal = request.param == "the minimum"
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in CONFIGURATIONS:
        parts = {"model": models[name], "processor": processors[name]}
        for order, saved in ORDERS.items():
            for part in saved:
                parts[part].save_pretrained(folder / f"{name}, {order}")
    torch.save({name: torch.from_numpy(value) for name, value in make_arrays().items()}, folder / "arrays.pt")
    write_clip(folder / "clip.mp4")
    hidden = ("deepavfusion", *(OPTIONAL if minimal else ()))
    run_isolated(
        PROCESS,
        str(folder),
        "minimal" if minimal else "full",
        ",".join(hidden),
        home=tmp_path_factory.mktemp("home"),
        without=hidden[1:],
    )
    return folder


@pytest.fixture(scope="module")
def results(folder):
    return torch.load(folder / "results.pt", weights_only=True)


each_configuration = pytest.mark.parametrize("name", CONFIGURATIONS)
each_order = pytest.mark.parametrize("order", ORDERS)


@each_configuration
@each_order
@pytest.mark.parametrize("stage", ["loaded", "saved again"])
def test_same_inputs_and_outputs(results, models, processors, folder, name, order, stage):
    found, model, processor = results[f"{name}, {order}", stage], models[name], processors[name]
    assert found["class"] == "DeepAVFusionProcessor"
    assert found["module"].startswith("transformers_modules.")

    arrays = make_arrays()
    frames = arrays["frames"]
    sight = {"videos": [frames] * 2} if name == "video" else {"images": [frames[0], frames[1]]}
    sound = {"audio": [arrays["stereo"], arrays["short"]], "sampling_rate": 44100}
    expected = {
        "both": processor(**sight, **sound),
        "sight": processor(**sight),
        "sound": processor(**sound),
        "one silent": processor(**sight, audio=[arrays["stereo"], None], sampling_rate=44100),
        "extractor": processor.feature_extractor(arrays["short"], sampling_rate=44100),
    }
    if "file" in found["inputs"]:
        expected["file"] = processor(videos=str(folder / "clip.mp4"))
    if "PIL image" in found["inputs"]:
        expected["PIL image"] = processor(images=arrays["image"])
    assert set(found["inputs"]) == set(expected)
    for call, values in expected.items():
        assert_outputs_equal(found["inputs"][call], dict(values), rtol=0, atol=0)
    assert set(expected["one silent"]) == {"pixel_values", "input_features", "audio_present"}
    with torch.no_grad():
        for call, outputs in found["outputs"].items():
            assert_outputs_equal(outputs, dict(model(**expected[call])), rtol=0, atol=0)


def test_files_are_read_where_they_can_be(results):
    """With all packages the clip was decoded; without a decoder the error says which package is missing."""
    for name in CONFIGURATIONS:
        for order in ORDERS:
            checkpoint = f"{name}, {order}"
            if "file" in results[checkpoint, "loaded"]["inputs"]:
                inputs = results[checkpoint, "loaded"]["inputs"]["file"]
                assert inputs["pixel_values"].std() > 0.1
                assert inputs["input_features"].std() > 0.1
            else:
                assert "Expected PyAV" in results[checkpoint, "no decoder"]


@each_configuration
@each_order
def test_needs_trust(results, name, order):
    assert "trust_remote_code=True" in results[f"{name}, {order}", "untrusted"]


@each_configuration
def test_both_orders_give_the_same_folder(folder, name):
    first, second = (folder / f"{name}, {order}" for order in ORDERS)
    names = {path.name for path in first.iterdir()}
    assert names >= {"config.json", "model.safetensors", "processor_config.json", "processing_deepavfusion.py"}
    assert names == {path.name for path in second.iterdir()}
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


@each_configuration
def test_settings_lie_in_one_file(folder, name):
    stored = json.loads((folder / f"{name}, model first" / "processor_config.json").read_text())
    part = "video_processor" if name == "video" else "image_processor"
    other = "image_processor" if name == "video" else "video_processor"
    assert stored["processor_class"] == "DeepAVFusionProcessor"
    assert stored["auto_map"]["AutoProcessor"] == "auto_processing_deepavfusion.DeepAVFusionProcessor"
    assert "AutoFeatureExtractor" in stored["feature_extractor"]["auto_map"]
    assert part in stored
    assert other not in stored


@each_configuration
@each_order
def test_saving_again_keeps_the_code(results, folder, name, order):
    kept = {path for path in results[f"{name}, {order}", "saved again"]["files"] if path.endswith(".py")}
    assert "processing_deepavfusion.py" in kept
    assert kept <= {path.name for path in (folder / f"{name}, {order}").iterdir()}
