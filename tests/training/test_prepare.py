"""The command `deepavfusion data prepare`."""

import json
import shutil
from pathlib import Path

import pytest

from deepavfusion.training import prepare
from deepavfusion.training.data import build_dataset
from deepavfusion_cli.errors import BAD_INPUT, FAILED
from deepavfusion_cli.preflight import InputError, check, parse_data
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


def test_videos_and_pcm_are_stored_on_request(videos, tmp_path, capsys):
    arguments = ["prepare", "folder", str(videos), str(tmp_path / "out"), "--keep-video", "--audio", "pcm"]
    assert prepare.main([*arguments, "--num-workers", "0", "--no-check-space"]) == 0
    about = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (about["video"], about["short_side"], about["audio"]) == ("h264", 360, "pcm")
    clips = build_dataset({"name": "shards", "path": str(tmp_path / "out")}, MODEL, "train", True, 0)
    assert clips[0]["pixel_values"].shape == (3, 32, 32)
    assert prepare.main([*arguments[:-1], "flac"]) == BAD_INPUT
    assert "with audio=pcm, now flac; choose another folder" in capsys.readouterr().err


def test_encodings_have_defaults(videos):
    def encoding(*options):
        return prepare.encoding_of(parse_data(["prepare", "folder", str(videos), "out", *options])[0])

    assert encoding() == prepare.Encoding() == prepare.Encoding(4.0, 256, 90, 16_000, "flac", "jpeg")
    assert encoding("--fps", "2", "--short-side", "99", "--quality", "80") == prepare.Encoding(2.0, 99, 80)
    assert encoding("--keep-video") == prepare.Encoding(short_side=360, video="h264")
    assert encoding("--keep-video", "--short-side", "99") == prepare.Encoding(short_side=99, video="h264")


def test_unreadable_clips_are_named_and_left_out(videos, tmp_path, capsys):
    shutil.copytree(videos, tmp_path / "set")
    write(tmp_path / "set" / "a" / "broken.mp4", "no video")
    code = prepare.main(["prepare", "folder", str(tmp_path / "set"), str(tmp_path / "out"), *SETTINGS])
    assert code == FAILED
    said = capsys.readouterr().out
    assert "left out: a/broken.mp4" in said or "broken.mp4: expected" in said
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
        (["folder", "{videos}", "a", "--keep-video", "--fps", "2"], "expected no --fps and no --quality"),
        (["folder", "{videos}", "a", "--keep-video", "--quality", "9"], "expected no --fps and no --quality"),
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


def test_masks_and_boxes_are_refused(tmp_path, monkeypatch):
    from tests.training.data.test_stills import Still, image, write_image

    frame = str(write_image(tmp_path / "frame.png", image()))
    from deepavfusion.processors import DeepAVFusionProcessor
    from deepavfusion.training.data.stills import BoxClips

    clips = BoxClips([Still(frame, frame, boxes=())], DeepAVFusionProcessor.from_config(MODEL), False, 0)
    monkeypatch.setattr(prepare, "splits_of", lambda options: iter([("test", clips)]))
    with pytest.raises(ValueError, match="has masks or boxes of frames; only data sets of videos can be prepared"):
        prepare.preparation_of({"name": "vggss", "path": str(tmp_path)}, prepare.Encoding(), 4)
