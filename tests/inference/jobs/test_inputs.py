"""Files of folders, and names for what is written about them."""

import os

import pytest

from deepavfusion.inference.jobs import progress
from deepavfusion.inference.jobs.inputs import (
    AUDIO_SUFFIXES,
    VIDEO_SUFFIXES,
    find_files,
    numbered,
    timestamp_names,
    walk_files,
)
from deepavfusion_cli.paths import InputError


@pytest.fixture
def folder(tmp_path):
    for name in ("b.MP4", "a.mp4", "deep/er/a.mp4", "deep/a.wav", ".x/a.mp4", ".a.mp4", "a.mp4.txt", "out/a.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a.unfinished").mkdir()
    (tmp_path / "a.unfinished" / "a.mp4").touch()
    return tmp_path


def test_files_below_a_folder_in_order(folder):
    found, errors, notes = find_files([str(folder)], (".mp4", ".wav"), folder / "out")
    assert found == [
        (str(folder / "a.mp4"), "a"),
        (str(folder / "b.MP4"), "b"),
        (str(folder / "deep" / "a.wav"), "deep/a"),
        (str(folder / "deep" / "er" / "a.mp4"), "deep/er/a"),
    ]
    assert not errors
    assert not notes
    assert ("out/a" in [name for _, name in find_files([str(folder)], (".mp4",))[0]]) is True


def test_files_that_are_given_are_taken_as_they_are(folder):
    given = [str(folder / "a.mp4.txt"), str(folder / "absent"), str(folder / "deep"), str(folder / ".a.mp4")]
    found, errors, notes = find_files(given, (".wav",))
    assert found == list(zip([*given[:2], str(folder / "deep" / "a.wav"), given[3]], ["a.mp4", "absent", "a", ".a"]))
    assert not errors
    assert not notes


def test_folders_without_files_are_errors(folder):
    (folder / "empty").mkdir()
    found, errors, notes = find_files([str(folder / "empty"), str(folder / "a.mp4")], (".mp4", ".mov"))
    assert [name for _, name in found] == ["a"]
    assert [str(error) for error in errors] == [
        f"{folder / 'empty'}: expected files ending in .mp4, .mov, but there are none."
    ]
    assert isinstance(errors[0], InputError)
    assert not notes


@pytest.mark.parametrize(
    ("names", "suffixes", "left_out"),
    [
        (["a.JPG"], (*VIDEO_SUFFIXES, *AUDIO_SUFFIXES), "1 image left out: a folder stands for its videos and audio"),
        (["a.png", "x/b.webp", "c.wav"], VIDEO_SUFFIXES, "2 images and 1 audio file left out: a folder stands for its"),
        (["a.heic", "b.heif", "c.HIF"], VIDEO_SUFFIXES, "3 images left out: a folder stands for its"),
        (["a.txt", ".b.png"], VIDEO_SUFFIXES, None),
    ],
)
def test_media_files_of_other_kinds_in_folders_are_counted(tmp_path, names, suffixes, left_out):
    (tmp_path / "x").mkdir()
    for name in names:
        (tmp_path / name).touch()
    _, errors, notes = find_files([str(tmp_path)], suffixes)
    assert not notes
    assert (" besides " in str(errors[0])) is (left_out is not None)
    (tmp_path / "x" / "clip.mp4").touch()
    found, errors, notes = find_files([str(tmp_path), str(tmp_path / "x" / "clip.mp4")], suffixes)
    assert len(found) == 1
    assert not errors
    assert [note.startswith(f"{tmp_path}: {left_out}") for note in notes] == ([] if left_out is None else [True])


def test_folders_that_cannot_be_read_are_named(folder, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    found, errors, notes = find_files([str(folder)], (".mp4",))
    assert not found
    assert f"{folder}: Permission denied" in str(errors[0])


def test_names_stay_apart():
    found, *_ = find_files(["a/x.mp4", "b/x.mp4", "a/../a/x.mp4", "x_2.mp4", "x.wav", "a/x.mp4"], ())
    assert [name for _, name in found] == ["x", "x_2", "x_2_2", "x_3"]
    assert numbered(["deep/x", "deep/x", "x"]) == ["deep/x", "deep/x_2", "x"]
    assert timestamp_names("deep/x", [1.001, 1.004]) == ["deep/x_at_1.00s", "deep/x_at_1.00s_2"]


def test_folders_are_walked_in_order_and_each_once(folder):
    (folder / "deep" / "back").symlink_to(folder)
    (folder / "deep" / "gone").symlink_to(folder / "absent")
    (folder / "other").symlink_to(folder / "deep" / "er")
    expected = [
        ".a.mp4",
        "a.mp4",
        "a.mp4.txt",
        "b.MP4",
        "a.unfinished/a.mp4",
        "deep/a.wav",
        "deep/gone",
        "deep/er/a.mp4",
    ]
    assert [path.relative_to(folder).as_posix() for path in walk_files(folder)] == [*expected, "out/a.mp4"]


def test_many_files_are_counted_while_they_are_listed(tmp_path, monkeypatch, capsys):
    """Even those of a single folder, before the first of them is known."""
    for number in range(10):
        (tmp_path / f"{number}.mp4").touch()
    times = iter(range(100))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    assert len(list(walk_files(tmp_path))) == 10
    assert capsys.readouterr().err == f"{tmp_path}: listing its files: 2 entries so far\n"
