"""Every public data set, prepared, gives the samples of its files: the same items, labels, masks, boxes and windows."""

import io
import json
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from deepavfusion.training.data import BrokenClip, build_dataset
from deepavfusion.training.data.shards import Encoding, finish, prepare
from deepavfusion.training.data.shards.encoding import row_array
from deepavfusion.training.prepare import preparation_of

from ..disk import MODEL, make_clips, put, write, write_image
from ..sets.test_avsbench import make_objects, make_semantic
from ..sets.test_localization_sets import key, make_flickr, make_vggss_clips
from ..sets.test_music import make_music, make_vggsound_music
from ..test_sources import make_audioset, make_vggsound
from ..test_windows import make_clip

ENCODING = Encoding(fps=5, short_side=48, quality=95)


def store(options: dict, out: Path, encoding: Encoding = ENCODING) -> dict:
    """Prepares a data set; gives the options that read it."""
    preparation = preparation_of(options, encoding, 3)
    list(prepare(preparation, out))
    outcome = finish(preparation, out)
    assert outcome.broken == []
    return {"name": "shards", "path": str(out)}


def tail(path: str) -> str:
    """The names of files in a description, without their folders."""
    return " + ".join(Path(part).name for part in path.split(" + "))


@dataclass
class Case:
    """A data set to compare: what makes it, its options, tasks, splits, and lists to write."""

    make: object
    name: str
    tasks: tuple[str, ...]
    splits: tuple[str, ...] = ("train", "test")
    options: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    lists: dict = field(default_factory=dict)


def with_clip(make):
    """Makes a data set of copies of clips."""

    def build(root: Path) -> None:
        (clip,) = make_clips(root.parent / "clip", 1)
        make(clip, root)

    return build


MAPS, THREE = ("segmentation", "localization"), ("train", "validation", "test")
BOTH = ("recognition", "separation")
TRAINED = f"{key('e')}\n{key('f')}\n"
NEGATIVES = f"video,audio,label\n{key('a')},{key('e')},non-sounding\n{key('d')},{key('d')},dog\n"
CASES = {
    "s4": Case(make_semantic, "avsbench", ("segmentation",), ("train", "test"), {"subset": "s4"}),
    "avss": Case(make_semantic, "avsbench", ("semantic", "localization"), THREE, {"subset": "avss"}),
    "ms3 of objects": Case(make_objects, "avsbench", MAPS, THREE, {"subset": "ms3"}),
    "boxes, unlabeled clips": Case(
        make_vggss_clips,
        "vggss",
        ("localization",),
        THREE,
        training={"validation_fraction": 0.5},
        lists={"train_list": TRAINED, "test_list": NEGATIVES},
    ),
    "boxes of training": Case(
        make_vggss_clips,
        "vggss",
        ("localization",),
        THREE,
        training={"validation_fraction": 0.5},
        lists={"train_list": f"{key('a')}\n{key('d')}\n", "test_list": f"{key('a')}\n"},
    ),
    "flickr": Case(make_flickr, "flickr_soundnet", ("localization",), lists={"train_list": "1\n2\n"}),
    "music": Case(with_clip(make_music), "music", BOTH, ("train",), {"subset": "music"}),
    "pairs": Case(with_clip(make_vggsound_music), "vggsound_music", BOTH, options={"drop_overlap": True}),
    "vggsound": Case(
        with_clip(make_vggsound),
        "vggsound",
        ("separation",),
        ("train", "validation"),
        training={"validation_fraction": 0.4},
    ),
    "audioset": Case(with_clip(make_audioset), "audioset", ("recognition",), options={"subset": "balanced"}),
}


@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_the_files(name, tmp_path):
    case, root = CASES[name], tmp_path / "set"
    case.make(root)
    options = {"name": case.name, "path": str(root), **case.options}
    options |= {option: str(write(tmp_path / f"{option}.csv", text)) for option, text in case.lists.items()}
    stored = store(options, tmp_path / "out") | case.options | case.training
    compared = 0
    for task in case.tasks:
        more = {"task": task} if task != "semantic" else {"task": "segmentation", "semantic": True}
        for split in case.splits:
            train = split == "train"
            files = build_dataset(options | case.training, MODEL, split, train, 3, **more)
            shards = build_dataset(stored, MODEL, split, train, 3, **more)
            assert len(files) == len(shards)
            assert files.label_names == shards.label_names
            for epoch in range(2 if train else 1):
                files.set_epoch(epoch)
                shards.set_epoch(epoch)
                for i in range(min(len(files), 2)):
                    compare(files[i], shards[i])
                    compared += 1
    assert compared >= 2 * len(case.tasks)


