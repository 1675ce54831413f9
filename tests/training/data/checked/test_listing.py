"""Lists of usable clips: what training reads from them, and what makes them unusable."""

import logging
import os
import shutil
import time

import pytest

import deepavfusion_cli as cli
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.checked import Finding, read_listing, write_listing
from deepavfusion.training.data.sets.folder import make_rows
from tests.training.data.disk import MODEL, make_clips, put, write

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
    out = tmp_path / "usable.parquet"
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
    assert "is no list of usable clips" in refusal(vggsound | {"checked_list": str(other)})
    assert "is of the data set vggsound, expected folder" in refusal(vggsound | {"name": "folder"})
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


def test_data_sets_of_frames_have_no_list(tmp_path, capsys):
    write(tmp_path / "metadata.csv", "uid,split,label\n")
    assert cli.main(["data", "check", "avsbench", str(tmp_path), "--out", str(tmp_path / "x.parquet")]) == 2
    assert "--out is for folder, vggsound, audioset, music, vggsound_music, not avsbench" in capsys.readouterr().err


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
