"""Scenes as model inputs."""

import pickle
import stat

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.files import size_text
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.augmentation import ClipAugmentation
from deepavfusion.training.data.random import Stream, generator
from deepavfusion.training.data.scenes import (
    CLASS_SHAPE,
    CLASS_TIMBRE,
    SPLIT_OFFSETS,
    SceneClips,
    ScenesConfig,
    generate_scene,
)
from deepavfusion.training.data.scenes.cache import cache_notes
from deepavfusion.training.data.scenes.clips import amplify, crop_and_flip

MODEL = DeepAVFusionConfig(image_size=64, patch_size=8, num_mel_bins=64, spectrogram_length=64)
VIDEO = DeepAVFusionConfig(image_size=64, patch_size=8, num_mel_bins=64, spectrogram_length=64, num_frames=4)


def build(train: bool = False, split: str = "train", seed: int = 0, model=MODEL, **settings) -> SceneClips:
    return build_dataset({"name": "scenes", "train_size": 50, "eval_size": 20, **settings}, model, split, train, seed)


def equal(a: dict, b: dict) -> bool:
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a | b)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"min_objects": 1, "max_objects": 1}, ": 20 clips of 1 s with 1 object, one sounding, 16 classes"),
        ({"min_objects": 2, "max_objects": 2}, " with 2 objects, "),
        ({"min_objects": 1, "max_objects": 3}, " with 1 to 3 objects, "),
        ({"min_objects": 2, "eval_size": 1}, ": 1 clip of 1 s"),
    ],
)
def test_the_card_counts_clips_and_objects(settings, text):
    assert text in build(split="test", max_sounding=1, **settings).card


def test_samples_match_the_processor():
    clips = build(split="test", max_sounding=1)
    processor = DeepAVFusionProcessor.from_config(MODEL)
    scene = generate_scene(ScenesConfig(seconds=1.0, max_sounding=1), SPLIT_OFFSETS["test"] + 7)
    sample = clips[7]
    assert sample["path"] == "scene test/7"
    assert sample["index"] == 7
    assert sample["label"] == scene.label
    assert sample["shape_label"] == CLASS_SHAPE[scene.label]
    assert sample["timbre_label"] == CLASS_TIMBRE[scene.label]
    expected = processor.feature_extractor(scene.waveform, sampling_rate=16000).input_features[0]
    assert torch.allclose(sample["input_features"], expected, atol=1e-5)
    seen = processor.image_processor.denormalize(sample["pixel_values"])
    assert np.abs(seen.permute(1, 2, 0).numpy() * 255 - scene.frames[0]).max() < 1e-2


def test_batches():
    clips = build(max_sounding=1)
    batch = next(iter(DataLoader(clips, batch_size=6, collate_fn=clips.collate)))
    assert batch["pixel_values"].shape == (6, 3, 64, 64)
    assert batch["input_features"].shape == (6, 1, 64, 64)
    assert batch["pixel_values"].dtype == batch["input_features"].dtype == torch.float32
    assert batch["labels"].dtype == batch["shape_label"].dtype == batch["index"].dtype == torch.long
    assert batch["index"].tolist() == list(range(6))
    assert batch["broken"] == []
    assert not clips.multi_label
    assert clips.ceilings["both"]["accuracy"] == 1
    assert "scene train/3" in clips.describe(3)
    several = build(max_sounding=2, min_objects=4)
    labels = several.collate(several.__getitems__(range(20)))["labels"]
    assert several.multi_label
    assert labels.shape == (20, len(several.label_names))
    assert set(labels.sum(1).tolist()) == {1.0, 2.0}


def test_video_models_get_several_frames():
    clips = build(model=VIDEO, train=True, motion=True, max_sounding=1)
    pixels = clips[2]["pixel_values"]
    assert pixels.shape == (4, 3, 64, 64)
    assert not torch.equal(pixels[0], pixels[2])
    still = build(model=VIDEO, train=True, max_sounding=1)[2]["pixel_values"]
    assert torch.equal(still[0], still[3])  # one crop for all frames