def compare(expected: dict, found: dict) -> None:
    assert not isinstance(expected, BrokenClip)
    assert not isinstance(found, BrokenClip), found.reason
    assert expected.keys() == found.keys()
    assert tail(found["path"]) == tail(expected["path"])
    assert found["index"] == expected["index"]
    assert found.get("label") is None or torch.equal(
        torch.as_tensor(found["label"]), torch.as_tensor(expected["label"])
    )
    assert found.get("sounding") == expected.get("sounding")
    if "labels" in expected and expected["labels"].dim() == 2:  # maps, which are stored as they are
        assert torch.equal(found["labels"], expected["labels"])
    assert (found["pixel_values"] - expected["pixel_values"]).abs().mean() < 0.05
    for audio in ("input_features", *(("labels",) if "labels" in expected and expected["labels"].dim() == 3 else ())):
        loud = expected[audio] > 0
        assert loud.any()
        assert (found[audio] - expected[audio])[loud].abs().max() < 0.06


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """AVSBench with classes, and what was prepared of it."""
    root = tmp_path_factory.mktemp("classes")
    make_semantic(root / "set")
    return root / "set", store({"name": "avsbench", "path": str(root / "set"), "subset": "avss"}, root / "out")


def test_a_clip_holds_the_annotated_frames_alone(classes):
    from datasets import Dataset

    _, stored = classes
    rows = Dataset.from_file(f"{stored['path']}/index.arrow")
    row = next(row for row in rows if "single1" in row["path"])
    assert row["path"] == "set/v1s/single1/audio.wav"
    assert row["image"] == ["set/v1s/single1/frames/0.jpg"]
    assert row_array(row, "frame_times").tolist() == [0.5]
    assert len(row_array(row, "frame_ends")) == 1
    row = next(row for row in rows if "new1" in row["path"])
    assert row_array(row, "frame_times").tolist() == row["timestamp"] == [number + 0.5 for number in range(10)]
    assert len(row_array(row, "mask_ends")) == 10
    assert (row["image_start"], row["audio_start"], row["audio_end"]) == (None, 0.0, 10.0)
    about = json.loads(Path(stored["path"], "dataset.json").read_text())
    assert about["classes"] == ["background", "cat", "dog"]
    assert about["options"] == {"subset": "avss"}
    assert str(Path.cwd().anchor) + "tmp" not in json.dumps(about)


def test_masks_keep_their_size_and_follow_reduced_frames(tmp_path):
    make_semantic(tmp_path / "set")
    big = np.array([[0, 2, 0, 0], [2, 0, 2, 0], [0, 2, 2, 0]], np.uint8).repeat(160, 0).repeat(160, 1)
    folder = tmp_path / "set" / "v1s" / "single2"
    for number in range(5):
        write_image(folder / "labels_semantic" / f"{number}.png", big)
        write_image(folder / "frames" / f"{number}.jpg", np.stack([big * 100] * 3, -1))
    options = {"name": "avsbench", "path": str(tmp_path / "set")}
    stored = store(options, tmp_path / "out", Encoding(short_side=96, quality=95))
    for split, train in (("test", False), ("test", True)):
        files, shards = (
            build_dataset(data, MODEL, split, train, 0, task="segmentation", semantic=True)
            for data in (options, stored)
        )
        expected, found = files[0], shards[0]
        assert (found["labels"] != expected["labels"]).float().mean() < 0.03  # the crop is in whole pixels
        inside = (expected["pixel_values"] > 0).float()
        assert ((found["pixel_values"] > 0).float() - inside).abs().mean() < 0.06
        assert found["labels"].unique().tolist() == [0, 2]


