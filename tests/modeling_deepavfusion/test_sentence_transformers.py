"""The module by which sentence-transformers loads encoders, without that package; with it: tests/ecosystem."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionModel,
    DeepAVFusionProcessor,
    MediaError,
    sentence_transformers_deepavfusion,
)
from deepavfusion.processors.pipelines_deepavfusion import AudioVisualFeatureExtractionPipeline
from deepavfusion.sentence_transformers_deepavfusion import DeepAVFusionEmbedder
from deepavfusion.training.tasks.retrieval import retrieval_features
from tests.media_factory import paint_gradients, write_kinds

from .cases import make_model

RATE = 16000


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """clip.mov with both streams, silent.mp4, sound.wav, photo.png."""
    folder = tmp_path_factory.mktemp("media")
    write_kinds(folder, seconds=4.0, sound_seconds=4.0, silent_seconds=1.0, rate=22050, picture="photo.png")
    return folder


@pytest.fixture(scope="module")
def model():
    return make_model(DeepAVFusionModel)


@pytest.fixture(scope="module")
def embedder(model):
    return DeepAVFusionEmbedder(model, DeepAVFusionProcessor.from_model(model)).eval()


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(paint_gradients(0.5))


@pytest.fixture(scope="module")
def sound():
    wave = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    return {"array": wave, "sampling_rate": RATE}


@torch.no_grad()
def encode(embedder, *inputs):
    return embedder(embedder.preprocess(list(inputs)))["sentence_embedding"]


def assert_same(found, expected):
    assert torch.allclose(torch.as_tensor(found), torch.as_tensor(expected), atol=1e-5)


@pytest.mark.parametrize("model_class", [DeepAVFusionModel, DeepAVFusionForPreTraining])
@pytest.mark.parametrize(("objective", "pooling"), [("reconstruction", "own"), ("align", "own"), ("jepa", "fusion")])
def test_encoders_are_saved_as_models_of_sentence_transformers(model_class, objective, pooling, tmp_path):
    make_model(model_class, pretraining_objective=objective).save_pretrained(tmp_path)
    (module,) = json.loads((tmp_path / "modules.json").read_text())
    assert (module["idx"], module["name"], module["path"]) == (0, "0", "")
    file, name = module["type"].split(".")
    assert f"class {name}(" in (tmp_path / f"{file}.py").read_text()
    settings = json.loads((tmp_path / DeepAVFusionEmbedder.config_file_name).read_text())
    embedder = DeepAVFusionEmbedder(None, None, settings["pooling"])
    assert settings == {key: getattr(embedder, key) for key in DeepAVFusionEmbedder.config_keys}
    assert settings["pooling"] == pooling


def test_models_of_tasks_are_not(tmp_path):
    make_model(DeepAVFusionForAudioVisualClassification).save_pretrained(tmp_path)
    assert not (tmp_path / "modules.json").exists()


@pytest.mark.parametrize("objective", ["align", "jepa"])
def test_vectors_are_what_retrieval_is_evaluated_with(objective, image, sound, tmp_path):
    model = make_model(DeepAVFusionModel, pretraining_objective=objective)
    model.save_pretrained(tmp_path)
    pooling = json.loads((tmp_path / "sentence_bert_config.json").read_text())["pooling"]
    embedder = DeepAVFusionEmbedder(model, DeepAVFusionProcessor.from_model(model), pooling)
    inputs = embedder.processor(images=[image], audio=[sound["array"]], sampling_rate=RATE)
    with torch.no_grad():
        (expected,) = retrieval_features(model, dict(inputs))
    for name, value in (("image", image), ("audio", sound)):
        found = torch.nn.functional.normalize(encode(embedder, value), dim=-1)[0]
        assert_same(found, expected[name])


def test_vectors_are_those_of_the_pipeline(embedder, model, files, image, sound):
    pipe = AudioVisualFeatureExtractionPipeline(model, embedder.processor, task="audio-visual-feature-extraction")
    for file, stream in (
        ("clip.mov", "fusion"),
        ("silent.mp4", "image"),
        ("photo.png", "image"),
        ("sound.wav", "audio"),
    ):
        assert_same(encode(embedder, str(files / file))[0], pipe(str(files / file))[stream])
    mapping = {"image": image, "audio": sound["array"], "sampling_rate": RATE}
    assert_same(encode(embedder, mapping)[0], pipe(mapping)["fusion"])
    assert_same(encode(embedder, {"image": image, "audio": sound}), encode(embedder, mapping))


def test_inputs_of_all_kinds_share_a_batch(embedder, files, image, sound):
    clip, pixels = files / "clip.mov", np.asarray(image)
    frames = np.stack([pixels] * 5)
    inputs = [
        str(clip),
        clip,
        clip.read_bytes(),
        {"path": str(clip), "bytes": None},
        {"path": None, "bytes": clip.read_bytes()},
        {"video": str(clip), "audio": str(clip)},
        {"image": str(clip)},
        {"audio": {"path": str(clip), "bytes": None}},
        image,
        pixels,
        torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        [image, image, image],
        frames,
        {"video": frames},
        {"array": frames, "video_metadata": None},
        {"role": "user", "content": [{"type": "image", "image": image}]},
        sound,
        {"audio": sound},
        (image, sound),
        {"image": image, "audio": sound},
        [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "audio", "audio": sound}]}],
    ]
    vectors = encode(embedder, *inputs)
    for value, vector in zip(inputs, vectors, strict=True):
        assert_same(encode(embedder, value)[0], vector)
    groups = [range(6), [6], [7], range(8, 16), [16, 17], [18, 19, 20]]
    for group in groups:
        for index in group:
            assert_same(vectors[index], vectors[group[0]])
    first = vectors[[group[0] for group in groups]]
    assert torch.pdist(first).min() > 1e-3


def test_decoders_are_read(embedder, sound, image):
    """As `datasets` gives them; torchcodec itself is in tests/ecosystem."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    frames = torch.stack([pixels * 0, pixels, pixels * 0])

    class Video:
        def __len__(self):
            return 3

        def get_frames_at(self, indices):
            return SimpleNamespace(data=frames[indices])

    samples = SimpleNamespace(data=torch.from_numpy(sound["array"])[None], sample_rate=RATE)
    audio = SimpleNamespace(get_all_samples=lambda: samples)
    assert_same(encode(embedder, Video(), audio), encode(embedder, image, sound))
    assert_same(encode(embedder, {"video": Video(), "audio": audio}), encode(embedder, (image, sound)))


