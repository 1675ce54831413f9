"""Data sets on disk: layouts, annotations, and clips from files as model inputs."""

import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from deepavfusion import DeepAVFusionConfig
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import BrokenClip, build_dataset, collate_clips
from deepavfusion.training.data.files import FileClips, share_files
from deepavfusion.training.data.scenes import write_video
from deepavfusion.training.data.sets.audioset import read_audioset, read_segments
from deepavfusion.training.data.sets.folder import (
    WHOLE,
    clip_time,
    hold_out,
    label_info,
    make_rows,
    order_by_name,
    read_annotations,
    read_folder,
)
from deepavfusion.training.data.sets.names import linked_files, recordings_of
from deepavfusion.training.data.sets.vggsound import class_folder, read_vggsound, read_vggsound_csv
from deepavfusion.training.tasks.recognition import Recognition

MEDIA = Path(__file__).parents[4] / ".." / "shared" / "media"
MODEL = DeepAVFusionConfig(image_size=32, patch_size=8, num_mel_bins=32, spectrogram_length=64)
VIDEO = DeepAVFusionConfig(image_size=32, patch_size=8, num_mel_bins=32, spectrogram_length=64, num_frames=4)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """2 s of a color gradient of rising brightness, and noise of rising volume."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    slope = np.stack(np.broadcast_arrays(np.arange(64), np.arange(48)[:, None], 20), axis=-1)
    frames = (slope + np.linspace(20, 170, 50)[:, None, None, None]).astype(np.uint8)
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 32000) * np.linspace(0.02, 1, 32000)
    write_video(path, frames, sound.astype(np.float32), 16000)
    return path


def put(clip: Path, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, path)


def names(rows, root: Path) -> list[str]:
    return [str(Path(path).relative_to(root)) for path in rows["path"]]


@pytest.mark.parametrize("path", [".", "./", "../VIDEOS", "../VIDEOS/."])
def test_what_is_held_out_of_a_folder_does_not_depend_on_how_it_is_written(path, tmp_path, monkeypatch):
    folder = tmp_path / "VIDEOS"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.mp4").touch()
    monkeypatch.chdir(folder)
    held_out = [
        [
            Path(name).name
            for name in build_dataset({"name": "folder", "path": way}, MODEL, "test", False, 0).rows["path"]
        ]
        for way in (str(folder), path)
    ]
    assert held_out[0] == held_out[1]


def test_folder_per_class(clip, tmp_path):
    put(clip, tmp_path / "dog" / "a b%20.mp4", tmp_path / "dog" / "-x.MKV", tmp_path / "cat" / "é.webm")
    put(clip, tmp_path / "cat" / ".hidden.mp4", tmp_path / ".trash" / "b.mp4")
    (tmp_path / "cat" / "notes.txt").write_text("no clip")
    rows = read_folder(tmp_path)
    assert names(rows, tmp_path) == ["cat/é.webm", "dog/-x.MKV", "dog/a b%20.mp4"]
    assert rows["label"] == [0, 1, 1]
    assert label_info(rows) == (["cat", "dog"], False)
    assert rows["start"] == rows["end"] == [None] * 3


def test_a_flat_folder_has_no_labels(clip, tmp_path):
    put(clip, *(tmp_path / f"{n}.{s}" for n, s in enumerate(("mp4", "mkv", "webm", "avi", "mov", "mpg"))))
    rows = read_folder(tmp_path)
    assert len(rows) == 6
    assert label_info(rows) == (None, False)


def test_nested_classes_and_split_folders(clip, tmp_path):
    put(clip, tmp_path / "deep" / "clips" / "dog" / "a.mp4", tmp_path / "deep" / "clips" / "cat" / "b.mp4")
    os.symlink(tmp_path / "deep", tmp_path / "deep" / "clips" / "up")
    rows = read_folder(tmp_path / "deep")
    assert names(rows, tmp_path / "deep") == ["clips/cat/b.mp4", "clips/dog/a.mp4"]
    assert label_info(rows)[0] == ["cat", "dog"]
    root = tmp_path / "split"
    put(clip, root / "train" / "dog" / "a.mp4", root / "train" / "cat" / "b.mp4", root / "val" / "dog" / "c.mp4")
    rows = read_folder(root)
    assert rows["split"] == ["train", "train", "validation"]
    assert label_info(rows)[0] == ["cat", "dog"]
    flat = tmp_path / "flat"
    put(clip, flat / "train" / "a.mp4", flat / "test" / "b.mp4")
    rows = read_folder(flat)
    assert sorted(rows["split"]) == ["test", "train"]
    assert label_info(rows)[0] is None


@pytest.mark.parametrize("split", [("Train", "Test"), ("training", "testing"), ("TRAIN", "valid")])
def test_folders_of_splits_have_the_names_that_others_give_them(clip, tmp_path, split):
    put(clip, tmp_path / split[0] / "dog" / "a.mp4", tmp_path / split[1] / "dog" / "b.mp4")
    rows = read_folder(tmp_path)
    assert rows["split"][0] != rows["split"][1]
    assert set(rows["split"]) <= {"train", "validation", "test"}
    put(clip, tmp_path / "extra" / "c.mp4")
    with pytest.raises(ValueError, match=f"splits {', '.join(sorted(split))} beside extra: move these elsewhere"):
        read_folder(tmp_path)


def test_a_class_may_have_the_name_of_a_split(clip, tmp_path):
    put(clip, tmp_path / "train" / "a.mp4", tmp_path / "tram" / "b.mp4")
    rows = read_folder(tmp_path)
    assert label_info(rows)[0] == ["train", "tram"]


def test_clips_of_an_unknown_split_are_named(tmp_path, caplog):
    make_folder(tmp_path, {".": 3})
    (tmp_path / "list.csv").write_text("file,split\n0.mp4,trian\n1.mp4,Train\n2.mp4,test\n")
    build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, "train", False, 0)
    assert "1 clip of the split 'trian' not used: expected train, validation or test" in caplog.text


def test_csv_and_jsonl(clip, tmp_path):
    put(clip, tmp_path / "a.mp4", tmp_path / "sub" / "b, c.mp4")
    text = 'file,label,start,end\r\na.mp4,dog barking,0.5,1.5\r\n"sub/b, c.mp4",cat,1,\r\n'
    (tmp_path / "list.csv").write_bytes(text.encode("utf-8-sig"))
    rows = read_folder(tmp_path)
    assert names(rows, tmp_path) == ["a.mp4", "sub/b, c.mp4"]
    assert label_info(rows) == (["cat", "dog barking"], False)
    assert rows["label"] == [1, 0]
    assert (rows["start"], rows["end"]) == ([0.5, 1.0], [1.5, None])
    lines = [{"file": "a.mp4", "label": ["dog", "cat"], "split": "train"}, {"file": "sub/b, c.mp4", "label": ["cat"]}]
    (tmp_path / "list.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    with pytest.raises(ValueError, match=r"list\.csv, list\.jsonl"):
        read_folder(tmp_path)
    rows = read_folder(tmp_path, tmp_path / "list.jsonl")
    assert label_info(rows) == (["cat", "dog"], True)
    assert rows["label"] == [[1, 0], [0]]
    assert rows["split"] == ["train", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.mp4,dog\n", "line 2.*'file'"),
        ("file,start\na.mp4,soon\n", "line 2.*'soon'"),
        ("file,start,end\na.mp4,0,1\na.mp4,3,2\n", "line 3.*end after start"),
    ],
)
def test_invalid_annotations_name_the_line(tmp_path, text, message):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_annotations(path)


def test_invalid_folders_raise(clip, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a folder"):
        read_folder(tmp_path / "absent")
    with pytest.raises(ValueError, match="found no videos"):
        read_folder(tmp_path)
    put(clip, tmp_path / "a.mp4", tmp_path / "dog" / "b.mp4")
    with pytest.raises(ValueError, match="1 video is in folders and 1 in none, first: a.mp4. Move it"):
        read_folder(tmp_path)
    (tmp_path / "list.csv").write_text("file,label\na.mp4,x\ngone.mp4,y\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files.*gone\.mp4"):
        read_folder(tmp_path)
    (tmp_path / "list.csv").write_text("file,label\na.mp4,x\ndog/b.mp4,\n")
    with pytest.raises(ValueError, match="1 of 2 have none"):
        read_folder(tmp_path)
    (tmp_path / "list.txt").write_text("a.mp4")
    with pytest.raises(ValueError, match=r"\.csv or \.jsonl"):
        read_folder(tmp_path, tmp_path / "list.txt")


def test_clip_time():
    assert clip_time({"start": None, "end": None}, 3.0) is None
    assert clip_time({"start": 2.0, "end": 6.0}, 3.0) == 4.0
    assert clip_time({"start": None, "end": 6.0}, 3.0) == 3.0
    assert clip_time({"start": 2.0, "end": None}, 3.0) == 3.5


def test_held_out_clips_depend_on_names_alone():
    paths = [f"/data/dog/{i}.mp4" for i in range(50)]
    held, kept = hold_out(paths, 0.2, True), hold_out(paths, 0.2, False)
    assert len(held) == 10
    assert sorted(held + kept) == list(range(50))
    elsewhere = [f"/other/place/dog/{i}.mp4" for i in range(50)]
    assert order_by_name(elsewhere) == order_by_name(paths)
    backwards = paths[::-1]
    assert {backwards[i] for i in hold_out(backwards, 0.2, True)} == {paths[i] for i in held}
    assert len(hold_out(paths[:2], 0.01, True)) == len(hold_out(paths[:2], 0.99, False)) == 1
    with pytest.raises(ValueError, match="between 0 and 1"):
        hold_out(paths, 1.0, True)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("seed", range(6))
def test_every_class_of_two_recordings_or_more_is_held_out_in_part(seed, fraction):
    random = np.random.default_rng(seed)
    classes = [[int(label)] for label in random.integers(0, 7, random.integers(2, 60))]
    groups = [f"{label}/{random.integers(0, 9)}" for (label,) in classes]
    held, kept = (hold_out(groups, fraction, out, classes) for out in (True, False))
    assert sorted(held + kept) == list(range(len(groups)))
    assert not {groups[i] for i in held} & {groups[i] for i in kept}
    for label in range(7):
        own = {group for group, (other,) in zip(groups, classes, strict=True) if other == label}
        out = {groups[i] for i in held} & own
        assert len(out) == min(max(1, round(fraction * len(own))), len(own) - 1) if own else not out


def test_recordings_of_several_classes_stay_together_and_leave_training_clips():
    groups = ["a", "a", "b", "c", "d", "d"]
    classes = [[0], [1], [0], [1], [0, 2], []]
    held, kept = (hold_out(groups, 0.5, out, classes) for out in (True, False))
    assert sorted(held + kept) == list(range(6))
    assert not {groups[i] for i in held} & {groups[i] for i in kept}
    assert {0, 1, 2} <= {label for i in kept for label in classes[i]}
    assert {label for i in held for label in classes[i]} == {0, 1}


def make_folder(root: Path, sizes: dict[str, int]) -> dict:
    """Empty files in a folder per class, which say how they are divided but cannot be read."""
    for label, size in sizes.items():
        for i in range(size):
            path = root / label / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return {"name": "folder", "path": str(root)}


def test_a_folder_is_divided_by_class_and_says_so(tmp_path):
    settings = make_folder(tmp_path, {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2, "f": 2, "g": 2})
    train, held = (build_dataset(settings, MODEL, split, False, 0) for split in ("train", "test"))
    assert (len(train), len(held)) == (7, 3)
    assert {label for (label,) in held.classes()} == {4, 5, 6}
    assert train.card == "folder, split train, 3 of 10 clips held out by class: 7 clips, 7 classes"
    notes = Recognition.training_notes(train, held)
    assert notes == ["4 of 7 classes have no held-out clips (a single recording cannot be split): a, b, c, d"]
    Recognition.check_split(train, held)
    assert share_files(held, build_dataset(settings, MODEL, "validation", False, 0))  # a folder has one split
    assert not share_files(train, held)
    recipe = SimpleNamespace(data=SimpleNamespace(eval_size=1))
    few = build_dataset(settings | {"eval_size": 1}, MODEL, "test", False, 0)
    (note,) = Recognition.training_notes(train, few, recipe)
    assert note.startswith("6 of 7 classes have no held-out clips (data.eval_size=1): a, b, c, d")
    whole = build_dataset(settings | {"validation_fraction": WHOLE}, MODEL, "test", False, 0)
    assert whole.card == "folder, split test, the whole folder: 10 clips, 7 classes"


@pytest.mark.parametrize(("labels", "defined"), [(["a", "b"], False), (["a"], True)])
def test_clips_with_all_labels_or_none_cannot_be_ranked(labels, defined):
    """Mean average precision is undefined, which is answered before the training."""

    def clips(rows):
        given = [{"path": f"{i}.mp4", "label": row} for i, row in enumerate(rows)]
        return FileClips(make_rows(given), DeepAVFusionProcessor.from_config(MODEL), train=False, seed=0)

    train, held = clips([["a", "b"], ["b"]]), clips([["a", "b"], labels])
    if defined:
        Recognition.check_split(train, held)
    else:
        with pytest.raises(
            ValueError, match=r"each class is in all of the clips .* \(2 clips\), of which mAP is undef"
        ):
            Recognition.check_split(train, held)


def test_a_folder_for_each_video_is_divided_but_trains_no_classes(tmp_path):
    settings = make_folder(tmp_path, dict.fromkeys("abcdefghijkl", 1))
    train, held = (build_dataset(settings, MODEL, split, False, 0) for split in ("train", "test"))
    assert (len(train), len(held)) == (11, 1)
    assert "1 of 12 clips held out:" in held.card
    with pytest.raises(ValueError, match="none of the classes that are held out has training clips"):
        Recognition.check_split(train, held)


def test_parts_of_a_recording_are_held_out_together(tmp_path):
    lines = [{"file": f"{i}.mp4", "label": "ab"[i % 2], "recording": i // 5} for i in range(20)]
    make_folder(tmp_path, {".": 20})
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = {"name": "folder", "path": str(tmp_path), "validation_fraction": 0.25}
    train, held = (build_dataset(settings, MODEL, split, False, 0) for split in ("train", "test"))
    assert len(held) == 5
    assert not set(train.rows["recording"]) & set(held.rows["recording"])
    video = make_folder(tmp_path / "named", {})
    put_names = [f"AbCdEfGhI{i // 4:02d}_{10 * i:06d}_{10 * i + 10:06d}.mp4" for i in range(12)]
    for name in put_names:
        (tmp_path / "named" / "dog" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "named" / "dog" / name).touch()
    assert len(build_dataset(video, MODEL, "test", False, 0)) == 4


def held_out_names(settings):
    return {os.path.basename(path) for path in build_dataset(settings, MODEL, "test", False, 0).rows["path"]}


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("listed", [False, True])
def test_links_to_one_file_are_held_out_together(link, listed, tmp_path):
    root = tmp_path / "root"
    settings = make_folder(root, {".": 20}) | {"validation_fraction": 0.5}
    before = held_out_names(settings)
    for number in range(20):
        link(root / f"{number}.mp4", root / f"linked {number}.mp4")
    if listed:
        (root / "list.csv").write_text("\n".join(["file", *(path.name for path in sorted(root.glob("*.mp4")))]))
    held = held_out_names(settings)
    assert {name for name in held if not name.startswith("linked")} == {name.removeprefix("linked ") for name in held}
    assert len(held) == 20
    assert held >= before  # by the names of the files, as without links


def test_links_that_lead_nowhere_or_elsewhere_are_files_of_their_own(tmp_path):
    for name in ("a/0.mp4", "a/1.mp4", "other/2.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "2.mp4").symlink_to(tmp_path / "other" / "2.mp4")
    (tmp_path / "a" / "gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a" / "abcDEF-1234_000030_000040.mp4").hardlink_to(tmp_path / "a" / "1.mp4")
    paths = [str(path) for path in sorted((tmp_path / "a").iterdir())]
    assert recordings_of(paths) == [paths[0], "abcDEF-1234", paths[2], "abcDEF-1234", paths[4]]
    beside = [*paths, str(tmp_path / "b" / "0.mp4")]  # by way of a linked folder
    assert recordings_of(beside)[-1] == recordings_of(beside)[0] == paths[0]
    assert linked_files(["nowhere/0.mp4", "0.mp4"]) == {}


def test_one_recording_cannot_be_divided(tmp_path):
    settings = make_folder(tmp_path, {"a": 1})
    message = r"the split 'test' in .*, found 1 clip of 1 recording in all, and .*: add clips of other recordings"
    with pytest.raises(ValueError, match=message):
        build_dataset(settings, MODEL, "test", False, 0)
    assert len(build_dataset(settings | {"validation_fraction": WHOLE}, MODEL, "test", False, 0)) == 1


def test_clips_without_a_split_are_counted(tmp_path, caplog):
    make_folder(tmp_path, {".": 3})
    (tmp_path / "list.csv").write_text("file_name;split\n0.mp4;val\n1.mp4;train\n2.mp4;\n")
    assert len(build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, "validation", False, 0)) == 1
    assert "1 of 3 clips have no split and are not used" in caplog.text


def test_files_outside_of_a_folder_need_a_permission(tmp_path):
    make_folder(tmp_path, {".": 2, "root": 1})
    (tmp_path / "root" / "list.csv").write_text("file,split\n../0.mp4,test\n../1.mp4,test\n")
    settings = {"name": "folder", "path": str(tmp_path / "root")}
    with pytest.raises(ValueError, match=r"names 2 of 2 files outside of .*data\.allow_outside=true"):
        build_dataset(settings, MODEL, "test", False, 0)
    assert len(build_dataset(settings | {"allow_outside": True}, MODEL, "test", False, 0)) == 2


def test_classes_are_matched_with_those_of_a_model_by_name(tmp_path):
    settings = make_folder(tmp_path, {"dog_barking": 2, "Cello": 1, "siren": 3})
    config = DeepAVFusionConfig(id2label={0: "rain", 1: "cello", 2: "dog barking"})
    clips = build_dataset(settings | {"validation_fraction": WHOLE}, MODEL, "test", False, 0)
    matched, notes, left_out = Recognition.match_clips(clips, config)
    assert matched.label_names == ["rain", "cello", "dog barking"]
    assert [(Path(row["path"]).parent.name, row["label"]) for row in matched.rows] == [
        ("Cello", 1),
        ("dog_barking", 2),
        ("dog_barking", 2),
    ]
    assert notes == [
        "Cello of the data is cello of the model",
        "dog_barking of the data is dog barking of the model",
        "Classes of the model without clips here (1 of 3): rain",
        "Classes here that the model does not know (1): siren",
    ]
    assert left_out == {"clips of classes that the model does not know": 3}
    same, *others = Recognition.match_clips(matched, config)
    assert (same.label_names, same.rows["label"], others) == (matched.label_names, matched.rows["label"], [[], {}])


def test_several_labels_are_matched_by_name(tmp_path):
    make_folder(tmp_path, {".": 3})
    lines = [{"file": f"{i}.mp4", "label": labels} for i, labels in enumerate((["a", "b"], ["b"], ["b", "c"]))]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = {"name": "folder", "path": str(tmp_path), "validation_fraction": WHOLE}
    clips = build_dataset(settings, MODEL, "test", False, 0)
    matched = clips.with_classes(["c", "a"], {"a": 1, "c": 0})
    assert matched.multi_label
    assert matched.rows["label"] == [[1], [0]]


def test_clips_match_the_processor(clip, tmp_path):
    put(clip, tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "list.csv").write_text("file,label,start,end\na.mp4,x,0.0,1.0\nb.mp4,y,,\n")
    for model in (MODEL, VIDEO):
        clips = build_dataset({"name": "folder", "path": str(tmp_path)}, model, "train", False, 0)
        others = build_dataset({"name": "folder", "path": str(tmp_path)}, model, "test", False, 0)
        processor = DeepAVFusionProcessor.from_config(model)
        for sample in (clips[0], others[0]):
            time = 0.5 if sample["path"].endswith("a.mp4") else None
            expected = processor(videos=sample["path"], timestamps=time)
            assert torch.equal(sample["pixel_values"], expected["pixel_values"][0])
            assert torch.equal(sample["input_features"], expected["input_features"][0])
            assert sample["label"] == (0 if time else 1)
        assert {clips.describe(0), others.describe(0)} == {str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")}
        assert clips.label_names == ["x", "y"]
        assert clips.ceilings is None


def test_augmentation_depends_on_seed_epoch_and_index_alone(clip, tmp_path):
    put(clip, *(tmp_path / f"{i}.mp4" for i in range(3)))
    settings = {"name": "folder", "path": str(tmp_path)}
    clips = build_dataset(settings, VIDEO, "train", True, 3)
    clips.set_epoch(4)
    both = clips.__getitems__([0, 1])
    other = build_dataset(settings, VIDEO, "train", True, 3)
    plain = other[1]
    other.set_epoch(4)
    again = other[1]
    reseeded = build_dataset(settings, VIDEO, "train", True, 5)
    reseeded.set_epoch(4)
    for key in ("pixel_values", "input_features"):
        assert torch.equal(again[key], both[1][key])
        assert not torch.equal(plain[key], both[1][key])
        assert not torch.equal(reseeded[1][key], both[1][key])


def test_broken_clips_are_reported_and_not_replaced(clip, tmp_path):
    put(clip, tmp_path / "x" / "good.mp4", tmp_path / "y" / "good too.mp4")
    (tmp_path / "x" / "empty.mp4").touch()
    (tmp_path / "y" / "text.mp4").write_text("not a video")
    rows = read_folder(tmp_path)
    from deepavfusion.training.data import FileClips

    clips = FileClips(rows, DeepAVFusionProcessor.from_config(MODEL), train=True, seed=0)
    batch = next(iter(DataLoader(clips, batch_size=4, collate_fn=clips.collate, num_workers=1)))
    assert batch["path"] == [str(tmp_path / "x" / "good.mp4"), str(tmp_path / "y" / "good too.mp4")]
    assert batch["index"].tolist() == [1, 2]
    assert batch["labels"].tolist() == [0, 1]
    assert batch["pixel_values"].shape == (2, 3, 32, 32)
    assert [path for path, _ in batch["broken"]] == [
        str(tmp_path / "x" / "empty.mp4"),
        str(tmp_path / "y" / "text.mp4"),
    ]
    assert all(reason for _, reason in batch["broken"])
    broken = clips[0]
    assert isinstance(broken, BrokenClip)
    assert broken.index == 0
    nothing = collate_clips([broken])
    assert "pixel_values" not in nothing
    assert nothing["path"] == []
    assert nothing["broken"] == [(broken.path, broken.reason)]


def test_sizes_and_multiple_labels(clip, tmp_path):
    put(clip, *(tmp_path / f"{i}.mp4" for i in range(6)))
    lines = [
        {"file": f"{i}.mp4", "label": ["a", "b"][: 1 + i % 2], "split": "train" if i else "test"} for i in range(6)
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    clips = build_dataset({"name": "folder", "path": str(tmp_path), "train_size": 3}, MODEL, "train", True, 0)
    assert len(clips) == 3
    assert clips.multi_label
    assert {tuple(clips[i]["label"].tolist()) for i in range(3)} <= {(1.0, 0.0), (1.0, 1.0)}
    assert "0.mp4" in build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, "test", False, 0).describe(0)
    with pytest.raises(ValueError, match="splits test, train"):
        build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, "validation", False, 0)


# VGGSound and AudioSet


def test_class_folders():
    assert class_folder("child speech, kid speaking") == "child_speech__kid_speaking"
    assert class_folder("vehicle horn, car horn, honking") == "vehicle_horn__car_horn__honking"
    assert class_folder("people eating (noisily)") == "people_eating__noisily_"


def make_vggsound(clip: Path, root: Path) -> None:
    (root / "annotations").mkdir(parents=True)
    lines = ["-a,10,dog barking,train", 'b_c,5,"child speech, kid speaking",test', "gone,7,dog barking,train"]
    (root / "annotations" / "vggsound.csv").write_bytes("\r\n".join([*lines, ""]).encode())
    put(clip, root / "clips" / "dog_barking" / "-a_000010_000020.mp4")
    put(clip, root / "clips" / "child_speech__kid_speaking" / "b_c_000005_000015.mkv")
    put(clip, root / "clips" / "dog_barking" / "extra_000000_000010.mp4")


def test_vggsound_layout(clip, tmp_path, caplog):
    make_vggsound(clip, tmp_path)
    with caplog.at_level(logging.WARNING):
        rows = read_vggsound(tmp_path)
    assert names(rows, tmp_path / "clips") == [
        "dog_barking/-a_000010_000020.mp4",
        "child_speech__kid_speaking/b_c_000005_000015.mkv",
    ]
    assert label_info(rows) == (["child speech, kid speaking", "dog barking"], False)
    assert rows["split"] == ["train", "test"]
    assert "1 of 3 annotated clips are missing, first: dog_barking/gone_000007" in caplog.text
    assert "1 clips on disk are not annotated" in caplog.text
    train = build_dataset({"name": "vggsound", "path": str(tmp_path)}, MODEL, "train", True, 0)
    assert len(train) == 1
    assert len(train.label_names) == 2
    assert train[0]["label"] == 1
    with pytest.raises(ValueError, match="no validation split"):
        build_dataset({"name": "vggsound", "path": str(tmp_path)}, MODEL, "validation", True, 0)


@pytest.mark.parametrize("start", ["10", "10.0", " 10"])
@pytest.mark.parametrize("header", ["", "YTID,start,label,split\n"])
@pytest.mark.parametrize("name", ["aaaaaaaaaaa_10.mp4", "Yaaaaaaaaaaa.webm", "aaaaaaaaaaa_10000_20000.mp4"])
def test_vggsound_as_it_is_downloaded(tmp_path, name, header, start):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "vggsound.csv").write_text(f'{header}aaaaaaaaaaa,{start},"dog, big",train\n')
    (tmp_path / name).touch()
    train = build_dataset({"name": "vggsound", "path": str(tmp_path)}, MODEL, "train", True, 0)
    assert train.rows["clip"] == ["aaaaaaaaaaa_000010"]
    assert train.rows["recording"] == ["aaaaaaaaaaa"]
    assert train.describe(0) == str(tmp_path / name)


def test_clips_that_are_named_twice_are_used_once(tmp_path, caplog):
    path = tmp_path / "vggsound.csv"
    path.write_text("a,1,dog,train\nb,2,cat,test\na,1,dog,train\nb,2,cat,train\nc,1,dog,test\n")
    rows = read_vggsound_csv(path)
    assert [(row["id"], row["split"]) for row in rows] == [("a", "train"), ("b", "test"), ("c", "test")]
    assert f"{path}: 2 lines name a clip again and are not used, 1 of them with something else, first: b_000002" in (
        caplog.text
    )
    caplog.clear()
    path = tmp_path / "segments.csv"
    path.write_text("a,1.0,9.0,/m/1\na,1.0,9.0,/m/1\n")
    assert len(read_segments(path)) == 1
    assert f"{path}: 1 lines name a clip again and are not used, first: a_000001" in caplog.text


def test_missing_vggsound_raises(clip, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vggsound\.csv"):
        read_vggsound(tmp_path)
    make_vggsound(clip, tmp_path)
    shutil.rmtree(tmp_path / "clips" / "dog_barking")
    with pytest.raises(FileNotFoundError, match="None of VGGSound's 2 clips annotated as train.*-a_000010"):
        read_vggsound(tmp_path, "train")
    with pytest.raises(ValueError, match="train or test"):
        read_vggsound(tmp_path, "dev")
    (tmp_path / "annotations" / "vggsound.csv").write_text("id,start,label\n")
    with pytest.raises(ValueError, match="line 1"):
        read_vggsound(tmp_path)


@pytest.mark.skipif(not (MEDIA / "vggsound").is_dir(), reason="no real clips in ../shared/media")
def test_real_vggsound_clips():
    root = MEDIA / "vggsound"
    rows = read_vggsound(root)
    assert len(rows) == len(read_vggsound_csv(root / "annotations" / "vggsound.csv")) == 9
    assert label_info(rows)[0][-1] == "waterfall burbling"
    clips = build_dataset({"name": "vggsound", "path": str(root)}, MODEL, "test", True, 0)
    other = build_dataset({"name": "vggsound", "path": str(root)}, MODEL, "train", True, 0)
    assert len(clips) + len(other) == 9
    batch = clips.collate(clips.__getitems__([0, 4, 7]))
    assert batch["broken"] == []
    assert batch["pixel_values"].shape == (3, 3, 32, 32)
    assert torch.isfinite(batch["input_features"]).all()
    folder = build_dataset({"name": "folder", "path": str(root)}, MODEL, "train", True, 0)
    held = build_dataset({"name": "folder", "path": str(root)}, MODEL, "validation", False, 0)
    assert len(folder) + len(held) == 9
    assert "playing_bongo" in folder.label_names


def test_audioset_layout(clip, tmp_path, caplog):
    labels = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n2,/m/0bt9lr,"Dog"\n'
    (tmp_path / "class_labels_indices.csv").write_text(labels)
    header = "# Segments csv created Sun Mar  5 10:54:31 2017\n# YTID, start_seconds, end_seconds, positive_labels\n"
    (tmp_path / "balanced_train_segments.csv").write_text(header + '--a, 30.000, 40.000, "/m/09x0r,/m/0bt9lr"\n')
    (tmp_path / "unbalanced_train_segments.csv").write_text("YTID,start_seconds,end_seconds,positive_labels\r\n")
    (tmp_path / "eval_segments.csv").write_text("x-y,0.000,10.000,/m/05zppz\r\ngone,1.000,2.000,/m/09x0r\r\n")
    put(clip, tmp_path / "clips" / "--" / "--a_000030_000040.mp4", tmp_path / "clips" / "x-" / "x-y_000000_000010.mp4")
    rows = read_audioset(tmp_path)
    assert rows["label"] == [[0, 2]]
    assert label_info(rows) == (["Speech", "Male speech, man speaking", "Dog"], True)
    with caplog.at_level(logging.WARNING):
        test = build_dataset({"name": "audioset", "path": str(tmp_path)}, MODEL, "test", False, 0)
    assert "1 of 2 annotated clips are missing" in caplog.text
    assert test.multi_label
    assert test[0]["label"].tolist() == [0.0, 1.0, 0.0]
    (tmp_path / "eval_segments.csv").write_text("x-y,zero,10.000,/m/05zppz\n")
    with pytest.raises(ValueError, match="expected id, start, end, labels"):
        read_audioset(tmp_path, ("eval",))


@pytest.mark.skipif(not (MEDIA / "annotations-samples").is_dir(), reason="no annotation samples in ../shared/media")
def test_real_audioset_annotations():
    segments = read_segments(MEDIA / "annotations-samples" / "head_jarammm_balanced_train_segments.csv")
    assert segments[0] == {"id": "--PJHxphWEs", "start": 30.0, "end": 40.0, "mids": ["/m/09x0r", "/t/dd00088"]}


def test_media_files_of_other_kinds_are_counted_once(clip, tmp_path, caplog):
    for name in ("a/x.mp4", "b/y.mp4"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(clip, tmp_path / name)
    for name in ("a/x.jpg", "b/y.PNG", "b/y.wav", "notes.txt"):
        (tmp_path / name).touch()
    for split in ("train", "test"):
        build_dataset({"name": "folder", "path": str(tmp_path)}, MODEL, split, train=False, seed=0)
    said = [record.message for record in caplog.records if "left out" in record.message]
    assert said == [f"{tmp_path}: 2 images and 1 audio file left out: a folder stands for its videos"]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    with pytest.raises(ValueError, match="found no videos but 1 image: clips hold both images and audio."):
        read_folder(photos)


@pytest.mark.parametrize(("beside", "advice"), [(1, "1 in none, first: y0.mp4. Move it"), (2, "Move these into")])
def test_videos_beside_folders_of_classes_are_answered_with_what_to_do(clip, tmp_path, beside, advice):
    (tmp_path / "a").mkdir()
    shutil.copy(clip, tmp_path / "a" / "x.mp4")
    for index in range(beside):
        shutil.copy(clip, tmp_path / f"y{index}.mp4")
    with pytest.raises(ValueError, match=f"{tmp_path} 1 video is in folders and .*{advice}"):
        read_folder(tmp_path)


def test_names_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "a.mp4").touch()
    open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "wb").close()
    with pytest.raises(ValueError, match=r"names of files in UTF-8, but that of .*/caf\udce9\.mp4 is not: rename it"):
        read_folder(tmp_path)
