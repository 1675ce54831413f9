"""The command `deepavfusion data prepare`."""

import shutil
from pathlib import Path

import pytest

from deepavfusion.training import prepare
from deepavfusion.training.data import build_dataset
from deepavfusion_cli.errors import BAD_INPUT, FAILED
from deepavfusion_cli.preflight import InputError, check
from tests.training.data.disk import MODEL, make_clips, write

SETTINGS = ["--short-side", "48", "--fps", "5", "--clips-per-shard", "2"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for k, path in enumerate(make_clips(root / "made", 4, 1.5)):
        target = root / "set" / "ab"[k % 2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    return root / "set"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_prepared_and_trained_on(videos, tmp_path, capsys):
    arguments = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS]
    assert prepare.main([*arguments, "--num-workers", "2"]) == 0
    said = capsys.readouterr().out
    assert "4 clips: about" in said
    assert "4 clips stored in" in said
    assert f"data.name=shards data.path={tmp_path / 'out'}" in said
    clips = build_dataset({"name": "shards", "path": str(tmp_path / "out")}, MODEL, "train", True, 0)
    assert clips.label_names == ["a", "b"]
    assert clips[0]["pixel_values"].shape == (3, 32, 32)
    before = files(tmp_path / "out")
    assert prepare.main([*arguments, "--num-workers", "0", "--no-check-space"]) == 0  # nothing is left to do
    assert files(tmp_path / "out") == before
    other = [*arguments[:3], str(tmp_path / "again"), *SETTINGS, "--num-workers", "0"]
    assert prepare.main(other) == 0
    assert files(tmp_path / "again") == before


def test_unreadable_clips_are_named_and_left_out(videos, tmp_path, capsys):
    shutil.copytree(videos, tmp_path / "set")
    write(tmp_path / "set" / "a" / "broken.mp4", "no video")
    code = prepare.main(["prepare", "folder", str(tmp_path / "set"), str(tmp_path / "out"), *SETTINGS])
    assert code == FAILED
    said = capsys.readouterr().out
    assert "left out: set/a/broken.mp4" in said or "broken.mp4: expected" in said
    assert "4 clips stored in" in said
    assert "; 1 could not be read" in said


def test_other_folders_and_small_disks_are_refused(videos, tmp_path, capsys, monkeypatch):
    write(tmp_path / "taken" / "notes.txt", "mine")
    assert prepare.main(["prepare", "folder", str(videos), str(tmp_path / "taken"), *SETTINGS]) == BAD_INPUT
    assert "is not a preparation; choose a new or empty folder" in capsys.readouterr().err
    assert files(tmp_path / "taken") == {"notes.txt": b"mine"}
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 1000)
    assert prepare.main(["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS]) == BAD_INPUT
    assert "the disk is too small" in capsys.readouterr().err
    assert list((tmp_path / "out" / "shards").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder", "{videos}"], "expected one folder to write, got none"),
        (["folder", "{videos}", "a", "b"], "expected one folder to write, got a and b"),
        (["folder", "{videos}", "a", "data.annotation=x"], "data.annotations"),
    ],
)
def test_command_lines_are_checked_before_anything_is_imported(videos, words, message):
    with pytest.raises(ValueError, match=message):
        check("data", ["prepare", *(word.format(videos=videos) for word in words)])
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("option", [["--fps", "0"], ["--quality", "96"], ["--short-side", "-1"], ["--fps", "nan"]])
def test_numbers_have_ranges(videos, option, capsys):
    with pytest.raises(SystemExit):
        check("data", ["prepare", "folder", str(videos), "out", *option])
    assert option[0] in capsys.readouterr().err
