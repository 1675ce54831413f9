"""VGG-SS and Flickr-SoundNet."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.sets.boxes.flickr_soundnet import read_annotations, read_boxes
from deepavfusion.training.data.sets.boxes.vggss import clean_boxes, locator, make_stills, read_vggss
from deepavfusion.training.data.sets.lists import ImageAudioPair
from deepavfusion.training.tasks import Localization
from tests.media_factory import tone
from tests.training.data.disk import (
    MODEL,
    RATE,
    REAL_CLIPS,
    SAMPLES,
    make_clips,
    put,
    write,
    write_audio,
    write_image,
)

PROCESSOR = DeepAVFusionProcessor.from_config(MODEL, crop_pct=1.0)


def key(name: str, start: int = 30) -> str:
    return f"{name * 11:.11}_{start:06d}"


def test_boxes_are_clipped_and_degenerate_ones_dropped():
    boxes = [
        [0.2, 0.1, 0.5, 0.6],
        [-0.1, 0.5, 1.2, 0.7],
        [0.00625, 0.015625, 0.00625, 0.015625],
        [0.26875, 1.0, 0.753125, 1.0],
        [0.384375, 0.859375, 0.696875, -2.8823037615171176e16],
    ]
    assert clean_boxes(boxes, "x") == ((0.2, 0.1, 0.5, 0.6), (0.0, 0.5, 1.0, 0.7))
    for box in ([0.1, 0.2, 0.3], [0.1, 0.2, 0.3, float("nan")]):
        with pytest.raises(ValueError, match="x: expected a box x1, y1, x2, y2"):
            clean_boxes([box], "x")


VGGSS = [
    {"file": key("a"), "class": "dog", "bbox": [[0.0, 0.0, 0.5, 1.0]]},
    {"file": key("b"), "class": "dog", "bbox": [[0.1, 0.1, 0.1, 0.9]]},
    {"file": key("c"), "class": "cat", "bbox": []},
    {"file": key("d"), "class": "cat", "bbox": [[0.5, 0.5, 1.0, 1.0], [0.25, 0.25, 0.75, 0.75]]},
]


def make_frames(root: Path, names: str) -> None:
    for i, name in enumerate(names):
        write_image(root / "frames" / f"{name}.jpg", np.full((48, 64, 3), 40 * i, np.uint8))
        pitches = [tone(RATE, 1.0, frequency=frequency)[0] for frequency in (200.0, 300.0 + 200 * i, 1500.0)]
        write_audio(root / "audio" / f"{name}.wav", np.concatenate(pitches))


def test_vggss_annotations(tmp_path, caplog):
    path = write(tmp_path / "vggss.json", json.dumps(VGGSS))
    with caplog.at_level(logging.WARNING):
        boxes = read_vggss(path)
    assert boxes[key("a")] == ((0.0, 0.0, 0.5, 1.0),)
    assert boxes[key("b")] is None
    assert boxes[key("c")] == ()
    assert len(boxes[key("d")]) == 2
    assert "1 boxes have no area; 1 frames have no other boxes" in caplog.text
    for text in ('{"file": "a"}', '[{"file": "a"}]', "[1]"):
        with pytest.raises(ValueError, match='list of objects with "file" and "bbox"'):
            read_vggss(write(tmp_path / "other.json", text))


def test_vggss_frames_and_audio(tmp_path, caplog):
    write(tmp_path / "annotations" / "vggss.json", json.dumps(VGGSS))
    make_frames(tmp_path, "")
    for i, name in enumerate("abcd"):
        write_image(tmp_path / "frames" / f"{key(name)}.jpg", np.full((48, 64, 3), 40 * i, np.uint8))
        if name != "d":
            sounds = [tone(RATE, 1.0, frequency=frequency)[0] for frequency in (200.0, 400.0 + 200 * i, 1500.0)]
            write_audio(tmp_path / "audio" / f"{key(name)}.wav", np.concatenate(sounds))
    settings = {"name": "vggss", "path": str(tmp_path)}
    with caplog.at_level(logging.WARNING):
        clips = build_dataset(settings, MODEL, "test", False, 0, task="localization")
    assert f"1 of 4 annotated clips are missing, first: {key('d')}" in caplog.text
    assert "1 frames are left out: all of their boxes are without area" in caplog.text
    assert [Path(clips.describe(i)).stem for i in range(len(clips))] == [key("a"), key("c")]
    first, negative = clips.__getitems__([0, 1])
    assert first["sounding"] == 1
    assert first["labels"].mean().item() == pytest.approx(0.5, abs=0.02)
    assert negative["sounding"] == 0
    assert not negative["labels"].any()
    assert "1 of them without a visible sounding object" in clips.card
    middle = PROCESSOR.feature_extractor(tone(RATE, 1.0, frequency=400.0)[0], sampling_rate=RATE)["input_features"]
    assert first["input_features"][0].mean(-1).argmax() == middle[0, 0].mean(-1).argmax()


def make_vggss_clips(root: Path) -> Path:
    """Clips of VGGSound, here of 6 s, with boxes for some."""
    made = make_clips(root / "made", 2, seconds=6.0)
    for i, name in enumerate("adef"):
        put(made[i % 2], root / "clips" / "dog" / f"{key(name)}_000040.mp4")
    lines = [f"{name * 11},30,dog,{'test' if name in 'ade' else 'train'}" for name in "adef"]
    write(root / "annotations" / "vggsound.csv", "\n".join(lines) + "\n")
    write(root / "annotations" / "vggss.json", json.dumps([VGGSS[0], VGGSS[3]]))
    return root


@pytest.fixture(scope="module")
def clips_root(tmp_path_factory):
    return make_vggss_clips(tmp_path_factory.mktemp("vggss"))


def test_vggss_clips(clips_root):
    settings = {"name": "vggss", "path": str(clips_root)}
    clips = build_dataset(settings, MODEL, "test", False, 0, task="localization")
    assert len(clips) == 2
    inputs = PROCESSOR(videos=clips.rows[0].image, timestamps=5.0)
    assert torch.equal(clips[0]["pixel_values"], inputs["pixel_values"][0])
    assert torch.equal(clips[0]["input_features"], inputs["input_features"][0])
    with pytest.raises(ValueError, match=r"set data\.train_list"):
        build_dataset(settings, MODEL, "train", True, 0, task="localization")
    with pytest.raises(ValueError, match="no validation split"):
        build_dataset(settings, MODEL, "validation", False, 0, task="localization")


def test_training_lists_overlap_test_sets(clips_root, tmp_path, caplog):
    listed = write(tmp_path / "train.txt", "\r\n".join(key(name) for name in "aef"))
    settings = {"name": "vggss", "path": str(clips_root), "train_list": str(listed)}
    with caplog.at_level(logging.WARNING):
        clips = build_dataset(settings, MODEL, "train", True, 0, task="localization")
    assert "2 of 3 training clips are test clips, kept" in caplog.text  # a has boxes, e is VGGSound's test clip
    assert len(clips) == 3
    assert "labels" not in clips[0]
    dropped = build_dataset(settings | {"drop_overlap": True}, MODEL, "train", True, 0, task="localization")
    assert [Path(row.image).name[0] for row in dropped.rows] == ["f"]
    assert "2 of 3 training clips are test clips, left out" in dropped.card


def test_validation_is_taken_from_annotated_clips(clips_root, tmp_path):
    settings = {"name": "vggss", "path": str(clips_root), "validation_fraction": 0.5}
    settings["train_list"] = str(write(tmp_path / "train.txt", f"{key('e')}\n{key('f')}\n"))
    sizes = {
        split: build_dataset(settings, MODEL, split, split == "train", 0, task="localization")
        for split in ("train", "validation", "test")
    }
    assert [len(clips) for clips in sizes.values()] == [2, 1, 1]
    assert sizes["validation"].rows[0] != sizes["test"].rows[0]
    settings["train_list"] = str(write(tmp_path / "annotated.txt", f"{key('a')}\n{key('d')}\n"))
    settings["test_list"] = str(write(tmp_path / "test.txt", f"{key('a')}\n"))
    train = build_dataset(settings, MODEL, "train", True, 0, task="localization")
    held = build_dataset(settings, MODEL, "validation", False, 0, task="localization")
    assert {train.rows[0].image[-24:], held.rows[0].image[-24:]} == {
        f"/{key(name)[1:]}_000040.mp4"[-24:] for name in "ad"
    }
    assert "labels" in train[0]
    assert len(build_dataset(settings, MODEL, "test", False, 0, task="localization")) == 1


def test_frames_with_audio_of_other_clips(clips_root, tmp_path):
    lines = f"video,audio,label\n{key('a')},{key('e')},non-sounding\n{key('d')},{key('d')},dog\n"
    settings = {"name": "vggss", "path": str(clips_root), "test_list": str(write(tmp_path / "pairs.csv", lines))}
    clips = build_dataset(settings, MODEL, "test", False, 0, task="localization")
    first, second = clips.__getitems__([0, 1])
    assert (first["sounding"], second["sounding"]) == (0, 1)
    assert f"{key('a')}_000040.mp4 with " in first["path"]
    inputs = PROCESSOR(videos=str(clips_root / "clips" / "dog" / f"{key('a')}_000040.mp4"), timestamps=5.0)
    assert torch.equal(first["pixel_values"], inputs["pixel_values"][0])


def test_missing_vggss_raises(clips_root, tmp_path):
    settings = {"name": "vggss", "path": str(tmp_path)}
    with pytest.raises(FileNotFoundError, match="Expected VGG-SS's annotations at"):
        build_dataset(settings, MODEL, "test", False, 0, task="localization")
    write(tmp_path / "vggss.json", json.dumps(VGGSS))
    with pytest.raises(
        FileNotFoundError, match=r"Expected frames .*frames and audio at .*, or clips at .*clips; found"
    ):
        build_dataset(settings, MODEL, "test", False, 0, task="localization")
    (tmp_path / "frames").mkdir()
    with pytest.raises(FileNotFoundError, match="none of the 4 pairs of image and audio is on disk"):
        build_dataset(settings, MODEL, "test", False, 0, task="localization")
    find = locator(clips_root, 5.0, [key("a")])
    with pytest.raises(ValueError, match=f"set: {key('e')} has no annotation"):
        make_stills("set", [ImageAudioPair(key("e"), key("e"), False)], find, {key("a"): ()})


@pytest.mark.skipif(not REAL_CLIPS.is_dir(), reason="no real clips in ../shared/media")
def test_real_vggss():
    clips = build_dataset({"name": "vggss", "path": str(REAL_CLIPS)}, MODEL, "test", False, 0, task="localization")
    assert len(clips) == 4
    batch = clips.collate(clips.__getitems__(range(4)))
    assert batch["broken"] == []
    assert batch["sounding"].tolist() == [1, 1, 1, 1]
    assert all(0.05 < area < 0.95 for area in batch["labels"].mean((1, 2)).tolist())


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no annotation samples in ../shared/media")
def test_real_vggss_annotations():
    boxes = read_vggss(SAMPLES / "sample_vggss.json")
    assert len(boxes) == 13
    assert boxes["M1P1xla8rg0_000000"] is None
    assert boxes["Db6Hjt0x28k_000056"] == ((0.05, 0.35625, 0.753125, 0.98125),)
    assert [len(found) for found in boxes.values() if found is not None].count(2) == 2


# Flickr-SoundNet


def annotation(boxes: list[tuple[int, int, int, int]]) -> str:
    fields = "".join(
        "<name><bbox><label>1</label>"
        + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bbox></name>"
        for box in boxes
    )
    return f"<annotation><folder>x</folder>{fields}</annotation>"


def make_flickr(root: Path) -> None:
    make_frames(root, "1234")
    boxes = {"1": [(0, 0, 128, 256), (64, 0, 256, 256)], "2": [], "3": [(10, 10, 10, 20)], "5": [(0, 0, 9, 9)]}
    for name, found in boxes.items():
        write(root / "Annotations" / f"{name}.xml", annotation(found))


def test_flickr_annotations(tmp_path):
    make_flickr(tmp_path)
    found = read_annotations(tmp_path)
    assert found == {
        "1": ((0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 1.0, 1.0)),
        "2": (),
        "3": None,
        "5": ((0.0, 0.0, 9 / 256, 9 / 256),),
    }
    assert read_annotations(tmp_path, ["5", "4"]) == {"5": found["5"]}
    for text in (
        "no xml",
        annotation([(1, 2, 3, 4)]).replace("4</ymax>", "four</ymax>"),
        "<a><b><bbox><x/><y/></bbox></b></a>",
        '<?xml version="1.0" encoding="foo"?><a/>',
    ):
        with pytest.raises(ValueError, match=r"bad\.xml: expected xml"):
            read_boxes(write(tmp_path / "bad.xml", text))
    with pytest.raises(FileNotFoundError, match="Annotations"):
        read_annotations(tmp_path / "elsewhere")


def test_flickr_consensus(tmp_path, caplog):
    make_flickr(tmp_path)
    settings = {"name": "flickr_soundnet", "path": str(tmp_path)}
    with caplog.at_level(logging.WARNING):
        clips = build_dataset(settings, MODEL, "test", False, 0, task="localization")
    assert "1 of 4 annotated clips are missing, first: 5" in caplog.text
    assert [Path(clips.describe(i)).stem for i in range(len(clips))] == ["1", "2"]
    certain, negative = clips.__getitems__([0, 1])
    assert certain["labels"].unique().tolist() == [0.5, 1.0]
    assert (certain["labels"] == 1).float().mean().item() == pytest.approx(16 / 48, abs=0.04)
    assert negative["sounding"] == 0
    lines = "video,audio,label\r\n1,4,non-sounding\r\n1,1,tap dancing\r\n"
    pairs = settings | {"test_list": str(write(tmp_path / "silent.csv", lines))}
    silent = build_dataset(pairs, MODEL, "test", False, 0, task="localization")
    assert [sample["sounding"] for sample in silent.__getitems__([0, 1])] == [0, 1]
    assert torch.equal(silent[0]["pixel_values"], silent[1]["pixel_values"])
    assert not torch.equal(silent[0]["input_features"], silent[1]["input_features"])


def test_flickr_training(tmp_path, caplog):
    make_flickr(tmp_path)
    settings = {"name": "flickr_soundnet", "path": str(tmp_path)}
    without = settings | {"train_list": str(write(tmp_path / "train.txt", "1\n3\n4\n"))}
    with caplog.at_level(logging.WARNING):
        clips = build_dataset(without, MODEL, "train", True, 0, task="localization")
    assert "2 of 3 training clips are test clips" in caplog.text
    assert len(clips) == 3
    assert "labels" not in clips[0]
    tests = {"test_list": str(write(tmp_path / "test.csv", "1,202\r\n"))}
    supervised = settings | tests | {"train_list": str(write(tmp_path / "sup.txt", "1\n2\n")), "drop_overlap": True}
    clips = build_dataset(supervised, MODEL, "train", True, 0, task="localization")
    assert [Path(row.image).stem for row in clips.rows] == ["2"]
    assert "labels" in clips[0]


def test_supervised_training_without_boxes_raises(tmp_path):
    make_flickr(tmp_path)
    listed = write(tmp_path / "train.txt", "1\n3\n4\n")
    changes = [f"data.path={tmp_path}", f"data.train_list={listed}", "model.init_from=null"]
    supervised = load_recipe("finetune", "flickr_localization", [*changes, "model.localization_loss=supervised"])
    with pytest.raises(ValueError, match=r"no boxes .*flickr.*model\.localization_loss=matching"):
        Localization.build_clips(supervised, MODEL, "train", train=True)
    matching = load_recipe("finetune", "flickr_localization", [*changes, "model.localization_loss=matching"])
    assert len(Localization.build_clips(matching, MODEL, "train", train=True)) == 1  # two are test clips
