"""Lists of usable clips: what training reads from them, and what makes them unusable."""

import logging
import os
import shutil
import time
from pathlib import Path

import pytest

import deepavfusion_cli as cli
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.checked import Finding, read_listing, write_listing
from deepavfusion.training.data.sets.folder import make_rows
from deepavfusion.training.data.sources import DATA_SETS
from tests.training.data.disk import MODEL, make_clips, put, write
from tests.training.data.sets.test_avsbench import make_semantic

LABELS = ("dog barking", "cat, meowing")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("made"), 2, seconds=1.0)


@pytest.fixture
def vggsound(made, tmp_path):
    """Six training and two test clips, a broken one among them, and their list."""
    root, lines = tmp_path / "set", []
    for i in range(8):
        label, split = LABELS[i % 2], "train" if i < 6 else "test"
        lines.append(f'video{i:06d},{i},"{label}",{split}\n')
        path = root / "clips" / ("dog_barking", "cat__meowing")[i % 2] / f"video{i:06d}_{i:06d}_{i + 10:06d}.mp4"
        if i == 3:
            write(path, "no video")
        else:
            put(made[i % 2], path)
    write(root / "annotations" / "vggsound.csv", "".join(lines))
    out = tmp_path / "lists" / "usable.parquet"
    assert cli.main(["data", "check", "vggsound", str(root), "--num-workers", "0", "--out", str(out)]) == 1
    return {"name": "vggsound", "path": str(root), "checked_list": str(out)}


def names(clips):
    return [os.path.basename(path)[:11] for path in clips.rows["path"]]


def test_training_reads_the_usable_clips_alone(vggsound, capsys):
    train = build_dataset(vggsound, MODEL, "train", True, 0)
    assert sorted(names(train)) == [f"video{i:06d}" for i in (0, 1, 2, 4, 5)]
    assert train.label_names == ["cat, meowing", "dog barking"]
    assert train[0]["pixel_values"].shape == (3, 32, 32)
    assert sorted(names(build_dataset(vggsound, MODEL, "test", False, 0))) == ["video000006", "video000007"]
    assert train.check == f"deepavfusion data check vggsound {vggsound['path']}"


def test_the_folder_is_not_searched(vggsound, monkeypatch):
    def search(*arguments):
        raise AssertionError("the folder is searched")

    monkeypatch.setattr("deepavfusion.training.data.sets.names.walk_files", search)
    assert len(build_dataset(vggsound, MODEL, "train", True, 0)) == 5
    with pytest.raises(AssertionError, match="searched"):
        build_dataset({k: v for k, v in vggsound.items() if k != "checked_list"}, MODEL, "train", True, 0)


def test_lengths_are_read_from_the_list(vggsound, monkeypatch):
    monkeypatch.setattr("deepavfusion.processors.probe_clip", None)  # which would open the files
    clips = build_dataset(vggsound | {"seconds_per_window": 0.25}, MODEL, "train", True, 0)
    assert len(clips) == 5 * 4