def test_frames_of_clips_are_those_at_their_timestamp(tmp_path):
    """The clips' frames and samples tell their times."""
    root = tmp_path / "set"
    for k, name in enumerate("ad"):
        folder = root / "clips" / "dog"
        folder.mkdir(parents=True, exist_ok=True)
        make_clip(folder / f"{key(name)}_000040.mov", 7.0 + k)
    write(root / "vggss.json", json.dumps([{"file": key(name), "bbox": [[0.0, 0.0, 0.5, 1.0]]} for name in "ad"]))
    lines = f"video,audio,label\n{key('a')},{key('d')},non-sounding\n{key('d')},{key('d')},dog\n"
    options = {"name": "vggss", "path": str(root), "test_list": str(write(tmp_path / "pairs.csv", lines))}
    stored = store(options, tmp_path / "out")
    files, shards = (build_dataset(data, MODEL, "test", False, 0, task="localization") for data in (options, stored))
    for i in range(2):
        expected, found = (
            clips.reader.load(clips.frame(i), clips._window(clips.frame(i), i), 1.0) for clips in (files, shards)
        )
        assert np.abs(found[0].astype(int) - expected[0]).max() <= 4
        assert found[2] == expected[2]
        assert found[1].shape == expected[1].shape
        assert np.abs(found[1] - expected[1]).max() < 1e-4
        assert found[1][0, 0] * 20 == pytest.approx(4.5, abs=0.01)
        assert len(row_array(shards.reader.rows[i], "frame_ends")) == 1


def test_annotated_frames_are_jpeg_files_whatever_the_encoding_of_videos_is(tmp_path):
    make_vggss_clips(tmp_path / "set")
    listed = str(write(tmp_path / "train.txt", TRAINED))
    options = {"name": "vggss", "path": str(tmp_path / "set"), "train_list": listed}
    stored = store(options, tmp_path / "out", Encoding(short_side=48, quality=95, audio="pcm", video="h264"))
    for split, train in (("train", True), ("test", False)):
        files, shards = (build_dataset(data, MODEL, split, train, 0, "localization") for data in (options, stored))
        compare(files[0], shards[0])
    names = []
    for shard in Path(stored["path"], "shards").iterdir():
        with tarfile.open(shard) as tar:
            names += tar.getnames()
    assert {Path(name).suffix for name in names if name.startswith("train")} == {".json", ".mp4", ".wav"}
    assert {Path(name).suffix for name in names if name.startswith("test")} == {".json", ".mov", ".wav"}


def test_broken_frames_and_audio_are_named_and_left_out(tmp_path):
    make_semantic(tmp_path / "set")
    broken = [tmp_path / "set" / "v1s" / "single2" / "frames" / "1.jpg"]
    broken += [tmp_path / "set" / "v2" / "new2" / "labels_semantic" / f"{number}.png" for number in range(10)]
    for path in broken:
        write(path, "no image")
    write(tmp_path / "set" / "v2" / "new1" / "audio.wav", "no audio")
    preparation = preparation_of({"name": "avsbench", "path": str(tmp_path / "set"), "subset": "avss"}, ENCODING, 2)
    list(prepare(preparation, tmp_path / "out"))
    outcome = finish(preparation, tmp_path / "out")
    names = [name for name, _ in outcome.broken]
    assert names.count("set/v1s/single2/frames/1.jpg") == 1
    assert sum("new2" in name for name in names) == sum("new1" in name for name in names) == 10
    assert outcome.clips == 3  # single1, multi1, and what is left of single2
    options = {"name": "shards", "path": str(tmp_path / "out")}
    clips = build_dataset(options, MODEL, "test", False, 0, task="segmentation")
    assert [Path(clips.describe(i)).name for i in range(len(clips))] == ["0.jpg", "2.jpg", "3.jpg", "4.jpg"]
    whole = build_dataset({"name": "avsbench", "path": str(tmp_path / "set")}, MODEL, "test", False, 0, "segmentation")
    assert torch.equal(clips[1]["labels"], whole[2]["labels"])


def test_broken_clips_take_their_pairs_with_them(tmp_path):
    (clip,) = make_clips(tmp_path / "clip", 1)
    make_vggsound_music(clip, tmp_path / "set")
    write(next((tmp_path / "set" / "clips").rglob("ddddddddddd_*.mp4")), "no video")
    preparation = preparation_of({"name": "vggsound_music", "path": str(tmp_path / "set")}, ENCODING, 2)
    list(prepare(preparation, tmp_path / "out"))
    assert len(finish(preparation, tmp_path / "out").broken) == 2  # in training and test
    options = {"name": "shards", "path": str(tmp_path / "out")}
    pairs = build_dataset(options, MODEL, "test", False, 0, task="separation")
    assert [tail(pairs.describe(i)) for i in range(len(pairs))] == [
        "eeeeeeeeeee_000030_000040.mp4 + fffffffffff_000030_000040.mp4",
        "fffffffffff_000030_000040.mp4 + eeeeeeeeeee_000030_000040.mp4",
    ]


