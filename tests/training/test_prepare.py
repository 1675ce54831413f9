"""The command `deepavfusion data prepare`."""

import errno
import json
import multiprocessing
import os
import shlex
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features

from deepavfusion.inference.jobs import progress
from deepavfusion.training import check as check_data
from deepavfusion.training import prepare, suggestions
from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.shards import Preparation, preparation, read_shards
from deepavfusion.training.data.shards import writing as shard_writing
from deepavfusion.training.tasks import Localization, Segmentation
from deepavfusion_cli import arguments
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
    data = f"data.name=shards data.path={tmp_path / 'out'}"
    *_, heading, pretrain, finetune = said.splitlines()
    assert heading == "next, with a model in place of MODEL:"
    assert pretrain.endswith(f"pretrain folder {data}")
    assert finetune.endswith(f"finetune folder_recognition {data} model.init_from=MODEL")
    clips = build_dataset({"name": "shards", "path": str(tmp_path / "out")}, MODEL, "train", True, 0)
    assert clips.label_names == ["a", "b"]
    assert clips[0]["pixel_values"].shape == (3, 32, 32)
    before = files(tmp_path / "out")
    assert prepare.main([*arguments, "--num-workers", "0"]) == 0
    again = capsys.readouterr().out
    done = "everything was there already, nothing is left to do: 4 clips in 2 shards in"
    assert again.startswith(f"{done} {tmp_path / 'out'}, 0.00 GB\n")
    assert again[again.index("\nnext") :] == said[said.index("\nnext") :]
    assert files(tmp_path / "out") == before
    other = [*arguments[:3], str(tmp_path / "again"), *SETTINGS, "--num-workers", "0"]
    assert prepare.main(other) == 0
    assert files(tmp_path / "again") == before