def test_a_copy_elsewhere_is_read_by_the_same_list(vggsound, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(vggsound["path"], there)
    train = build_dataset(vggsound | {"path": str(there)}, MODEL, "train", True, 0)
    assert all(path.startswith(str(there)) for path in train.rows["path"])
    assert train[0]["pixel_values"].shape == (3, 32, 32)


def refusal(options):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        build_dataset(options, MODEL, "train", True, 0)
    text = str(caught.value)
    assert "\n" not in text
    assert f"`deepavfusion data check {options['name']} {options['path']}" in text
    assert f"--out {options['checked_list']} --overwrite` writes it anew" in text
    return text


def test_lists_that_do_not_fit_are_refused_with_the_command_that_makes_one(vggsound, tmp_path):
    assert "found none" in refusal(vggsound | {"checked_list": str(tmp_path / "none.parquet")})
    other = write(tmp_path / "other.parquet", "no list")
    assert "is damaged, or no list of usable clips" in refusal(vggsound | {"checked_list": str(other)})
    assert "is of the data set vggsound, expected folder" in refusal(vggsound | {"name": "folder"})
    content = Path(vggsound["checked_list"]).read_bytes()
    for damaged in (content[: len(content) // 2], content[:100] + bytes(400) + content[500:], content[:-9] + bytes(9)):
        other.write_bytes(damaged)
        assert f"{other} is damaged, or no list of usable clips; `" in refusal(vggsound | {"checked_list": str(other)})
    listed = write(tmp_path / "train.txt", "video000000_000000\n")
    assert "with another data.train_list" in refusal(vggsound | {"train_list": str(listed)})
    assert "data.drop_overlap=None, expected True" in refusal(vggsound | {"drop_overlap": True})
    assert len(build_dataset(vggsound | {"drop_overlap": False}, MODEL, "train", True, 0)) == 5


def test_stale_lists_are_refused(vggsound, made):
    clips = build_dataset(vggsound, MODEL, "train", True, 0)
    gone = clips.rows["path"][0]
    os.rename(gone, f"{gone}.part")
    assert f"of 7 files looked up, 1 differ, first: {gone} is not there" in refusal(vggsound)
    write(made[0].parent / "short.mp4", "x").rename(gone)
    assert "has 1 bytes, expected" in refusal(vggsound)
    os.replace(f"{gone}.part", gone)
    annotations = os.path.join(vggsound["path"], "annotations", "vggsound.csv")
    with open(annotations, "a", encoding="utf-8") as file:
        file.write("video000009,9,dog barking,train\n")
    assert f"is out of date: {annotations} has changed since" in refusal(vggsound)


def test_clips_that_were_added_since_are_reported(vggsound, made, caplog):
    with caplog.at_level(logging.WARNING):
        build_dataset(vggsound, MODEL, "train", True, 0)
    assert "changed after" not in caplog.text
    folder = os.path.join(vggsound["path"], "clips", "dog_barking")
    os.utime(folder, (time.time() + 60,) * 2)
    with caplog.at_level(logging.WARNING):
        build_dataset(vggsound, MODEL, "train", True, 0)
    assert f"1 folder changed after {vggsound['checked_list']} was made, first: {folder}" in caplog.text
    assert "files that were added since are not used" in caplog.text


def test_a_list_is_written_whole_or_not_at_all(vggsound, capsys):
    before = read_listing(vggsound["checked_list"], vggsound).rows["path"][:]
    words = ["data", "check", "vggsound", vggsound["path"], "--num-workers", "0", "--out", vggsound["checked_list"]]
    assert cli.main(words) == 2
    assert "already exists" in capsys.readouterr().err
    assert cli.main([*words, "--overwrite"]) == 1
    assert read_listing(vggsound["checked_list"], vggsound).rows["path"][:] == before


def test_every_data_set_has_a_list():
    for name, data_set in DATA_SETS.items():
        assert ("checked_list" in data_set.options) == (name != "shards")


@pytest.fixture
def frames(made, tmp_path):
    """Frames with masks in two splits, one of which cannot be read, and their list."""
    root = tmp_path / "set"
    make_semantic(root)
    broken = next((root / "v1m").glob("*/frames/*.jpg"))
    write(broken, "no image")
    out = tmp_path / "usable.parquet"
    words = ["data", "check", "avsbench", str(root), "data.subset=avss", "--num-workers", "0", "--out", str(out)]
    assert cli.main(words) == 1
    return {"name": "avsbench", "path": str(root), "subset": "avss", "checked_list": str(out)}, str(broken)


def test_lists_of_frames_leave_out_what_cannot_be_read(frames, tmp_path):
    options, broken = frames
    files = {key: value for key, value in options.items() if key != "checked_list"}
    found, expected = [], []
    for split in ("train", "validation", "test"):
        found += build_dataset(options, MODEL, split, False, 0, task="segmentation", semantic=True).rows
        expected += build_dataset(files, MODEL, split, False, 0, task="segmentation", semantic=True).rows
    assert [still.mask for still in found] == [still.mask for still in expected if still.image != broken]
    assert len(found) == len(expected) - 1
    with pytest.raises(ValueError, match=r"data.subset=avss, expected s4; `deepavfusion data check avsbench"):
        build_dataset(options | {"subset": "s4"}, MODEL, "test", False, 0, task="segmentation")
    there = tmp_path / "there"
    shutil.move(options["path"], there)
    clips = build_dataset(options | {"path": str(there)}, MODEL, "test", False, 0, task="segmentation", semantic=True)
    assert clips[0]["labels"].shape == (32, 32)
    os.remove(clips.rows[0].image)
    with pytest.raises(ValueError, match=r"is out of date: of \d+ files looked up, 1 differ, first: .* is not there"):
        build_dataset(options | {"path": str(there)}, MODEL, "test", False, 0, task="segmentation")


def test_splits_whose_clips_are_all_in_others_are_in_the_list(made, tmp_path, capsys):
    """They are not read twice."""
    root, lines = tmp_path / "set", ["file,split"]
    put(made[0], root / "a.mp4")
    put(made[1], root / "b.mp4")
    lines += ["a.mp4,train", "b.mp4,train", "b.mp4,test"]
    write(root / "list.csv", "\n".join(lines))
    out = tmp_path / "usable.parquet"
    assert cli.main(["data", "check", "folder", str(root), "--num-workers", "0", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "2 clips checked: all can be read" in printed
    assert "overlap: 1 recording of the test split also in training, first: " in printed
    options = {"name": "folder", "path": str(root), "checked_list": str(out)}
    assert build_dataset(options, MODEL, "test", False, 0).rows["path"][:] == [str(root / "b.mp4")]
    assert len(build_dataset(options, MODEL, "train", True, 0)) == 2


def opening(root, number):
    """CPU seconds to open the training split of a list of so many clips."""
    rows = make_rows(
        [
            {"path": root / "clips" / f"{i % 309}" / f"{i:011d}.mp4", "label": f"{i % 309}", "recording": f"{i:011d}"}
            for i in range(number)
        ]
    )
    options = {"name": "vggsound", "path": str(root)}
    findings = [Finding(i, path, seconds=10.0) for i, path in enumerate(rows["path"][:])]
    out = root / f"{number}.parquet"
    assert write_listing(out, options, {"train": (rows, findings)}, [], time.time(), {}) == number
    for i in {round(k * (number - 1) / 31) for k in range(32)}:  # those that are looked up
        write(root / os.path.relpath(findings[i].path, root), "")
    start = time.process_time()
    assert len(build_dataset(options | {"checked_list": str(out)}, MODEL, "train", True, 0)) == number
    return time.process_time() - start


def test_a_long_list_opens_at_once(tmp_path):
    assert opening(tmp_path, 10_000) < 1


@pytest.mark.slow
def test_a_list_of_200000_clips_opens_in_seconds(tmp_path):
    assert opening(tmp_path, 200_000) < 5