def test_samples_depend_on_seed_epoch_and_index_alone():
    clips = build(train=True, seed=3)
    clips.set_epoch(5)
    together = clips.__getitems__([9, 4, 30])
    other = build(train=True, seed=3)
    other.set_epoch(2)
    assert not equal(other[4], together[1])
    other.set_epoch(5)
    assert equal(other[4], together[1])
    assert equal(other[9], together[0])
    reseeded = build(train=True, seed=4)
    reseeded.set_epoch(5)
    for key in ("pixel_values", "input_features"):
        assert not torch.equal(reseeded[4][key], together[1][key])
    plain = build(train=False, seed=3)[4]
    assert equal(plain, build(train=False, seed=8)[4])
    assert not torch.equal(plain["pixel_values"], together[1]["pixel_values"])


def test_workers_return_the_same_samples(tmp_path):
    clips = build(train=True, cache_dir=str(tmp_path), train_size=12)
    clips.set_epoch(1)
    expected = [clips[i] for i in range(12)]
    loader = DataLoader(clips, batch_size=4, collate_fn=clips.collate, num_workers=2)
    batches = list(loader)
    assert torch.equal(
        torch.cat([b["pixel_values"] for b in batches]), torch.stack([s["pixel_values"] for s in expected])
    )
    assert torch.equal(
        torch.cat([b["input_features"] for b in batches]), torch.stack([s["input_features"] for s in expected])
    )


def test_cache_returns_the_same_samples_and_is_used(tmp_path, monkeypatch):
    plain, cached = build(max_sounding=2), build(max_sounding=2, cache_dir=str(tmp_path))
    first = cached.__getitems__([3, 8, 41])
    for a, b in zip(first, plain.__getitems__([3, 8, 41])):
        assert torch.equal(a["pixel_values"], b["pixel_values"])
        assert torch.allclose(a["input_features"], b["input_features"], atol=2.1e-3)
        assert torch.equal(a["label"], b["label"])
    from deepavfusion.training.data.scenes import clips as scenes_clips

    generated = []
    original = scenes_clips.generate_clip
    monkeypatch.setattr(
        scenes_clips, "generate_clip", lambda config, index: generated.append(index) or original(config, index)
    )
    again = build(max_sounding=2, cache_dir=str(tmp_path))
    assert all(equal(a, b) for a, b in zip(again.__getitems__([3, 8, 41]), first))
    assert generated == []
    again.__getitems__([3, 9])
    assert generated == [9]
    assert len(list(tmp_path.iterdir())) == 1
    other = build(max_sounding=2, cache_dir=str(tmp_path), difficulty="hard")
    assert len(list(tmp_path.iterdir())) == 1  # until it is used
    other.__getitems__([0])
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "new").mkdir()
    assert len({stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}) == 1


def test_unfinished_cache_rows_are_generated_again(tmp_path):
    clips = build(cache_dir=str(tmp_path))
    expected = clips[5]
    clips.cache.arrays["frames"][5] = 0  # as a process that died while it wrote would leave it
    clips.cache.arrays["filled"][5] = 0
    assert equal(build(cache_dir=str(tmp_path))[5], expected)


@pytest.mark.parametrize("name", ["frames", "filled"])
def test_damaged_caches_are_named(tmp_path, name):
    """numpy would fill up a file that was cut off with zeros, and training would see them."""
    clips = build(cache_dir=str(tmp_path))
    expected = clips[5]
    file = clips.cache.path / f"{name}.npy"
    content = file.read_bytes()
    for damaged in (content[:-30], b"no array", b""):
        file.unlink()  # the file that is mapped stays whole
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{name}\.npy is missing or damaged: delete {clips.cache.path}, and its"):
            build(cache_dir=str(tmp_path))[5]
        assert file.read_bytes() == damaged
    file.write_bytes(content)
    assert equal(build(cache_dir=str(tmp_path))[5], expected)


