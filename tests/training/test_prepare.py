"""The command `deepavfusion data prepare`."""

import json
import shutil
from pathlib import Path

import pytest

from deepavfusion.training import check as check_data
from deepavfusion.training import prepare
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.data import build_dataset
from deepavfusion.training.tasks import Localization, Segmentation
from deepavfusion_cli.errors import BAD_INPUT, FAILED
from deepavfusion_cli.preflight import InputError, check, parse_data
from tests.training.data.disk import MODEL, make_clips, write
from tests.training.data.sets.test_avsbench import make_objects, make_semantic
from tests.training.data.sets.test_localization_sets import key, make_flickr, make_vggss_clips

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


RECIPES = {
    "avsbench_s4": (make_semantic, Segmentation, []),
    "avsbench_ms3": (make_objects, Segmentation, []),
    "avsbench_avss": (make_semantic, Segmentation, []),
    "vggss_localization": (make_vggss_clips, Localization, ["train_list"]),
    "flickr_localization": (make_flickr, Localization, ["train_list"]),
}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_masks_and_boxes_train_on_shards(name, tmp_path, capsys):
    make, task, lists = RECIPES[name]
    make(tmp_path / "set")
    write(tmp_path / "train_list.txt", f"{key('e')}\n{key('f')}\n" if "vggss" in name else "1\n2\n4\n")
    recipe = load_recipe("finetune", name, ["model.init_from=null", f"data.path={tmp_path / 'set'}"])
    chosen = [f"data.{option}={tmp_path}/{option}.txt" for option in lists]
    chosen += ["data.drop_overlap=true"] if recipe.data.drop_overlap else []
    chosen += [f"data.subset={recipe.data.subset}"] if recipe.data.subset else []
    if name == "flickr_localization":
        chosen.append(f"data.test_list={write(tmp_path / 'test.csv', '1,202')}")
    line = ["prepare", recipe.data.name, str(tmp_path / "set"), str(tmp_path / "out"), *SETTINGS, *chosen]
    assert prepare.main([*line, "--num-workers", "0"]) == 0
    assert f"deepavfusion finetune {name} data.name=shards data.path={tmp_path / 'out'}" in capsys.readouterr().out
    changes = ["model.init_from=null", "data.name=shards", f"data.path={tmp_path / 'out'}"]
    if name == "flickr_localization":  # without boxes for all of its clips, as the recipe says
        changes += ["data.validation_fraction=null", "model.localization_loss=matching"]
    recipe = load_recipe("finetune", name, changes)
    for split in ("train", "test"):
        clips = task.build_clips(recipe, MODEL, split, train=split == "train")
        assert clips[0]["pixel_values"].shape == (3, 32, 32)
        assert split == "train" or "labels" in clips[0]


def test_shards_are_checked(videos, tmp_path, capsys):
    make_semantic(tmp_path / "set")
    assert prepare.main(["prepare", "avsbench", str(tmp_path / "set"), str(tmp_path / "out"), *SETTINGS]) == 0
    assert check_data.main(["check", "shards", str(tmp_path / "out"), "--num-workers", "0"]) == 0
    assert "6 clips checked: all can be read" in capsys.readouterr().out
