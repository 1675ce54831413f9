"""Which clips a model was trained on: known by digests in other folders, in shards and after changes."""

import shutil

import numpy as np
import pytest

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.frames import Still
from deepavfusion.training.data.identity import ClipDigests, TrainingClips, contents_of, leaving_out, training_clips
from deepavfusion.training.data.identity.clips import FILE
from deepavfusion.training.data.sets.folder import WHOLE, read_folder
from deepavfusion.training.data.shards import Encoding, Preparation, finish, prepare
from deepavfusion.training.data.stills import MaskClips

from .disk import MODEL, make_clips, put, write

ALL = {"name": "folder", "validation_fraction": WHOLE}


def clips_of(path, split="test", task="recognition", **options):
    return build_dataset(ALL | {"path": str(path), **options}, MODEL, split, split == "train", 0, task=task)


def names(clips):
    return sorted(path.rpartition("/")[2] for path in clips.rows["path"])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Six clips of two classes, each with a content of its own."""
    root = tmp_path_factory.mktemp("videos") / "videos"
    for number, path in enumerate(make_clips(root.parent / "clips", 6, seconds=1.0)):
        put(path, root / "ab"[number % 2] / f"clip{number}.mp4")
    return root


@pytest.fixture(scope="module")
def trained(videos):
    """Clips of a training with a third held out."""
    return training_clips(clips_of(videos, "train", validation_fraction=0.34))


def held_out(videos):
    return names(clips_of(videos, validation_fraction=0.34))


def test_what_was_held_out_is_left_wherever_the_folder_is(videos, trained, tmp_path, monkeypatch):
    assert len(trained) == 4
    shutil.copytree(videos, tmp_path / "moved")
    (tmp_path / "moved" / "a").rename(tmp_path / "moved" / "z")  # classes are not what a clip is known by
    shutil.copytree(videos, tmp_path / "flat" / "deeper")
    monkeypatch.chdir(tmp_path)
    for folder in (videos, tmp_path / "moved", "moved", "flat"):
        with leaving_out(trained) as left:
            clips = clips_of(folder)
        assert names(clips) == held_out(videos)
        assert (left.clips, left.total) == (4, 6)
        assert "the whole folder, without 4 clips of the training: 2 clips" in clips.card
    with leaving_out(trained):  # pairs are formed of what is left
        assert len(clips_of(videos, task="separation")) == 2
    assert len(clips_of(videos)) == 6
    with leaving_out(None) as left:
        assert (left, len(clips_of(videos))) == (None, 6)


def test_other_fractions_and_fewer_clips_change_nothing_of_what_was_trained_on(videos, trained, tmp_path):
    with leaving_out(trained):
        assert set(names(clips_of(videos, validation_fraction=0.7))) <= set(held_out(videos))
    folder = shutil.copytree(videos, tmp_path / "fewer")
    gone, *others = held_out(videos)
    next(folder.rglob(gone)).unlink()
    with leaving_out(trained):
        assert names(clips_of(folder)) == others
    next(folder.rglob(others[0])).unlink()
    expected = (
        r"Expected clips that the model was not trained on in folder, split test of .*fewer, found none: .* its 4 c"
    )
    with leaving_out(trained), pytest.raises(ValueError, match=expected):
        clips_of(folder)


def test_a_clip_of_the_same_name_and_another_size_is_another(videos, trained, tmp_path):
    folder = shutil.copytree(videos, tmp_path / "changed")
    one = next(path for path in sorted(folder.rglob("*.mp4")) if path.name not in held_out(videos))
    one.write_bytes(one.read_bytes() + b"\0")
    with leaving_out(trained):
        assert names(clips_of(folder)) == sorted([*held_out(videos), one.name])


@pytest.mark.parametrize("direction", ["trained on shards", "trained on the folder"])
def test_shards_hold_the_clips_of_their_folder(direction, videos, trained, tmp_path):
    preparation = Preparation({None: read_folder(videos)}, str(videos), ABOUT, Encoding(fps=10, short_side=48))
    assert sum(prepare(preparation, tmp_path / "out")) == 6
    finish(preparation, tmp_path / "out")
    scored = {"path": tmp_path / "out", "name": "shards"}
    if direction == "trained on shards":
        trained, scored = training_clips(clips_of(split="train", **scored, validation_fraction=0.34)), {"path": videos}
    with leaving_out(trained) as left:
        clips = clips_of(**scored)
    assert names(clips) == held_out(videos)
    assert (left.clips, left.total) == (4, 6)
    assert "the whole folder" in clips.card


ABOUT = {"data": "folder", "kind": "videos", "tasks": ["recognition", "separation"], "options": {}}


def test_other_clips_of_a_recording_are_left_out_unless_splits_are_given(videos, tmp_path):
    folder = tmp_path / "parts"
    put(next(videos.rglob("clip0.mp4")), folder / "long.mp4")
    put(next(videos.rglob("clip1.mp4")), folder / "other.mp4")
    train, rest = "long.mp4,a,0,0.5", "long.mp4,a,0.5,1\nother.mp4,b,0,1"
    first = write(folder / "list.csv", f"file,label,start,end\n{train}\n")
    trained = training_clips(clips_of(folder, "train", validation_fraction=None, annotations=str(first)))
    assert len(trained) == 1
    write(first, f"file,label,start,end\n{train}\n{rest}\n")
    with leaving_out(trained) as left:
        assert names(clips_of(folder)) == ["other.mp4"]
    assert left.clips == 2
    lines = [f"{line},test" for line in (train, *rest.split("\n"))]
    write(first, "\n".join(["file,label,start,end,split", *lines]))
    with leaving_out(trained) as left:  # its other part is of the test, by decision
        assert names(clips_of(folder)) == ["long.mp4", "other.mp4"]
    assert left.clips == 1


def test_windows_of_a_clip_are_one_clip_and_frames_are_of_their_files(videos, tmp_path):
    several = clips_of(videos, "train", validation_fraction=0.34, windows_per_clip=3)
    assert (len(several), len(training_clips(several))) == (12, 4)
    clip, other = (str(next(videos.rglob(name))) for name in ("clip0.mp4", "clip1.mp4"))
    stills = [Still(f"{number}.png", audio, 0.1, f"{number}.png") for number, audio in enumerate((clip, clip, other))]
    frames = training_clips(MaskClips(stills, DeepAVFusionProcessor.from_config(MODEL), True, 0))
    assert frames.among(ClipDigests.of_rows(read_folder(videos))).sum() == len(frames) == 2
    scenes = build_dataset({"name": "scenes", "train_size": 4}, MODEL, "train", True, 0)
    assert len(training_clips(scenes)) == 0
    with leaving_out(training_clips(scenes)) as left:
        assert len(clips_of(videos)) == 6
    assert left.clips == 0


def test_digests_are_stored_whole_and_say_no_names(trained, tmp_path):
    path = tmp_path / FILE
    path.write_bytes(trained.to_bytes())
    read = TrainingClips.read(path)
    assert all(
        np.array_equal(getattr(read.digests, name), getattr(trained.digests, name)) for name in vars(read.digests)
    )
    assert len(read | trained) == 4
    more = TrainingClips(ClipDigests.of(["x/new.mp4"], [5]))
    assert (len(read | more), (read | more).among(ClipDigests.of(["new.mp4", "new.mp4"], [5, 6])).tolist()) == (
        5,
        [True, False],
    )
    assert not any(text in path.read_bytes() for text in (b"clip0", b"clip1", b".mp4", b"videos"))
    for content in (b"", path.read_bytes()[:-100], b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{FILE} is damaged: expected digests of the clips"):
            TrainingClips.read(path)


def test_names_of_file_and_folder_count_where_a_size_is_unknown():
    known, unknown = ClipDigests.of(["x/a/1.mp4"], [5]), ClipDigests.of(["y/a/1.mp4"], [None])
    assert TrainingClips(known).among(unknown).tolist() == [True]
    assert TrainingClips(unknown).among(known).tolist() == [True]
    others = ClipDigests.of(["a/1.mp4", "b/1.mp4", "a/2.mp4"], [6, None, None])
    assert TrainingClips(known).among(others).tolist() == [False, False, False]
    assert TrainingClips(unknown).among(others).tolist() == [True, False, False]
    composed, decomposed = "\u00e9.mp4", "e\u0301.mp4"  # as file systems write it
    assert TrainingClips(ClipDigests.of([composed], [5])).among(ClipDigests.of([decomposed], [5])).all()


def test_contents_are_the_clips_in_their_order_wherever_they_are(videos, tmp_path):
    first = contents_of(clips_of(videos))
    assert first | {"digest": None} == {"items": 6, "classes": ["a", "b"], "digest": None}
    copy = shutil.copytree(videos, tmp_path / "other")
    assert contents_of(clips_of(copy)) == first
    assert contents_of(clips_of(copy), classes=False) == first | {"classes": None}
    found = {first["digest"]}
    lines = [f"{path.parent.name}/{path.name},{path.parent.name},0,1" for path in sorted(copy.rglob("*.mp4"))]
    for changed in (
        lines,
        lines[::-1],
        lines[1:],
        [line.replace(",0,1", ",0,0.5") for line in lines],
        [*lines[:-1], lines[0]],
    ):
        text = "\n".join(["file,label,start,end", *changed])
        found.add(contents_of(clips_of(copy, annotations=str(write(tmp_path / "list.csv", text))))["digest"])
    relabeled = [lines[0].replace("a,0", "b,0"), *lines[1:]]
    write(tmp_path / "list.csv", "\n".join(["file,label,start,end", *relabeled]))
    found.add(contents_of(clips_of(copy, annotations=str(tmp_path / "list.csv")))["digest"])
    (copy / "a" / "clip0.mp4").rename(copy / "a" / "clip00.mp4")
    found.add(contents_of(clips_of(copy))["digest"])
    assert len(found) == 8
    pairs = contents_of(clips_of(videos, task="separation"))
    assert (pairs["items"], pairs["classes"]) == (6, None)
    stills = [Still(f"{number}.png", "clip.mp4", 0.1, f"{number}.png") for number in range(3)]
    processor = DeepAVFusionProcessor.from_config(MODEL)
    frames = [contents_of(MaskClips(some, processor, False, 0)) for some in (stills, stills[::-1], stills[1:])]
    assert len({part["digest"] for part in frames}) == 3
    scenes = contents_of(build_dataset({"name": "scenes", "train_size": 4}, MODEL, "train", True, 0))
    assert (scenes["items"], scenes["digest"]) == (4, None)