def test_fields_are_those_that_the_batch_needs(embedder, image, sound):
    assert set(embedder.preprocess([image])) == {"pixel_values"}
    assert set(embedder.preprocess([sound, sound])) == {"input_features"}
    assert set(embedder.preprocess([(image, sound)])) == {"pixel_values", "input_features"}
    mixed = embedder.preprocess([image, sound])
    assert mixed["image_present"].tolist() == [True, False]
    assert mixed["audio_present"].tolist() == [False, True]


def test_tiles_of_an_image_give_one_vector(model, image, sound):
    tiles = DeepAVFusionEmbedder(model, DeepAVFusionProcessor.from_model(model).with_fit("tiles"))
    wide = Image.fromarray(np.concatenate([np.asarray(image)] * 3, axis=1))
    features = tiles.preprocess([wide, sound, {"image": wide, "audio": sound}])
    count = int(features["num_rows"][0])
    assert count > 1
    assert features["num_rows"].tolist() == [count, 1, count]
    vectors = encode(tiles, wide, sound, {"image": wide, "audio": sound})
    assert vectors.shape == (3, tiles.get_embedding_dimension())
    rows = tiles.processor(images=[wide], audio=[sound["array"]], sampling_rate=RATE)
    with torch.no_grad():
        assert_same(vectors[0], model(pixel_values=rows.pixel_values).image_last_hidden_state.mean(1).mean(0))
        assert_same(vectors[2], model(**rows).last_hidden_state.mean(1).mean(0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"text": "a dog"}, "any of image, audio, video, got text"),
        ({}, "any of image, audio, video"),
        ({"role": "user", "content": "a dog"}, "reads no text, got text"),
        (np.zeros((2, 2, 2, 2, 2)), "an array of 1 or 2 axes"),
        ([np.zeros((4, 4, 3), np.uint8), "clip.mp4"], "a list of frames, or a pair"),
        ({"image": np.zeros((8, 8, 3), np.uint8), "video": np.zeros((2, 8, 8, 3), np.uint8)}, "got a second one"),
        (3, "got int"),
    ],
)
def test_other_inputs_are_refused(embedder, value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        embedder.preprocess([value])


def test_missing_streams_prompts_and_settings_are_named(embedder, model, files):
    with pytest.raises(ValueError, match=r"Expected a sound in \S+silent.mp4, got none"):
        embedder.preprocess([{"audio": str(files / "silent.mp4")}])
    with pytest.raises(ValueError, match=r"Expected an image in \S+sound.wav, got none"):
        embedder.preprocess([{"image": files / "sound.wav"}])
    with pytest.raises(ValueError, match="Expected at least one input, got none"):
        embedder.preprocess([])
    with pytest.raises(MediaError, match=r"absent.mp4"):
        embedder.preprocess(["absent.mp4"])
    with pytest.raises(ValueError, match="no prompt"):
        embedder.preprocess([str(files / "clip.mov")], prompt="query: ")
    with pytest.raises(ValueError, match="'own', 'fusion', got 'mean'"):
        DeepAVFusionEmbedder(model, None, "mean")


def test_loading_needs_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(sentence_transformers_deepavfusion, "InputModule", torch.nn.Module)
    with pytest.raises(ImportError, match="sentence-transformers>=6"):
        DeepAVFusionEmbedder.load(str(tmp_path))