def test_files_that_changed_are_stored_again(videos, tmp_path, capsys):
    root, out = shutil.copytree(videos, tmp_path / "set"), tmp_path / "out"
    arguments = ["prepare", "folder", str(root), str(out), *SETTINGS, "--num-workers", "0"]
    (root / "a" / "clip0.mp4").write_bytes(b"broken")
    assert prepare.main(arguments) == FAILED
    states = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    for path in root.rglob("*.mp4"):  # as of a copy
        os.utime(path, ns=(1, 1))
    capsys.readouterr()
    assert prepare.main(arguments) == FAILED
    assert "everything was there already" in capsys.readouterr().out
    assert states == {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    shutil.copyfile(videos / "a" / "clip0.mp4", root / "a" / "clip0.mp4")
    before = (out / "parts" / "clips-000001.json").read_bytes()
    assert prepare.main(arguments) == 0
    said = capsys.readouterr().out
    assert f"1 file changed after being stored, first: {root / 'a' / 'clip0.mp4'}; written again: 1 shard\n" in said
    assert "2 of 4 clips are there already; the others follow" in said
    assert (out / "parts" / "clips-000001.json").read_bytes() == before
    rows = read_shards(str(out))
    assert rows["bytes"][:] == [(tmp_path / name).stat().st_size for name in rows["path"]]
    assert prepare.main(arguments) == 0
    assert "everything was there already" in capsys.readouterr().out
    content = bytearray((root / "b" / "clip1.mp4").read_bytes())
    content[-1] ^= 1  # of the same size
    (root / "b" / "clip1.mp4").write_bytes(content)
    assert prepare.main(arguments) == 0
    assert f"first: {root / 'b' / 'clip1.mp4'}; written again: 1 shard" in capsys.readouterr().out


def test_a_data_set_is_not_whole_while_shards_are_written_again(videos, tmp_path, monkeypatch):
    root, out = shutil.copytree(videos, tmp_path / "set"), tmp_path / "out"
    arguments = ["prepare", "folder", str(root), str(out), *SETTINGS, "--num-workers", "0"]
    assert prepare.main(arguments) == 0
    shutil.copyfile(root / "a" / "clip0.mp4", root / "b" / "clip1.mp4")
    with monkeypatch.context() as patched:
        patched.setattr(prepare, "finish", lambda *given: 1 / 0)
        assert prepare.main(arguments) == FAILED
    with pytest.raises(FileNotFoundError):
        read_shards(str(out))
    assert prepare.main(arguments) == 0
    assert len(read_shards(str(out))) == 4


def test_what_earlier_versions_stored_is_taken_to_be_up_to_date(videos, tmp_path, capsys):
    root, out = shutil.copytree(videos, tmp_path / "set"), tmp_path / "out"
    arguments = ["prepare", "folder", str(root), str(out), *SETTINGS, "--num-workers", "0"]
    assert prepare.main(arguments) == 0
    for path in (out / "parts").glob("clips-*.json"):
        part = json.loads(path.read_text())
        entries = [{key: value for key, value in entry.items() if key != "bytes"} for entry in part["index"]]
        path.write_text(json.dumps({"bytes": part["bytes"], "index": entries, "broken": []}))
    shutil.copyfile(root / "a" / "clip0.mp4", root / "b" / "clip1.mp4")
    capsys.readouterr()
    assert prepare.main(arguments) == 0
    assert "everything was there already" in capsys.readouterr().out
    assert read_shards(str(out))["bytes"][:] == [None] * 4


def test_changed_frames_and_masks_are_stored_again(tmp_path, capsys):
    root, out = tmp_path / "avs", tmp_path / "out"
    make_objects(root)
    arguments = ["prepare", "avsbench", str(root), str(out), "--num-workers", "0"]
    assert prepare.main(arguments) == 0
    capsys.readouterr()
    mask = sorted((root / "Single-source").rglob("gt_masks/train/dog/*/*.png"))[0]
    mask.write_bytes(mask.read_bytes() + b"\0")
    assert prepare.main(arguments) == 0
    assert f"1 file changed after being stored, first: {mask}" in capsys.readouterr().out


def test_links_to_one_file_are_one_recording(videos, tmp_path, capsys):
    """Whose name, as all names in prepared data sets, does not depend on where the folder is."""
    shutil.copytree(videos, tmp_path / "set")
    (tmp_path / "set" / "b" / "link.mp4").symlink_to("../a/clip0.mp4")
    out = tmp_path / "out"
    assert prepare.main(["prepare", "folder", str(tmp_path / "set"), str(out), *SETTINGS, "--num-workers", "0"]) == 0
    rows = read_shards(str(out))
    assert dict(zip(rows["path"], rows["recording"], strict=True)) == {
        "set/b/link.mp4": "set/a/clip0.mp4",
        **{name: name for name in rows["path"] if name != "set/b/link.mp4"},
    }


def test_progress_is_that_of_clips(videos, tmp_path, capsys, monkeypatch):
    """Of one shard in one process, and of clips that are there already, which say nothing of the time left."""
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    arguments = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS[:4], "--no-check-space"]
    assert prepare.main([*arguments, "--clips-per-shard", "4", "--num-workers", "0"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [f"clips stored: {k} of 4 clips" for k in (1, 2, 3, 4)]
    assert prepare.main([*arguments[:3], str(tmp_path / "two"), *SETTINGS, "--num-workers", "0"]) == 0
    (tmp_path / "two" / "shards" / "clips-000001.tar").unlink()
    capsys.readouterr()
    assert prepare.main([*arguments[:3], str(tmp_path / "two"), *SETTINGS, "--num-workers", "2"]) == 0
    said, shown = capsys.readouterr()
    assert "2 of 4 clips are there already; the others follow\n" in said
    assert "clips stored: 4 of 4 clips" in shown
    assert "clips stored: 2 of" not in shown


def test_what_was_begun_goes_on_with_its_own_shards(videos, tmp_path, capsys):
    arguments = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS[:4], "--num-workers", "0"]
    assert prepare.main([*arguments, "--clips-per-shard", "3"]) == 0
    before = files(tmp_path / "out")
    shards = tmp_path / "out" / "shards"
    (shards / "clips-000001.tar").unlink()
    assert prepare.main(arguments) == 0
    assert files(tmp_path / "out") == before
    shutil.rmtree(tmp_path / "out")
    assert prepare.main(arguments) == 0
    assert len(list(shards.iterdir())) == 4  # a clip in each
    assert prepare.main([*arguments, "--clips-per-shard", "2"]) == BAD_INPUT
    assert "with clips_per_shard=1, now 2; choose another folder" in capsys.readouterr().err


def test_an_index_that_is_missing_is_written(videos, tmp_path, capsys):
    arguments = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS, "--num-workers", "0"]
    assert prepare.main(arguments) == 0
    before = files(tmp_path / "out")
    (tmp_path / "out" / "index.arrow").unlink()
    capsys.readouterr()
    assert prepare.main(arguments) == 0
    assert capsys.readouterr().out.startswith("4 clips stored in")
    assert files(tmp_path / "out") == before


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


