"""Result folders: one owner at a time, earlier results until new ones are complete, foreign files untouched."""

import os
import subprocess

import pytest

from deepavfusion.inference import files
from deepavfusion.inference.folder import MARK_FILE, FolderError, ResultFolder, lock_folder
from deepavfusion.inference.jobs.locks import folder_owner
from deepavfusion_cli.early.marks import differences
from tests.warm import warm_python


def write(path, fingerprint, results, **options):
    """Write results as a command does."""
    folder = ResultFolder(path, "convert", "output", **options)
    folder.plan(fingerprint)
    with folder.claimed():
        folder.begin()
        for name, text in results.items():
            (folder.draft / name).parent.mkdir(exist_ok=True)
            (folder.draft / name).write_text(text)
        folder.publish()
    folder.close()


def content(path):
    hidden = (".lock", ".gitignore", MARK_FILE)
    files = [file for file in path.rglob("*") if file.is_file() and file.name not in hidden]
    return {file.relative_to(path).as_posix(): file.read_text() for file in files}


def test_results_are_replaced_by_the_same_command_or_on_request(tmp_path):
    path = tmp_path / "out"
    write(path, {"checkpoint": "a"}, {"config.json": "1", "old/part": "1"})
    (path / "notes").write_text("mine")
    write(path, {"checkpoint": "a"}, {"config.json": "2", "old/part": "2"})
    before = content(path)
    assert before == {"config.json": "2", "old/part": "2", "notes": "mine"}
    with pytest.raises(FolderError, match=r'(?s)checkpoint: "a" -> "b".*Name another output.*--overwrite'):
        write(path, {"checkpoint": "b"}, {})
    assert content(path) == before
    write(path, {"checkpoint": "b"}, {"config.json": "3"}, overwrite=True)
    assert content(path) == {"config.json": "3", "notes": "mine"}
    assert not (path / "old").exists()


def test_earlier_results_stay_when_a_command_fails(tmp_path):
    path = tmp_path / "out"
    write(path, {}, {"config.json": "1", "weights": "1"})
    with pytest.raises(TypeError):
        write(path, {}, {"weights": "half", "config.json": None})
    assert content(path) == {"config.json": "1", "weights": "1"}
    lock_folder(path).close()  # the failed command has given the folder back
    write(path, {}, {"config.json": "2"})
    assert content(path) == {"config.json": "2"}


def fail(path, error, finished=False):
    """Write half of the results, or all of them, and fail."""
    folder = ResultFolder(path, "convert", "output")
    folder.plan({})
    with folder.claimed():
        folder.begin()
        (folder.draft / "config.json").write_text("half")
        if finished:
            folder.publish()
        (folder.path.parent / "notes").write_text("mine")
        raise error


@pytest.mark.parametrize("place", ["out", "deep/down/out", "empty"])
@pytest.mark.parametrize("error", [FolderError, KeyboardInterrupt])
def test_a_command_that_fails_leaves_nothing_behind(tmp_path, place, error):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error):
        fail(tmp_path / place, error)
    notes = (tmp_path / place).parent / "notes"  # by someone else
    kept = {notes, *(folder for folder in notes.parents if tmp_path in folder.parents), tmp_path / "empty"}
    assert set(tmp_path.rglob("*")) == kept


def test_what_was_finished_stays_when_a_command_fails(tmp_path):
    with pytest.raises(KeyError):
        fail(tmp_path / "out", KeyError, finished=True)
    assert content(tmp_path / "out") == {"config.json": "half"}


def test_folders_of_others_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(FolderError, match=f"is not empty and has no {MARK_FILE}"):
        ResultFolder(tmp_path / "mine", "convert", "output", overwrite=True)
    write(tmp_path / "out", {}, {"config.json": "1"})
    folder = ResultFolder(tmp_path / "out", "evaluate", "--out", overwrite=True)
    with pytest.raises(FolderError, match="holds the results of `deepavfusion convert`"):
        folder.plan({})
    for text in ("{", '{"format": 0}'):
        (tmp_path / "out" / MARK_FILE).write_text(text)
        with pytest.raises(FolderError, match="cannot be read|another version"):
            ResultFolder(tmp_path / "out", "convert", "output")


def test_differences_name_what_changed():
    old = {"optim": {"epochs": 3.0, "betas": [0.9]}, "seed": 0}
    new = {"optim": {"epochs": 4.0, "betas": [0.9]}, "seed": 0, "model": {"size": "base"}}
    assert differences(old, new) == ['model: null -> {"size": "base"}', "optim.epochs: 3.0 -> 4.0"]
    assert differences(old, old) == []


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (0.2, 0.1 * 3, "a: 0.2 -> 0.3"),
        (0.3, 0.1 * 3, "a: 0.3 -> 0.30000000000000004"),
        (None, True, "a: null -> true"),
        ("é", 1e-12, 'a: "é" -> 1e-12'),
        (float("inf"), 1, "a: Infinity -> 1"),
    ],
)
def test_differences_show_values_as_recipes_do(old, new, line):
    assert differences({"a": old}, {"a": new}) == [line]


def test_a_folder_has_one_owner_at_a_time(tmp_path):
    code = (
        "import sys\nfrom deepavfusion.inference.folder import lock_folder\n"
        "try:\n    lock_folder(sys.argv[1])\nexcept BlockingIOError as error:\n    sys.exit(str(error))"
    )

    def other():
        return subprocess.run([warm_python(), "-c", code, str(tmp_path)], capture_output=True, text=True)

    lock = lock_folder(tmp_path)
    assert f"in use by another run (process {os.getpid()})" in other().stderr
    lock.close()
    assert other().returncode == 0


def test_a_lock_that_its_owner_removes_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Else two processes could hold a folder: one by the file that was removed, one by its successor."""
    lockf, removed = files.fcntl.lockf, []

    def remove_and_lock(file, how):
        if not removed:
            removed.append(True)
            (tmp_path / "run" / ".lock").unlink()
        lockf(file, how)

    monkeypatch.setattr(files.fcntl, "lockf", remove_and_lock)
    with lock_folder(tmp_path / "run") as lock:
        assert os.path.samestat(os.fstat(lock.fileno()), os.stat(tmp_path / "run" / ".lock"))


def test_a_folder_that_its_owner_removes_meanwhile_is_made_anew(tmp_path, monkeypatch):
    attempts = []

    def remove_and_open(path, *args, **kwargs):
        if not attempts:
            attempts.append(path)
            (tmp_path / "run").rmdir()
        return open(path, *args, **kwargs)

    monkeypatch.setattr(files, "open", remove_and_open, raising=False)
    lock_folder(tmp_path / "run").close()
    assert (tmp_path / "run" / ".lock").is_file()


def test_a_process_that_asks_for_the_owner_is_none(tmp_path):
    """The processes of one run ask at the same time."""
    lock_folder(tmp_path).close()
    code = (
        "import sys\nfrom deepavfusion.inference.folder import folder_owner\nprint(flush=True)\n"
        "while True:\n    folder_owner(sys.argv[1])"
    )
    with subprocess.Popen([warm_python(), "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        owners = {folder_owner(tmp_path) for _ in range(20000)}
        other.kill()
    assert owners == {None}
