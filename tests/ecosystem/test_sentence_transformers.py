"""Saved encoders in sentence-transformers: without this package, as with it, and fine-tuned for search."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel, DeepAVFusionProcessor
from deepavfusion.sentence_transformers_deepavfusion import DeepAVFusionEmbedder
from deepavfusion.training.data.scenes import ScenesConfig, write_scene
from tests.isolated import run_isolated
from tests.media_factory import paint_gradients
from tests.tiny import tiny_config

from .processes import DOCS, run, snippets

pytestmark = pytest.mark.ecosystem


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A small pre-training model, as `deepavfusion pretrain` saves it."""
    folder = tmp_path_factory.mktemp("models") / "my_encoder"
    torch.manual_seed(0)
    config = tiny_config(spectrogram_length=64)
    DeepAVFusionForPreTraining(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def workplace(encoder, tmp_path_factory):
    """The folder in which the page's code runs: videos/, photo.png and runs/quickstart."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "runs").mkdir()
    (folder / "videos").mkdir()
    (folder / "runs" / "quickstart").symlink_to(encoder)
    for index in range(16):
        write_scene(ScenesConfig(image_size=64), index=index, folder=folder / "scene")
        (folder / "scene" / "clip.mp4").rename(folder / "videos" / f"{index:02d}.mp4")
    Image.fromarray(paint_gradients(0.5)).save(folder / "photo.png")
    return folder


# Loads an encoder, encodes, saves it, and does so again with what it saved.
ENCODE = """
import importlib.util, json, sys
from pathlib import Path

assert importlib.util.find_spec("deepavfusion") is None
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer

folder, videos, target = map(Path, sys.argv[1:4])
clips = sorted(map(str, videos.glob("*.mp4")))[:3]
sound = {"array": np.load(sys.argv[4]), "sampling_rate": 16000}
image = Image.open(sys.argv[5])
inputs = [*clips, image, sound, {"image": image, "audio": sound}, {"audio": clips[0]}, {"image": clips[0]}]
for generation in range(2):
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    vectors = model.encode(inputs, batch_size=3)
    alone = np.stack([model.encode(value) for value in inputs])
    assert np.abs(vectors - alone).max() < 1e-5
    np.save(target / f"{generation}.npy", vectors)
    model.save_pretrained(str(target / "model"))
    folder = target / "model"
try:
    SentenceTransformer(str(folder), device="cpu")
except ValueError as error:
    assert "trust_remote_code=True" in str(error)
else:
    raise AssertionError("loaded without trust")
"""


def test_encodes_without_this_package_as_with_it(encoder, workplace, tmp_path):
    sound = np.random.default_rng(0).normal(0, 0.1, 30000).astype(np.float32)
    np.save(tmp_path / "sound.npy", sound)
    photo = workplace / "photo.png"
    words = [encoder, workplace / "videos", tmp_path, tmp_path / "sound.npy", photo]
    run_isolated(ENCODE, *map(str, words), home=tmp_path / "home")
    model = DeepAVFusionModel.from_pretrained(encoder).eval()
    embedder = DeepAVFusionEmbedder(model, DeepAVFusionProcessor.from_pretrained(encoder))
    clips = sorted(map(str, (workplace / "videos").glob("*.mp4")))[:3]
    given = {"array": sound, "sampling_rate": 16000}
    image = Image.open(photo)
    inputs = [*clips, image, given, {"image": image, "audio": given}, {"audio": clips[0]}, {"image": clips[0]}]
    with torch.no_grad():
        expected = embedder(embedder.preprocess(inputs))["sentence_embedding"].numpy()
    for generation in range(2):
        assert np.load(tmp_path / f"{generation}.npy") == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / "model" / "sentence_transformers_deepavfusion.py").is_file()


def test_an_encoder_alone_loads_with_this_package(tmp_path):
    """Without a processor beside it; without the package, the message says what to do."""
    DeepAVFusionModel(tiny_config()).save_pretrained(tmp_path / "encoder")
    load = """
import sys
from sentence_transformers import SentenceTransformer
try:
    print(SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu")[0].processor.num_frames)
except OSError as error:
    print(error)
"""
    assert run("import deepavfusion\n" + load, tmp_path, tmp_path / "encoder") == 1
    told = run_isolated(load, str(tmp_path / "encoder"), home=tmp_path / "home")
    assert "Expected a processor beside the model" in told


def test_settings_are_passed_on(encoder, tmp_path):
    found = run(
        """
import json, sys, torch
from sentence_transformers import SentenceTransformer
options = {"model_kwargs": {"dtype": torch.bfloat16}, "processor_kwargs": {"fit": "pad"}}
model = SentenceTransformer(
    sys.argv[1], trust_remote_code=True, device="cpu", config_kwargs={"pooling": "fusion"}, **options
)
module = model[0]
print(json.dumps([module.pooling, str(model.dtype), module.processor.visual_processor.fit, model.supports("text")]))
""",
        tmp_path,
        encoder,
    )
    assert found == ["fusion", "torch.bfloat16", "pad", False]


def test_the_page_searches_and_fine_tunes(workplace):
    search, tune = snippets("search.md")
    printed = run(search, workplace)
    named = re.findall(r"videos/\d+\.mp4", printed if isinstance(printed, str) else json.dumps(printed))
    assert len(set(named)) == 3
    recall = """
import json, sys, torch
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], trust_remote_code=True, device="cpu")
images, sounds = (model.encode([{kind: clip} for clip in sys.argv[2:]]) for kind in ("image", "audio"))
print(json.dumps((model.similarity(images, sounds).argmax(1) == torch.arange(len(images))).float().mean().item()))
"""
    clips = sorted((workplace / "videos").glob("*.mp4"))
    before = run(recall, workplace, "runs/quickstart", *clips)
    run(tune, workplace)
    after = run(recall, workplace, "runs/search", *clips)
    assert before < 0.3
    assert after > 0.6


def test_the_page_names_what_exists():
    text = (DOCS / "search.md").read_text(encoding="utf-8")
    for name in ("pooling", "modality_config"):
        assert name in DeepAVFusionEmbedder.config_keys
    assert all(f"`{name}`" in text for name in ("own", "fusion", DeepAVFusionEmbedder.config_file_name))
