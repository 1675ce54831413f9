"""`deepavfusion data check`: every clip is read, and the unreadable ones are named."""

import pytest

import deepavfusion_cli as cli

from .data.disk import make_clips, put


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