def test_other_folders_are_refused(videos, tmp_path, capsys):
    write(tmp_path / "taken" / "notes.txt", "mine")
    assert prepare.main(["prepare", "folder", str(videos), str(tmp_path / "taken"), *SETTINGS]) == BAD_INPUT
    assert "is not a preparation; choose a new or empty folder" in capsys.readouterr().err
    assert files(tmp_path / "taken") == {"notes.txt": b"mine"}


def test_small_disks_are_refused_and_nothing_is_left_behind(videos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prepare, "estimate_bytes", lambda preparation: round(1000 * preparation.encoding.fps))
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 3000)
    line = ["prepare", "folder", str(videos), str(tmp_path / "new" / "out"), *SETTINGS, "--num-workers", "0"]
    assert prepare.main(line) == BAD_INPUT
    assert "too small; choose another folder, or a lower --fps, --short-side or --quality" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert prepare.main([*line, "--fps", "2"]) == 0  # what was advised
    shutil.rmtree(tmp_path / "new" / "out" / "shards")
    monkeypatch.setattr(prepare, "free_bytes", lambda folder: 1000)
    assert prepare.main([*line, "--fps", "2"]) == BAD_INPUT
    assert capsys.readouterr().err.endswith("the disk is too small; free space there\n")  # settings are settled