def test_the_place_and_the_size_of_caches_are_said(tmp_path):
    train, held_out = build(train=True, cache_dir=tmp_path, train_size=200), build(split="test", cache_dir=tmp_path)
    for clips in (train, held_out):
        clips.__getitems__(range(2))
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    assert train.cache.size + held_out.cache.size == pytest.approx(on_disk, rel=1e-3)
    (note,) = cache_notes([train, held_out, held_out])
    assert note.startswith(f"scenes are kept in {tmp_path} once generated, {size_text(on_disk)} in all; ")
    assert cache_notes([build(), [0, 1]]) == []


def test_pickling_excludes_the_cache(tmp_path):
    clips = build(cache_dir=str(tmp_path), train_size=2000)
    data = pickle.dumps(clips)
    assert len(data) < 50_000
    assert equal(pickle.loads(data)[1], clips[1])


def test_full_crop_is_the_identity_and_a_flip_mirrors():
    pixels = torch.rand(2, 1, 3, 8, 10)
    result = crop_and_flip(pixels, [(0, 0, 8, 10)] * 2, [False, True])
    assert torch.allclose(result[0], pixels[0], atol=1e-6)
    assert torch.allclose(result[1], pixels[1].flip(-1), atol=1e-6)


@pytest.mark.parametrize("model", [MODEL, VIDEO])
def test_augmentation_matches_that_of_files(model):
    clips = build(train=True, seed=2, max_sounding=1, model=model)
    clips.set_epoch(3)
    processor = DeepAVFusionProcessor.from_config(model)
    augmentation = ClipAugmentation(processor.visual_processor)
    for i in range(8):
        scene = generate_scene(clips.config, clips.scene_index(i))
        draws = generator(2, Stream.AUGMENTATION, 3, i)
        pixels = augmentation.frames(scene.frames, draws)
        features = processor.feature_extractor(augmentation.waveform(scene.waveform, draws), sampling_rate=16000)
        sample = clips[i]
        found = sample["pixel_values"] if model is VIDEO else sample["pixel_values"][None]
        difference = (found - pixels).abs()
        # Two roundings to 8 bits; at its border a crop repeats its last pixel, where ours still interpolates.
        assert difference[..., 2:-2, 2:-2].max() < 2.5 / 255 / 0.22
        assert difference.mean() < 0.02
        assert torch.allclose(sample["input_features"], features.input_features[0], atol=5e-3)


def test_amplify_matches_amplified_waveforms():
    extractor = DeepAVFusionProcessor.from_config(MODEL).feature_extractor
    waveform = torch.from_numpy(generate_scene(ScenesConfig(seconds=1.0), 0).waveform)
    for decibels in (-6.0, 2.5, 6.0):
        expected = extractor.log_mel(waveform * 10 ** (decibels / 20))
        assert torch.allclose(amplify(extractor.log_mel(waveform)[None, None], [decibels])[0, 0], expected, atol=2e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "scene"}, "scenes, folder, vggsound, audioset"),
        ({"name": "scenes", "difculty": "hard"}, "difculty"),
        ({"name": "scenes", "path": "/x"}, "path"),
        ({"name": "folder"}, "data.path is missing"),
        ({"name": "folder", "path": "x", "difficulty": "hard"}, "difficulty"),
    ],
)
def test_invalid_options_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        build_dataset(settings, MODEL, "train", True, 0)


def test_unknown_splits_and_items_raise():
    with pytest.raises(ValueError, match="validation"):
        build(split="dev")
    clips = build()
    for i in (50, -1):
        with pytest.raises(IndexError):
            clips[i]


def test_mismatched_processors_raise():
    processor = DeepAVFusionProcessor.from_config(MODEL)
    with pytest.raises(ValueError, match="image size"):
        SceneClips(ScenesConfig(seconds=1.0, image_size=96), processor, "train", 5, True, 0)
    with pytest.raises(ValueError, match="samples"):
        SceneClips(ScenesConfig(seconds=2.0), processor, "train", 5, True, 0)
