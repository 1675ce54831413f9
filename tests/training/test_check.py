"""`deepavfusion data check`: every clip is read, and the unreadable ones are named."""

import json
import os
import signal

import pytest
from datasets import Dataset

import deepavfusion_cli as cli
from deepavfusion.training.data import build_dataset
from deepavfusion.training.data.files import FileClips
from tests.media_factory import write_media

from .data.disk import MODEL, SHARED, make_clips, put, write


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clips(tmp_path_factory.mktemp("check"), 1, seconds=1.0)[0]


def test_unreadable_clips_are_named_once(clip, tmp_path, capsys):
    put(clip, tmp_path / "a" / "0.mp4", tmp_path / "b" / "0.mp4")
    assert cli.main(["data", "check", "folder", str(tmp_path), "--num-workers", "0"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("folder without given splits: 2 clips, 2 classes\n")
    assert printed.endswith("2 clips checked: all can be read\n")
    for name in ("a/1.mp4", "b/2.mp4"):
        (tmp_path / name).write_text("no video")
    assert cli.main(["data", "check", "folder", str(tmp_path), "--num-workers", "0"]) == 1
    printed = capsys.readouterr().out
    assert printed.count(f"cannot be read: {tmp_path / 'a' / '1.mp4'}: ") == 1
    assert printed.count("cannot be read: ") == 2
    assert printed.endswith("4 clips checked: 2 cannot be read\n")


def test_the_folder_may_be_given_as_in_recipes(clip, tmp_path, capsys):
    put(clip, tmp_path / "a" / "0.mp4", tmp_path / "b" / "0.mp4")
    path = f"data.path={tmp_path}"
    for words in ([path], [str(tmp_path), path], ["data.validation_fraction=0.5", path]):
        assert cli.main(["data", "check", "folder", *words, "--num-workers", "0"]) == 0
        assert capsys.readouterr().out.endswith("2 clips checked: all can be read\n")


def test_all_splits_are_checked_in_processes(clip, tmp_path, capsys):
    put(clip, tmp_path / "train" / "a" / "0.mp4")
    (tmp_path / "test" / "a").mkdir(parents=True)
    (tmp_path / "test" / "a" / "1.mp4").touch()
    assert cli.main(["data", "check", "folder", str(tmp_path), "--num-workers", "2"]) == 1
    printed = capsys.readouterr().out
    assert "split train" in printed
    assert "split test" in printed
    assert printed.endswith("2 clips checked: 1 cannot be read\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder", "{}"], "Expected files ending in .mp4"),
        (["folder", "{}/none"], "expected the data set folder at {}/none, but there is no such folder"),
        (["folder"], "expected the folder of data set folder, got none. Usage: deepavfusion data check folder PATH ["),
        (["folder", "{}", "data.path=x"], "expected the folder of data set folder, got several, {} and x. Usage: "),
        (["folder", "{}", "optim.epochs=3"], "optim.epochs is no option of a data set. Usage: deepavfusion data check"),
        (["folder", "data.annotations=x.csv"], "expected the folder of data set folder, got none. Usage: "),
        (["vggsound", "{}"], "vggsound.csv"),
        (["folder", "{}", "data.subset=all"], "Unknown option data.subset for dataset 'folder'"),
        (["folder", "{}", "annotations"], "annotations: expected data.key=value"),
        (["folder", "{}", "data.annotations=[a"], "The value in 'data.annotations=[a' is not valid YAML"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(tmp_path, capsys, words, message):
    assert cli.main(["data", "check", *(word.format(tmp_path) for word in words)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("deepavfusion data check: ")
    assert message.format(tmp_path) in error
    assert error.count("\n") == 1


@pytest.fixture
def vggsound(clip, tmp_path):
    """Clips of two classes, some of which lack a stream or are damaged; a video is in both splits."""
    root, lines = tmp_path / "set", []
    for i in range(9):
        name, label, split = f"video{0 if i == 8 else i:06d}", "ab"[i % 2], "test" if i > 6 else "train"
        lines.append(f"{name},{i},{label},{split}\n")
        path = root / "clips" / label / f"{name}_{i:06d}_{i + 10:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i == 1:
            write_media(path, seconds=1.0, audio_codec=None)
        elif i == 2:
            write_media(path, seconds=1.0, codec=None)
        elif i == 3:
            path.write_text("no video")
        elif i == 4:
            write_media(path, seconds=4.0)
        elif i != 5:
            put(clip, path)
    put(clip, root / "clips" / "a" / "not_annotated.mp4")
    write(root / "annotations" / "vggsound.csv", "".join(lines))
    return root


def test_everything_found_is_reported(vggsound, tmp_path, capsys):
    report = tmp_path / "new" / "report.json"
    words = ["data", "check", "vggsound", str(vggsound), "--num-workers", "0"]
    assert cli.main([*words, "--report", str(report)]) == 1
    printed = capsys.readouterr().out
    assert "vggsound, split train: 6 clips, 2 classes\n" in printed
    assert "missing: 1 of 7 annotated clips, first: b/video000005_000005\n" in printed
    assert "not annotated: 1 clip on disk\n" in printed
    assert printed.count("not annotated: ") == 1
    assert "clips per class: a 3; b 0\n" in printed
    assert "shorter than a window: 2 clips, first: " in printed
    assert printed.count("it has no audio") == printed.count("it has no images") == 1
    assert "overlap: 1 recording of the test split also in training, first: video000000\n" in printed
    assert printed.endswith("8 clips checked: 3 cannot be read (1 without audio, 1 without images)\n")
    found = json.loads(report.read_text())
    train = found["splits"]["train"]
    assert (train["found"], train["annotated"], train["not_annotated"]) == (6, 7, 1)
    assert train["missing"] == ["b/video000005_000005"]
    broken = {os.path.basename(path)[:11]: reason for path, reason in train["unreadable"]}
    assert list(broken) == [f"video{i:06d}" for i in (1, 2, 3)]
    assert [os.path.basename(path)[:11] for path in train["without_audio"]] == ["video000001"]
    assert [os.path.basename(path)[:11] for path in train["without_images"]] == ["video000002"]
    assert [os.path.basename(path)[:11] for path, _ in train["shorter_than_window"]] == ["video000000", "video000006"]
    assert train["clips_per_class"] == {"a": 3, "b": 0}
    assert found["recordings_in_training_and_test"] == ["video000000"]
    assert "with one recording: 1 class, which cannot be in both training and test: b\n" in printed
    assert found["classes_with_one_recording"] == ["b"]
    assert found["classes_in_several_folders"] == {}
    assert "in several folders" not in printed


@pytest.mark.parametrize(
    ("folders", "several"),
    [
        (["train/dog", "extra/dog", "extra/cat"], {"dog": ["extra/dog", "train/dog"]}),
        (["a/dog", "b/dog", "b/c/cat"], {"dog": ["a/dog", "b/dog"]}),
        (["train/dog", "test/dog", "train/cat"], {}),
        (["train/a/dog", "train/b/dog", "test/dog", "train/cat"], {"dog": ["train/a/dog", "train/b/dog"]}),
        (["dog", "a/dog", "cat"], {"dog": ["a/dog", "dog"]}),
    ],
)
def test_classes_of_one_recording_and_of_several_folders_are_told(clip, tmp_path, capsys, folders, several):
    put(clip, *(tmp_path / "set" / folder / f"{k}.mp4" for k, folder in enumerate(folders)))
    report = tmp_path / "report.json"
    words = ["data", "check", "folder", str(tmp_path / "set"), "--num-workers", "0", "--no-decode"]
    assert cli.main([*words, "--report", str(report)]) == 0
    printed, found = capsys.readouterr().out, json.loads(report.read_text())
    assert printed.count("with one recording: 1 class, which cannot be in both training and test: cat\n") == 1
    assert found["classes_with_one_recording"] == ["cat"]
    assert found["classes_in_several_folders"] == several
    said = [f"{name} ({', '.join(places)})" for name, places in several.items()]
    line = f"in several folders of one name: 1 class, whose clips are taken together: {', '.join(said)}\n"
    assert printed.count(line if several else "in several folders") == len(several)


def test_classes_of_annotations_have_any_folders(clip, tmp_path, capsys):
    put(clip, *(tmp_path / folder / "dog" / "0.mp4" for folder in "ab"))
    write(tmp_path / "clips.csv", "file,label\na/dog/0.mp4,dog\nb/dog/0.mp4,dog\n")
    assert cli.main(["data", "check", "folder", str(tmp_path), "--num-workers", "0", "--no-decode"]) == 0
    printed = capsys.readouterr().out
    assert "in several folders" not in printed
    assert printed.endswith("2 clips checked: the headers of all can be read\n")


@pytest.mark.parametrize("columns", ["split", "no split"])
def test_parts_of_one_file_are_checked_each(tmp_path, columns, capsys):
    """The same files in other parts, or in another split, are not the same clips."""
    make_clips(tmp_path / "set", 2, seconds=3.0)
    names = sorted(path.name for path in (tmp_path / "set").iterdir())
    spans = ["0,2", "500,502", "500,502", "0,2"]
    rows = [f"{names[k % 2]},{'ab'[k % 2]},{spans[k]}" for k in range(4)]
    rows = [f"{row},{('train', 'test')[k // 2]}" if columns == "split" else row for k, row in enumerate(rows)]
    heads = "file,label,start,end" + (",split" if columns == "split" else "")
    write(tmp_path / "set" / "clips.csv", "\n".join([heads, *rows]) + "\n")
    out, report = tmp_path / "list.parquet", tmp_path / "report.json"
    words = ["data", "check", "folder", str(tmp_path / "set"), "--num-workers", "0"]
    assert cli.main([*words, "--out", str(out), "--report", str(report)]) == 1
    printed = capsys.readouterr().out
    assert printed.endswith("4 clips checked: 2 cannot be read\n")
    assert "list of 2 usable clips" in printed
    splits = json.loads(report.read_text())["splits"]
    assert {name: split["found"] for name, split in splits.items()} == (
        {"train": 2, "test": 2} if columns == "split" else {"clips": 4}
    )
    assert sum(len(split["unreadable"]) for split in splits.values()) == 2
    listed = Dataset.from_parquet(str(out))
    assert sorted(zip(listed["path"], listed["start"], strict=True)) == [(names[0], 0.0), (names[1], 0.0)]


def test_a_split_of_clips_that_are_above_is_reported(vggsound, clip, tmp_path, capsys):
    """Clips that are training and test clips are read once."""
    ids = "".join(f"video{i:06d}_{i:06d}\n" for i in (0, 4, 6))
    write(tmp_path / "some.txt", ids)
    report = tmp_path / "report.json"
    options = [f"data.train_list={tmp_path / 'some.txt'}", f"data.test_list={tmp_path / 'some.txt'}"]
    words = ["data", "check", "vggsound", str(vggsound), *options, "--num-workers", "0", "--report", str(report)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "vggsound, split test" in printed
    assert "all of these clips are above, too\n" in printed
    assert printed.endswith("3 clips checked: all can be read\n")
    assert [split["found"] for split in json.loads(report.read_text())["splits"].values()] == [3, 3]


def test_a_list_that_fits_no_clip_is_an_error(vggsound, tmp_path, capsys):
    write(tmp_path / "typo.txt", "nothing_000001\n")
    option = f"data.train_list={tmp_path / 'typo.txt'}"
    assert cli.main(["data", "check", "vggsound", str(vggsound), option, "--num-workers", "0"]) == 2
    printed = capsys.readouterr().out
    assert "split train is not checked: " in printed
    assert "2 clips checked: " in printed
    out = tmp_path / "prepared"
    words = ["data", "prepare", "vggsound", str(vggsound), str(out), option, "--num-workers", "0"]
    assert cli.main(words) == 2
    assert "typo.txt names 1 clip" in capsys.readouterr().err
    assert not out.exists()


def test_headers_alone_tell_what_is_missing_but_not_what_is_damaged(vggsound, clip, capsys):
    path = vggsound / "clips" / "a" / "video000006_000006_000016.mp4"
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 8
    data[start : start + len(data) // 2] = bytes(len(data) // 2)  # frames and audio, not the headers
    words = ["data", "check", "vggsound", str(vggsound), "--num-workers", "0"]
    path.write_bytes(data)
    assert cli.main([*words, "--no-decode"]) == 1
    assert "3 cannot be read (1 without audio, 1 without images)" in capsys.readouterr().out
    assert cli.main(words) == 1
    assert "4 cannot be read (1 without audio, 1 without images)" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--out", "--report"])
def test_files_that_cannot_be_written_are_told_first(vggsound, flag, capsys):
    assert cli.main(["data", "check", "vggsound", str(vggsound), flag, str(vggsound)]) == 2
    assert f"{flag}={vggsound} is a folder: name a file in it." in capsys.readouterr().err


@pytest.mark.parametrize("decode", [True, False])
def test_the_death_of_a_worker_names_its_clips(clip, tmp_path, capsys, monkeypatch, decode):
    """Of clips that are decoded the one that was, and what to do is said of this command."""
    names = [tmp_path / "a" / f"{k}.mp4" for k in range(3)]
    put(clip, *names)
    parent, describe = os.getpid(), FileClips.describe

    def die(clips, i):
        if i == 1 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return describe(clips, i)

    monkeypatch.setattr(FileClips, "describe", die)
    line = ["data", "check", "folder", str(tmp_path), "--num-workers", "1", *([] if decode else ["--no-decode"])]
    assert cli.main(line) == 1
    error = capsys.readouterr().err
    assert "lower --num-workers; with --num-workers 0 the error itself is shown. The clip" in error
    assert "data.num_workers" not in error
    assert "resumes" not in error
    held = f" {names[1]}\n" if decode else "".join(f"\n  {name}" for name in names) + "\n"
    assert error.endswith(f"it held:{held}")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real clips in ../shared/media")
def test_real_clips_are_checked(tmp_path, capsys):
    """Of VAS, which is a folder for each class, and of VGGSound, for its own data set, VGG-SS and as a folder."""
    vas, vggsound = SHARED / "media" / "vas", SHARED / "media" / "vggsound"
    out = tmp_path / "usable.parquet"
    line = ["data", "check", "folder", str(vas), "--num-workers", "0", "--out", str(out)]
    assert cli.main(line) == 0
    printed = capsys.readouterr().out
    assert "clips per class: baby 1; dog 1; drum 1; fireworks 1; gun 1\n" in printed
    assert "5 clips checked: all can be read" in printed
    options = {"name": "folder", "path": str(vas), "checked_list": str(out)}
    assert len(build_dataset(options, MODEL, "train", True, 0)) == 4
    for name, number in (("vggsound", 9), ("vggss", 4), ("folder", 9)):
        assert cli.main(["data", "check", name, str(vggsound), "--num-workers", "0", "--no-decode"]) == 0
        assert f"{number} clips checked: the headers of all can be read\n" in capsys.readouterr().out
