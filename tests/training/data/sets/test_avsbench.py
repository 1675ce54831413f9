"""AVSBench in both layouts."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.training.data import BrokenClip, build_dataset
from deepavfusion.training.data.sets.avsbench import read_avsbench, read_label_names, read_metadata
from tests.media_factory import tone
from tests.training.data.disk import MODEL, RATE, SAMPLES, write, write_audio, write_image

NAMES = {"background": 1, "cat": 2, "dog": 3}
VIDEOS = [  # uid, split, label, frames, masks
    ("single1", "train", "v1s", 5, [0]),
    ("single2", "test", "v1s", 5, range(5)),
    ("multi1", "val", "v1m", 5, range(5)),
    ("new1", "train", "v2", 10, range(10)),
    ("new2", "test", "v2", 10, range(10)),
    ("gone", "test", "v2", 0, []),
]


def frame(number: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 * number, np.uint8)


def audio(seconds: int) -> np.ndarray:
    return np.concatenate([tone(RATE, 1.0, frequency=150.0 * (second + 1))[0] for second in range(seconds)])


def semantic_mask(number: int) -> np.ndarray:
    """A dog on the left, as wide as the number says."""
    mask = np.zeros((48, 64), np.uint8)
    mask[:, : 20 + 3 * number] = 2
    return mask


def make_semantic(root: Path) -> Path:
    """The release with metadata.csv."""
    write(root / "label2idx.json", json.dumps(NAMES))
    lines = ["vid,uid,s_min,s_sec,a_obj,split,label"]
    lines += [f"vid,{uid},0,5,dog_cat,{split},{label}" for uid, split, label, *_ in VIDEOS]
    write(root / "metadata.csv", "\r\n".join(lines) + "\r\n")
    for uid, _, label, frames, masks in VIDEOS[:-1]:
        folder = root / label / uid
        for number in range(frames):
            write_image(folder / "frames" / f"{number}.jpg", frame(number))
        for number in masks:
            write_image(folder / "labels_semantic" / f"{number}.png", semantic_mask(number))
        write_audio(folder / "audio.wav", audio(frames))
    return root


@pytest.fixture(scope="module")
def semantic(tmp_path_factory):
    return make_semantic(tmp_path_factory.mktemp("avsbench"))


def test_semantic_layout(semantic, caplog):
    rows, names = read_avsbench(semantic, "s4", "train")
    assert names == ["background", "cat", "dog"]
    assert [(Path(row.image).relative_to(semantic).as_posix(), row.timestamp) for row in rows] == [
        ("v1s/single1/frames/0.jpg", 0.5)
    ]
    assert Path(rows[0].mask).relative_to(semantic).as_posix() == "v1s/single1/labels_semantic/0.png"
    assert len(read_avsbench(semantic, "s4", "test")[0]) == 5
    assert len(read_avsbench(semantic, "ms3", "validation")[0]) == 5
    assert len(read_avsbench(semantic, "avss", "train")[0]) == 11
    with caplog.at_level(logging.WARNING):
        rows = read_avsbench(semantic, "avss", "test")[0]
    assert len(rows) == 15
    assert [row.timestamp for row in rows[-10:]] == [number + 0.5 for number in range(10)]
    assert "1 of 3 annotated clips are missing, first: v2/gone" in caplog.text
    with pytest.raises(FileNotFoundError, match="Found no masks of AVSBench ms3, split train"):
        read_avsbench(semantic, "ms3", "train")


def test_frames_masks_and_audio_correspond(semantic):
    settings = {"name": "avsbench", "path": str(semantic), "subset": "avss"}
    clips = build_dataset(settings, MODEL, "test", False, 0, task="segmentation", semantic=True)
    assert clips.label_names == ["background", "cat", "dog"]
    samples = clips.__getitems__(range(5, 15))
    visual, extractor = clips.processor.visual_processor, clips.processor.feature_extractor
    for number, sample in enumerate(samples):
        assert sample["path"].endswith(f"new2/frames/{number}.jpg")
        gray = visual.denormalize(sample["pixel_values"]).mean().item() * 255
        assert gray == pytest.approx(20 * number, abs=3)
        assert sample["labels"].unique().tolist() == [0, 2]
        share = (sample["labels"] == 2).float().mean().item()
        assert share == pytest.approx((20 + 3 * number - 8) / 48, abs=0.04)
        expected = extractor(tone(RATE, 1.0, frequency=150.0 * (number + 1))[0], sampling_rate=RATE)["input_features"]
        assert sample["input_features"][0].mean(-1).argmax() == expected[0, 0].mean(-1).argmax()
    binary = build_dataset(settings, MODEL, "test", False, 0, task="segmentation")
    assert binary.label_names is None
    assert torch.equal(binary[5]["labels"], (samples[0]["labels"] > 0).float())
    assert "avss" in binary.card


def test_masks_for_localization(semantic):
    settings = {"name": "avsbench", "path": str(semantic), "subset": "s4", "eval_size": 2}
    clips = build_dataset(settings, MODEL, "test", False, 0, task="localization")
    assert len(clips) == 2
    assert clips[0]["sounding"] == 1
    trained = build_dataset(settings, MODEL, "train", True, 0, task="localization")
    assert trained[0]["labels"].shape == (32, 32)
    with pytest.raises(ValueError, match="'avsbench' supports segmentation and localization, not 'separation'"):
        build_dataset(settings, MODEL, "train", True, 0, task="separation")


def make_objects(root: Path) -> Path:
    """The older release: one single-source and one multi-source video of each split."""
    colors = np.zeros((48, 64, 3), np.uint8)
    colors[:, :24] = (0, 0, 64)
    for split in ("train", "val", "test"):
        single, multi = root / "Single-source" / "s4_data", root / "Multi-sources" / "ms3_data"
        video, other = f"single_{split}", f"multi_{split}_1"
        for number in range(1, 6):
            write_image(single / "visual_frames" / split / "dog" / video / f"{video}_{number}.png", frame(number))
            write_image(multi / "visual_frames" / other / f"{other}.mp4_{number}.png", frame(number))
            write_image(multi / "gt_masks" / split / other / f"{other}_{number}.png", colors)
            if split != "train" or number == 1:
                mask = single / "gt_masks" / split / "dog" / video / f"{video}_{number}.png"
                write_image(mask, (semantic_mask(number) > 0).astype(np.uint8) * 255)
        write_audio(single / "audio_wav" / split / "dog" / f"{video}.wav", audio(5))
        write_audio(multi / "audio_wav" / split / f"{other}.wav", audio(5))
    return root


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    return make_objects(tmp_path_factory.mktemp("objects"))


def test_object_layout(objects, caplog):
    rows, names = read_avsbench(objects, "s4", "train")
    assert names is None
    assert [(Path(row.image).name, row.timestamp) for row in rows] == [("single_train_1.png", 0.5)]
    rows = read_avsbench(objects / "Single-source", "s4", "test")[0]
    assert [(Path(row.image).name, row.timestamp) for row in rows] == [
        (f"single_test_{number}.png", number - 0.5) for number in range(1, 6)
    ]
    rows = read_avsbench(objects / "Multi-sources" / "ms3_data", "ms3", "validation")[0]
    assert [Path(row.image).name for row in rows] == [f"multi_val_1.mp4_{number}.png" for number in range(1, 6)]
    settings = {"name": "avsbench", "path": str(objects)}
    for subset, share in (("s4", (20 + 3 - 8) / 48), ("ms3", (24 - 8) / 48)):
        clips = build_dataset(settings | {"subset": subset}, MODEL, "test", False, 0, task="segmentation")
        sample = clips[0]
        assert sample["labels"].mean().item() == pytest.approx(share, abs=0.04)
        gray = clips.processor.visual_processor.denormalize(sample["pixel_values"]).mean().item() * 255
        assert gray == pytest.approx(20, abs=1)
    with pytest.raises(ValueError, match="older release"):
        build_dataset(settings, MODEL, "test", False, 0, task="segmentation", semantic=True)


def test_lists_of_frames(objects, tmp_path, caplog):
    listed = write(tmp_path / "test.csv", "single_test_4,dog\r\nsingle_test_2,dog\r\nsingle_gone_1,dog\r\n")
    settings = {"name": "avsbench", "path": str(objects), "subset": "s4", "test_list": str(listed)}
    with caplog.at_level(logging.WARNING):
        clips = build_dataset(settings, MODEL, "test", False, 0, task="segmentation")
    assert [Path(clips.describe(i)).name for i in range(len(clips))] == ["single_test_2.png", "single_test_4.png"]
    assert "1 of 3 annotated clips are missing, first: single_gone_1" in caplog.text
    assert len(build_dataset(settings, MODEL, "validation", False, 0, task="segmentation")) == 5


def test_missing_avsbench_raises(objects, semantic, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected AVSBench s4 at .* Single-source/s4_data/gt_masks"):
        read_avsbench(tmp_path, "s4", "train")
    with pytest.raises(FileNotFoundError, match="Expected AVSBench avss at"):
        read_avsbench(objects, "avss", "train")
    with pytest.raises(ValueError, match="data.subset of avsbench must be one of s4, ms3, avss"):
        read_avsbench(semantic, "s3", "train")
    with pytest.raises(ValueError, match="Expected a split of train, validation, test, got 'val'"):
        read_avsbench(semantic, "s4", "val")
    with pytest.raises(ValueError, match="older release"):
        read_avsbench(semantic, "s4", "train", tmp_path / "list.csv")
    with pytest.raises(ValueError, match="columns uid, split, label, got none"):
        read_metadata(write(tmp_path / "metadata.csv", ""))
    with pytest.raises(ValueError, match="indices 1 to 2"):
        read_label_names(write(tmp_path / "names.json", '{"a": 1, "b": 3}'))
    assert read_metadata(semantic / "metadata.csv")[0]["a_obj"] == ["dog", "cat"]


def test_missing_frames_are_reported(semantic, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(semantic, root)
    (root / "v1s" / "single2" / "frames" / "3.jpg").unlink()
    settings = {"name": "avsbench", "path": str(root), "subset": "s4"}
    samples = build_dataset(settings, MODEL, "test", False, 0, task="segmentation").__getitems__(range(5))
    assert [isinstance(sample, BrokenClip) for sample in samples] == [False, False, False, True, False]
    assert "3.jpg" in samples[3].path


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no annotation samples in ../shared/media")
def test_real_label_names():
    names = read_label_names(SAMPLES / "avsbench_label2idx.json")
    assert len(names) == 71
    assert (names[0], names[1], names[70]) == ("background", "accordion", "woman")