def test_flat_folders_are_divided_and_ordered_as_from_files(tmp_path):
    (clip,) = make_clips(tmp_path / "clip", 1)
    put(clip, *(tmp_path / "set" / f"{i}.mp4" for i in range(12)))
    options = {"name": "folder", "path": str(tmp_path / "set")}
    stored = store(options, tmp_path / "out")
    sizes = {"validation_fraction": 0.3, "train_size": 4}
    for split in ("train", "test"):
        files, shards = (build_dataset(data | sizes, MODEL, split, False, 0) for data in (options, stored))
        assert [tail(path) for path in shards.rows["path"]] == [tail(path) for path in files.rows["path"]]
    mixtures = [build_dataset(data | sizes, MODEL, "test", False, 0, "separation") for data in (options, stored)]
    assert [tail(mixtures[1].describe(i)) for i in range(4)] == [tail(mixtures[0].describe(i)) for i in range(4)]


def test_tasks_and_options_must_be_those_of_the_preparation(classes, tmp_path):
    root, stored = classes
    with pytest.raises(ValueError, match="from avsbench, which supports segmentation and localization, not 'recogn"):
        build_dataset(stored, MODEL, "train", True, 0)
    with pytest.raises(ValueError, match=r"data\.subset=ms3, but .* with data\.subset=avss\. Prepare it with that"):
        build_dataset(stored | {"subset": "ms3"}, MODEL, "train", True, 0, task="segmentation")
    with pytest.raises(ValueError, match=r"data\.train_list=.*list\.txt, but .* without data\.train_list"):
        build_dataset(stored | {"train_list": "list.txt"}, MODEL, "train", True, 0, task="segmentation")
    with pytest.raises(ValueError, match=r"data\.windows_per_clip is for videos"):
        build_dataset(stored | {"windows_per_clip": 2}, MODEL, "train", True, 0, task="segmentation")
    assert len(build_dataset(stored | {"drop_overlap": False}, MODEL, "train", True, 0, task="segmentation")) == 2
    with pytest.raises(ValueError, match="only others can be prepared"):
        preparation_of(stored, ENCODING, 3)
    with pytest.raises(ValueError, match=r"give data\.validation_fraction to the training"):
        preparation_of({"name": "folder", "path": str(root), "validation_fraction": 0.1}, ENCODING, 3)


def test_the_older_release_has_no_classes(tmp_path):
    make_objects(tmp_path / "set")
    options = {"name": "avsbench", "path": str(tmp_path / "set"), "subset": "ms3"}
    stored = store(options, tmp_path / "out")
    with pytest.raises(ValueError, match="needs masks with classes; .* was prepared without"):
        build_dataset(stored, MODEL, "test", False, 0, task="segmentation", semantic=True)


def test_damaged_masks_are_reported(classes, tmp_path):
    _, stored = classes
    shutil.copytree(stored["path"], tmp_path / "out")
    clips = build_dataset(stored | {"path": str(tmp_path / "out")}, MODEL, "test", False, 0, task="segmentation")
    row = clips.reader.rows[clips.frame(0).place[0]]
    shard = tmp_path / "out" / "shards" / row["shard"]
    content = bytearray(shard.read_bytes())
    size = int(row_array(row, "mask_ends")[0])
    content[row["mask_offset"] : row["mask_offset"] + size] = bytes(size)
    shard.write_bytes(content)
    (sample,) = clips.__getitems__([0])
    assert isinstance(sample, BrokenClip)
    assert f"labels_semantic/0.png: expected a PNG file in {tmp_path / 'out'}/shards/{row['shard']}" in sample.reason


def test_masks_are_a_video_that_players_show(classes):
    """A PNG file for each frame, in a QuickTime file."""
    _, stored = classes
    for shard in sorted(Path(stored["path"], "shards").iterdir()):
        with tarfile.open(shard) as tar:
            found = {member.name: tar.extractfile(member).read() for member in tar}
        for name in [name for name in found if name.endswith(".masks.mov")]:
            about = json.loads(found[name.replace("masks.mov", "json")])
            with av.open(io.BytesIO(found[name])) as container:
                times = [frame.time for frame in container.decode(video=0)]
            first = about["frame_times"][0]
            assert times == pytest.approx([time - first for time in about["frame_times"]], abs=1e-4)
            assert len(about["image"]) == len(times)
            start = found[name].index(b"\x89PNG")
            assert Image.open(io.BytesIO(found[name][start:])).mode == "L"