def test_a_folder_that_cannot_be_marked_is_removed(videos, tmp_path, capsys, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(preparation, "writing", full)
    (tmp_path / "found").mkdir()
    for out in ("found", "new"):
        line = ["prepare", "folder", str(videos), str(tmp_path / out), *SETTINGS, "--no-check-space"]
        assert prepare.main(line) == FAILED
        assert "the disk is full: free space there, or choose another folder" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [tmp_path / "found"]


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (errno.EIO, FAILED, "input/output error"),
        (errno.ENOSPC, FAILED, "the disk is full"),
        (errno.EACCES, BAD_INPUT, "permission denied; check its permissions"),
    ],
)
@pytest.mark.parametrize("command", [prepare, check_data])
def test_errors_of_the_system_are_sentences(command, videos, tmp_path, capsys, monkeypatch, number, code, message):
    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number), "clips.csv")

    monkeypatch.setattr(check_data, "build_dataset", fail)
    out = [str(tmp_path / "out")] if command is prepare else []
    action = command.__name__.rpartition(".")[2]
    assert command.main([action, "folder", str(videos), *out]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Errno" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("number", "code", "said"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
def test_signals_end_all_processes_at_once(videos, tmp_path, capsys, monkeypatch, number, code, said):
    def write_shard(preparation, out, name, *shard):
        (out / "shards" / f".{name}.tar.{os.getpid()}.tmp").touch()
        time.sleep(60)

    def stop():
        while not list((tmp_path / "out").glob("shards/*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.Signals[number])

    monkeypatch.setattr(shard_writing, "write_shard", write_shard)
    line = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS, "--no-check-space"]
    thread, began = threading.Thread(target=stop), time.monotonic()
    thread.start()
    assert prepare.main([*line, "--num-workers", "4"]) == code
    thread.join()
    assert time.monotonic() - began < 30
    assert multiprocessing.active_children() == []
    assert capsys.readouterr().err == f"{said}\n"
    assert list((tmp_path / "out" / "shards").iterdir()) == []  # drafts of processes that were killed


def test_the_death_of_a_process_names_the_shard(videos, tmp_path, capsys, monkeypatch):
    def write_shard(preparation, out, name, *shard):
        os.kill(os.getpid(), signal.SIGKILL) if name == "clips-000001" else time.sleep(60)

    monkeypatch.setattr(shard_writing, "write_shard", write_shard)
    line = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS, "--no-check-space"]
    assert prepare.main([*line, "--num-workers", "2"]) == FAILED
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "lower --num-workers; with --num-workers 0 the error itself is shown. The same command goes on" in error
    assert error.endswith("The shard that it held: clips-000001\n")


def test_what_killed_processes_left_is_removed(videos, tmp_path):
    line = ["prepare", "folder", str(videos), str(tmp_path / "out"), *SETTINGS, "--no-check-space"]
    assert prepare.main([*line, "--num-workers", "0"]) == 0
    before = files(tmp_path / "out")
    for name in ("shards/.clips-000000.tar.7.tmp", "parts/.clips-000000.json.7.tmp", ".index.arrow.7.tmp"):
        write(tmp_path / "out" / name, "left")
    assert prepare.main([*line, "--num-workers", "0"]) == 0
    assert files(tmp_path / "out") == before


def test_workers_are_as_many_as_cores_may_be_used(videos, monkeypatch):
    for cores, workers in ((3, 3), (64, 8)):
        monkeypatch.setattr(arguments, "usable_cores", lambda cores=cores: cores)
        assert parse_data(["check", "folder", str(videos)])[0].num_workers == workers


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


def suggested(printed: str) -> tuple[str, str, list[str]]:
    """Command, recipe and other words of the command that was printed."""
    words = shlex.split(printed.splitlines()[-1])
    return words[1], words[2], words[3:]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_of_masks_and_boxes_train_on_shards(name, tmp_path, capsys):
    make, task, lists = RECIPES[name]
    make(tmp_path / "set")
    write(tmp_path / "train_list.txt", f"{key('e')}\n{key('f')}\n" if "vggss" in name else "1\n2\n4\n")
    recipe = load_recipe("finetune", name, ["model.init_from=null", f"data.path={tmp_path / 'set'}"])
    chosen = [f"data.{option}={tmp_path}/{option}.txt" for option in lists]
    chosen += ["data.drop_overlap=true"] if recipe.data.drop_overlap and name != "vggss_localization" else []
    chosen += [f"data.subset={recipe.data.subset}"] if recipe.data.subset else []
    if name == "flickr_localization":
        chosen.append(f"data.test_list={write(tmp_path / 'test.csv', '1,202')}")
    line = ["prepare", recipe.data.name, str(tmp_path / "set"), str(tmp_path / "out"), *SETTINGS, *chosen]
    assert prepare.main([*line, "--num-workers", "0"]) == 0
    command, found, changes = suggested(capsys.readouterr().out)
    assert (command, found) == ("finetune", name)
    assert changes[:2] == ["data.name=shards", f"data.path={tmp_path / 'out'}"]
    recipe = load_recipe("finetune", name, changes)
    for split in ("train", "test"):
        clips = task.build_clips(recipe, MODEL, split, train=split == "train")
        assert clips[0]["pixel_values"].shape == (3, 32, 32)
        assert split == "train" or "labels" in clips[0]


@pytest.mark.parametrize(
    ("name", "make", "recipe"),
    [
        ("vggss", make_vggss_clips, "vggss_localization"),
        ("flickr_soundnet", make_flickr, "flickr_localization"),
    ],
)
def test_without_training_clips_an_evaluation_is_suggested(name, make, recipe, tmp_path, capsys):
    make(tmp_path / "set")
    out = tmp_path / "the #1 out"
    assert prepare.main(["prepare", name, str(tmp_path / "set"), str(out), *SETTINGS, "--num-workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert "next, with a model in place of MODEL:" in printed
    command, found, words = suggested(printed)
    assert (command, found, words[-2:]) == ("evaluate", recipe, ["--model", "MODEL"])
    loaded = load_recipe("evaluate", recipe, words[:-2])
    assert loaded.data.path == str(out)
    assert len(Localization.build_clips(loaded, MODEL, "test", train=False)) > 0


ROWS = Dataset.from_list([{"boxes": [None]}])
LABELED = Dataset.from_dict({"label": [0, 1]}, Features(label=ClassLabel(names=["cat", "dog"])))
LABELED_ALIKE = Dataset.from_dict({"label": [0, 0]}, Features(label=ClassLabel(names=["cat"])))
FINETUNE = "finetune folder_recognition data.name=shards data.path=out model.init_from=MODEL"


@pytest.mark.parametrize(
    ("about", "splits", "expected"),
    [
        ({"data": "folder"}, [None], "pretrain folder data.name=shards data.path=out"),
        ({"data": "folder"}, ["train", "test"], "pretrain folder data.name=shards data.path=out data.eval_split=test"),
        ({"data": "folder"}, ["test"], None),
        ({"data": "folder"}, {None: LABELED}, f"pretrain folder data.name=shards data.path=out\n{FINETUNE}"),
        ({"data": "folder"}, {None: LABELED_ALIKE}, "pretrain folder data.name=shards data.path=out"),
        (
            {"data": "folder"},
            {"test": LABELED},
            "evaluate folder_recognition data.name=shards data.path=out --model MODEL",
        ),
        (
            {"data": "vggsound"},
            {"train": LABELED, "test": LABELED},
            "pretrain vggsound_base data.name=shards data.path=out\n"
            "finetune vggsound_finetune data.name=shards data.path=out model.init_from=MODEL",
        ),
        ({"data": "vggsound"}, ["train", "test"], "pretrain vggsound_base data.name=shards data.path=out"),
        ({"data": "vggsound"}, ["train"], None),
        (
            {"data": "music", "options": {"subset": "solo21"}},
            ["train", "test"],
            "finetune music_separation data.name=shards data.path=out data.subset=null model.init_from=MODEL",
        ),
        (
            {"data": "vggsound_music", "options": {"drop_overlap": True}},
            ["train", "test"],
            "finetune vggsound_music_separation data.name=shards data.path=out model.init_from=MODEL",
        ),
        (
            {"data": "is3", "kind": "boxes"},
            ["test"],
            "evaluate is3_localization data.name=shards data.path=out --model MODEL",
        ),
    ],
)
def test_suggested_commands(about, splits, expected, monkeypatch):
    about = {"kind": "videos", "options": {}} | about
    monkeypatch.setattr(suggestions, "own_command", lambda: "deepavfusion")
    rows = splits if isinstance(splits, dict) else dict.fromkeys(splits, ROWS)
    found = suggestions.next_commands(Preparation(rows, "set", about), "out")
    assert found == [f"deepavfusion {line}" for line in (expected or "").splitlines()]


@pytest.mark.parametrize("path", ["a b/c", "a #b", "2024", "~", "~/b", "[a", "a: b", "it's", '"a"'])
def test_suggested_paths_are_quoted(path):
    preparation = Preparation({None: ROWS}, "set", {"kind": "videos", "options": {}, "data": "folder"})
    words = shlex.split(*suggestions.next_commands(preparation, path))
    assert os.path.normpath(load_recipe(words[1], words[2], words[3:]).data.path) == path


def test_shards_are_checked(videos, tmp_path, capsys):
    make_semantic(tmp_path / "set")
    assert prepare.main(["prepare", "avsbench", str(tmp_path / "set"), str(tmp_path / "out"), *SETTINGS]) == 0
    assert check_data.main(["check", "shards", str(tmp_path / "out"), "--num-workers", "0"]) == 0
    assert "6 clips checked: all can be read" in capsys.readouterr().out
