"""Names of clips and files, as they are to be had."""

import os
import unicodedata

import pytest

from deepavfusion.inference.jobs.inputs import VIDEO_SUFFIXES
from deepavfusion.training.data.sets.names import (
    ClipFiles,
    ListedFiles,
    clip_key,
    find_listed,
    is_inside,
    published_name,
    recording_of,
)

CLIP = "-0BIyqJj9ZU"
OTHERS = {"--iY3Bf4hDg_000030": "", "zpWuikVorYg_000000": "", "zpWuikVorYg_000030": "", "Yabcdefghij_000005": ""}


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("prefix", ["", "Y"])
@pytest.mark.parametrize("folder", ["", "dog_barking", "dog barking", "train/dog", "-0"])
@pytest.mark.parametrize(
    "name",
    ["{}_000030_000040", "{}_000030", "{}_30", "{}_30_40", "{}_30.0_40.0", "{}_30.000-40.000", "{}_30000_40000"]
    + ["{}_30000", "{}_030000_040000", "{}"],
)
def test_a_clip_is_found_by_id_and_start(tmp_path, prefix, folder, name):
    path = tmp_path / folder / f"{prefix}{name.format(CLIP)}{VIDEO_SUFFIXES[len(name) % len(VIDEO_SUFFIXES)].upper()}"
    touch(path, tmp_path / "zpWuikVorYg_000030.txt")
    found, others = ClipFiles(tmp_path).match({f"{CLIP}_000030": "dog_barking", **OTHERS})
    assert (found, others) == ({f"{CLIP}_000030": path}, 0)


def test_a_file_stands_for_the_clip_that_its_name_suggests_most(tmp_path):
    touch(*(tmp_path / f"{name}.mp4" for name in ("zpWuikVorYg", "zpWuikVorYg_30000", "abc_1_12", "Yabcdefghij_5")))
    wanted = {**OTHERS, "zpWuikVorYg_030000": "", "abc_000001": "", "abc_1_000012": "", "abcdefghij_000005": ""}
    found, others = ClipFiles(tmp_path).match(wanted)
    assert {key: path.stem for key, path in found.items()} == {
        "zpWuikVorYg_030000": "zpWuikVorYg_30000",
        "abc_000001": "abc_1_12",
        "Yabcdefghij_000005": "Yabcdefghij_5",
    }
    assert others == 1  # the bare id: several clips are of it


def test_of_several_files_the_one_in_the_folder_of_its_class_and_of_the_published_name_is_taken(tmp_path):
    names = ("a/{}_000030_000040", "dog/{}_30", "dog/{}_000030_000040", "dog/{}_30_40")
    touch(*(tmp_path / f"{name.format(CLIP)}.mp4" for name in names))
    found, others = ClipFiles(tmp_path).match({f"{CLIP}_000030": "dog"})
    assert (found[f"{CLIP}_000030"], others) == (tmp_path / "dog" / f"{CLIP}_000030_000040.mp4", 0)
    assert ClipFiles(tmp_path).example() == f"found 4 videos, e.g. {CLIP}_000030_000040.mp4"
    assert ClipFiles(tmp_path / "none").example() == "found no videos"


def test_keys_of_windows_paths_and_other_suffixes():
    assert clip_key(rf"clips\dog\{CLIP}_000030_000040.m4v") == f"{CLIP}_000030"


@pytest.mark.parametrize("name", ["{}_000030", "{}_30", "{}_30_40", "{}_30.0_40.0", "{}_30000_40000", "Y{}_30"])
def test_published_names_of_listed_clips(name):
    assert published_name(name.format(CLIP)) == f"{CLIP}_000030"


@pytest.mark.parametrize("name", [CLIP, "10000130166", "dog_30", "clip_1_2", ""])
def test_names_of_other_clips_stay(name):
    assert published_name(name) == name


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        (f"dog/{CLIP}_000030_000040.mp4", CLIP),
        (f"{CLIP}_30000_40000.webm", CLIP),
        ("zpWuikVorYg_000032.mp4", "zpWuikVorYg"),
        ("dog/dog_barking_01.mp4", None),
        ("dog_barking_000001.mp4", None),
        ("Dog_barking_000001.mp4", None),
        ("clip_1.mp4", None),
        ("2024-05-01 dog.mp4", None),
    ],
)
def test_parts_of_one_recording_are_told_by_the_id(name, recording):
    assert recording_of(name) == (recording or name)


@pytest.mark.parametrize(
    ("listed", "stored"),
    [
        ("dog/a.mp4", "dog/a.mp4"),
        (r"dog\a.mp4", "dog/a.mp4"),
        (r".\dog\a.mp4", "dog/a.mp4"),
        ("./dog/a.mp4", "dog/a.mp4"),
        (r"C:\Users\me\videos\dog\a.mp4", "dog/a.mp4"),
        (r"\\server\videos\dog\a.mp4", "dog/a.mp4"),
        ("Dog/A.MP4", "dog/a.mp4"),
        ("dog/a", "dog/a.mp4"),
        ("dog/a.avi", "dog/a.webm"),
        (unicodedata.normalize("NFD", "hunde/ärger.mp4"), unicodedata.normalize("NFC", "hunde/ärger.mp4")),
        ("dog/a.b.mp4", "dog/a.b.mkv"),
    ],
)
def test_listed_files_are_found_however_they_are_written(tmp_path, listed, stored):
    touch(tmp_path / stored, tmp_path / "cat" / "other.mp4", tmp_path / "dog" / "notes.txt")
    (found,) = find_listed(tmp_path, [listed], "list.csv", False)
    assert os.path.samefile(found, tmp_path / stored)


def test_a_file_of_which_there_are_several_is_not_guessed(tmp_path, caplog):
    touch(tmp_path / "a.mp4", tmp_path / "a.webm", tmp_path / "b.webm")
    assert ListedFiles(tmp_path).find("a.avi") is None
    with pytest.raises(FileNotFoundError, match=r"1 of 2 files in list\.csv do not exist, first: .*a\.avi"):
        find_listed(tmp_path, ["a.avi", "b.mp4"], "list.csv", False)
    find_listed(tmp_path, ["a.mp4", "b.mp4"], "list.csv", False)
    assert "list.csv: 1 of 2 files have other names on disk, first:" in caplog.text


@pytest.mark.parametrize("name", ["../x.mp4", "dog/../../x.mp4", "{0}/x.mp4", r"..\x.mp4", "link/../x.mp4", "/etc/x"])
def test_files_outside_of_the_folder_are_refused_unless_allowed(tmp_path, name):
    root, name = tmp_path / "root", name.format(tmp_path)
    touch(root / "dog" / "a.mp4", tmp_path / "x.mp4", tmp_path / "elsewhere" / "clips" / "b.mp4")
    touch(tmp_path / "elsewhere" / "x.mp4")
    (root / "link").symlink_to(tmp_path / "elsewhere" / "clips")
    with pytest.raises(ValueError, match=r"list\.csv names 1 of 2 files outside of .*data\.allow_outside=true"):
        find_listed(root, ["dog/a.mp4", name], "list.csv", False)
    if name != "/etc/x":
        assert os.path.basename(find_listed(root, ["dog/a.mp4", name], "list.csv", True)[1]) == "x.mp4"
    for inside in ("dog/a.mp4", "dog/../dog/a.mp4", "link/b.mp4", str(root / "dog" / "a.mp4")):
        assert is_inside(root, inside)
