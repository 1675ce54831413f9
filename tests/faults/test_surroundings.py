"""Errors of the surroundings, each a line and an exit code: disks, folders, damaged files, dead processes, signals."""

import errno
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionForAudioVisualClassification
from deepavfusion.inference import classify, convert, files
from deepavfusion.inference.files import DiskFullError, FolderError, saving, write_atomically
from deepavfusion.inference.folder import ResultFolder
from deepavfusion.training.config.recipe import RecipeError, load_recipe
from deepavfusion.training.data.sets import audioset, avsbench, folder, lists, vggsound, vggsound_music
from deepavfusion.training.data.sets.boxes import vggss
from deepavfusion.training.runs.checkpoints import COMPLETE
from deepavfusion.training.runs.folder import RunFolder
from deepavfusion.training.runs.logging import MetricsFile
from deepavfusion_cli import boundary, errors
from deepavfusion_cli.early.marks import read_mark
from deepavfusion_cli.early.runs import BatchLayout
from tests.modeling_deepavfusion.cases import save_model

WORKER = """Caught OSError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "/site-packages/torch/utils/data/_utils/worker.py", line 1, in _worker_loop
    data = fetcher.fetch(index)
OSError: [Errno 24] Too many open files
"""
ADVICE = (
    "Weights only load failed. In PyTorch 2.6, we changed the default value of `weights_only`. Re-running `torch.load` "
    "with `weights_only` set to `False` will likely succeed, but it can result in arbitrary code execution."
)


def os_error(number, path="/data/x.csv"):
    return OSError(number, os.strerror(number), path)


SHARED_MEMORY = "unable to write to file </torch_7_8>: No space left on device [Errno 28]"
CUT = "PytorchStreamReader failed reading zip archive: failed finding central directory"
ERRORS = [
    (os_error(errno.ENOSPC), 1, "/data: the disk is full"),
    (os_error(errno.EDQUOT), 1, "/data: the disk is full"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), 1, "the disk is full"),
    (RuntimeError(SHARED_MEMORY), 1, "(/dev/shm) is full"),
    (os_error(errno.EROFS), 2, "/data/x.csv: read-only file system; choose another folder"),
    (os_error(errno.EACCES), 2, "/data/x.csv: permission denied; check its permissions"),
    (os_error(errno.ENOTDIR), 2, "/data/x.csv: not a directory"),
    (os_error(errno.EISDIR), 2, "/data/x.csv: is a directory"),
    (os_error(errno.ENAMETOOLONG), 2, "file name too long"),
    (os_error(errno.EMFILE), 1, "too many open files; raise the limit (ulimit -n)"),
    (os_error(errno.EIO), 1, "/data/x.csv: input/output error"),
    (OSError(WORKER), 1, "too many open files"),
    (MemoryError(), 1, "not enough memory"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 1, "on the GPU (for 2.00 GiB more)"),
    (RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"), 1, "a process that reads data ended"),
    (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), 1, "(killed by signal: killed)"),
    (pickle.UnpicklingError(ADVICE), 1, "which may run code when they are read"),
    (RuntimeError(CUT), 1, "damaged"),
    (FolderError("runs/x holds another run"), 2, "runs/x holds another run"),
    (ImportError("No module named 'accelerate'"), 2, "No module named 'accelerate'"),
    (KeyError("end"), 1, "KeyError: 'end' (--traceback shows where)"),
    (ZeroDivisionError(), 1, "ZeroDivisionError (--traceback shows where)"),
]


@pytest.mark.parametrize(("error", "code", "text"), ERRORS)
def test_every_error_has_a_code_and_a_line(error, code, text):
    found, message = errors.outcome(error)
    assert found == code
    assert text in message
    assert "\n" not in message
    for raw in ("Traceback", "weights_only", "[Errno", "os error", "site-packages"):
        assert raw not in message


@pytest.mark.parametrize("wrapper", [RecipeError, FolderError, ValueError])
def test_the_cause_decides_whatever_it_is_wrapped_in(wrapper):
    error = wrapper("model.init_from=/models/x cannot be used: [Errno 28]")
    error.__cause__ = os_error(errno.ENOSPC, "/cache/part")
    assert errors.outcome(error) == (1, "/cache: the disk is full: free space there, or choose another folder")


@given(number=st.sampled_from(sorted(errno.errorcode)), name=st.text("abc -./", min_size=1, max_size=20))
@settings(deadline=None, max_examples=100)
def test_a_path_that_is_named_is_not_repeated(number, name):
    path = f"/data/{name}"
    for error in (os_error(number, path), ValueError(f"Cannot read '{path}'"), ValueError(f"{path}: bad")):
        text = errors.cause(error, path)
        assert not re.search(rf"(?<![\w/.-]){re.escape(path)}(?![\w/-])", text)
        assert errors.cause(error).count(path) <= 1


class TestGuard:
    def test_signals_become_exit_codes_and_handlers_return(self, capsys):
        before = signal.getsignal(signal.SIGTERM)
        assert boundary.guard("x", lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
        assert boundary.guard("x", lambda: os.kill(os.getpid(), signal.SIGINT)) == 130
        assert capsys.readouterr().err == "terminated\ninterrupted\n"
        assert signal.getsignal(signal.SIGTERM) == before

    def test_a_signal_that_is_turned_into_another_error_or_dropped_still_stops(self, capsys):
        def convert():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt as error:
                raise ImportError("numpy failed to import") from error

        class Dropping:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGTERM)

        def drop():
            Dropping()
            signal.pause()

        hook = sys.unraisablehook
        assert boundary.guard("x", convert) == 130
        assert boundary.guard("x", drop) == 143
        assert capsys.readouterr().err == "interrupted\nterminated\n"
        assert sys.unraisablehook is hook

    def test_a_traceback_on_request_only(self, capsys):
        main = boundary.command("deepavfusion x")(lambda argv: {}[argv[0]])
        assert main(["key"]) == 1
        assert capsys.readouterr().err == "deepavfusion x: KeyError: 'key' (--traceback shows where)\n"
        assert main(["--traceback", "key"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("Traceback (most recent call last)")
        assert err.endswith("deepavfusion x: KeyError: 'key' (--traceback shows where)\n")

    def test_it_holds_inside_another(self, capsys):
        inner = boundary.command("inner")(lambda argv: {}["key"])
        assert boundary.guard("outer", lambda: inner([]), traceback=True) == 1
        assert "Traceback" in capsys.readouterr().err

    def test_processes_that_fail_together_say_it_once(self, capsys, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        assert boundary.guard("x", lambda: (_ for _ in ()).throw(FolderError("taken"))) == 2
        assert capsys.readouterr().err == ""
        assert boundary.guard("x", lambda: (_ for _ in ()).throw(OSError(errno.EIO, "", "/x"))) == 1
        assert capsys.readouterr().err == "x: /x: input/output error\n"

    def test_control_sequences_in_messages_are_escaped(self, capsys):
        assert boundary.guard("x", lambda: (_ for _ in ()).throw(FolderError("a\x1b[2Jb"))) == 2
        assert capsys.readouterr().err == "x: a\\u001b[2Jb\n"


def run_command(*arguments, code="import sys, deepavfusion_cli as c; sys.exit(c.main())", **streams):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    return subprocess.run([sys.executable, "-c", code, *arguments], text=True, timeout=60, env=environment, **streams)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_standard_output_on_a_full_disk(arguments):
    with open("/dev/full", "w") as full:
        done = run_command(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr.startswith("deepavfusion: standard output: the disk is full: free space there")
    assert done.stderr.count("\n") == 1


def test_standard_output_that_is_closed():
    code = "import os, sys; os.close(1); sys.stdout = None; import deepavfusion_cli as c; sys.exit(c.main())"
    done = run_command("--help", code=code)
    assert (done.returncode, done.stderr) == (0, "")


_SIGNAL_AT = """
import os, sys

class Finder:
    def find_spec(self, name, *_):
        if name == {module!r}:
            {action}

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("action", "code", "message"),
    [
        ("os.kill(os.getpid(), 2)", 130, "interrupted\n"),
        ("os.kill(os.getpid(), 15)", 143, "terminated\n"),
        ("raise ImportError('torch is broken')", 2, "torch is broken\n"),
        ("raise OSError(5, 'Input/output error', '/lib/x.so')", 1, "/lib/x.so: input/output error\n"),
    ],
)
@pytest.mark.parametrize("module", ["deepavfusion.training.pretrain", "deepavfusion.inference.classify", None])
def test_what_happens_while_modules_are_imported(tmp_path, module, action, code, message):
    where = "transformers" if module else "deepavfusion"
    (tmp_path / "sitecustomize.py").write_text(_SIGNAL_AT.format(module=where, action=action))
    (tmp_path / "config.json").write_text("{}")  # a model, as far as is looked before imports
    package = str(Path(cli.__file__).parent)
    entry = "import sys, deepavfusion_cli as c; sys.exit(c.main())"
    how = ["-m", module, "x"] if module else ["-c", entry, "classify", __file__, "--model", "."]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, *how], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), package
    said = done.stderr.removeprefix("" if module else "deepavfusion classify: loading ...\n")
    assert said.endswith(message)
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_modules_end_quietly_on_a_closed_pipe(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        line = [sys.executable, "-m", "deepavfusion.inference.convert", "--help"]
        done = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Folder of a saved classifier with its processor."""
    path = tmp_path_factory.mktemp("model")
    save_model(path, DeepAVFusionForAudioVisualClassification, num_labels=3, hidden_size=128)
    return path


def cut(data):
    return data[: len(data) // 2]


def pickled(data):
    buffer = io.BytesIO()
    torch.save({"model": Evil()}, buffer)
    return buffer.getvalue()


DAMAGE = {
    "model.safetensors": [cut, lambda data: b"", lambda data: b"text", lambda data: b"\xff" * 8 + data[8:], pickled],
    "config.json": [cut, lambda data: b"", lambda data: b"[]", lambda data: b"null", lambda data: b"\xff\xfe" + data],
    "processor_config.json": [cut, lambda data: b"3", lambda data: b"[" * 100_000],
}


@pytest.mark.parametrize(("name", "number"), [(name, i) for name, kinds in DAMAGE.items() for i in range(len(kinds))])
def test_damaged_files_of_a_model_are_named(model, tmp_path, capsys, name, number):
    for file in model.iterdir():
        if file.is_file():
            os.link(file, tmp_path / file.name)
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(DAMAGE[name][number]((model / name).read_bytes()))
    assert classify.main([__file__, "--model", str(tmp_path), "--device", "cpu"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith(
        (f"deepavfusion classify: {tmp_path} cannot be used: {name}", f"deepavfusion classify: {tmp_path / name}:")
    )
    assert err.count(str(tmp_path)) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize("damage", [pickled, cut, lambda data: b"text", lambda data: b""])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_checkpoints_with_code_or_damage_are_not_converted(tmp_path, capsys, damage, suffix):
    checkpoint = tmp_path / f"published.{suffix}"
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(3)}}, buffer)
    checkpoint.write_bytes(damage(buffer.getvalue()))
    assert convert.main([str(checkpoint), str(tmp_path / "out")]) == 2
    out, err = capsys.readouterr()
    assert "executed" not in out
    assert err.startswith(f"deepavfusion convert: {checkpoint}: ")
    assert (err.count("\n"), err.count(str(checkpoint))) == (1, 1)
    assert not re.search("weights_only|arbitrary|torch.load", err)
    assert not (tmp_path / "out").exists()


def test_convert_names_its_own_option_for_what_a_checkpoint_does_not_say(tmp_path, capsys):
    checkpoint = tmp_path / "published.pth"
    sizes = {"fusion_tokens": (1, 32, 100), "audio.blocks.0.mlp.fc1.weight": (400, 100)}
    torch.save({name: torch.zeros(shape) for name, shape in sizes.items()}, checkpoint)
    assert convert.main([str(checkpoint), str(tmp_path / "out")]) == 2
    reason = "Cannot infer the number of attention heads from hidden_size=100 (not a multiple of 64)"
    assert capsys.readouterr().err == f"deepavfusion convert: {checkpoint}: {reason}; pass --config FOLDER.\n"


class TestFullDisk:
    def usage(self, monkeypatch, free=1000):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)

    def test_folder_and_need_are_named_and_nothing_is_left(self, tmp_path, monkeypatch):
        self.usage(monkeypatch)
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(full))
        with pytest.raises(DiskFullError, match=rf"^{tmp_path}: the disk is full: 5 kB needed there, 1 kB free\."):
            write_atomically(tmp_path / "x.bin", b"x" * 5000)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
            RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 1280 vs 1174"),
            OSError(errno.EDQUOT, "Disk quota exceeded"),
        ],
    )
    def test_what_libraries_raise(self, tmp_path, monkeypatch, error):
        self.usage(monkeypatch)
        with pytest.raises(DiskFullError, match="2 MB needed there, 1 kB free"), saving(tmp_path / "absent", 2_000_000):
            raise error

    def test_other_errors_pass(self, tmp_path, monkeypatch):
        self.usage(monkeypatch, free=10**9)
        with pytest.raises(RuntimeError, match="inline_container"), saving(tmp_path, 10):
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 1280 vs 1174")

    def test_drafts_are_removed(self, tmp_path):
        result = ResultFolder(tmp_path / "out", "convert", "output")
        result.plan({})

        def write():
            result.begin()
            (result.draft / "half").write_text("x")
            raise OSError(errno.ENOSPC, "No space left on device")

        with pytest.raises(OSError, match="No space"), result.claimed():
            write()
        assert not result.draft.exists()
        assert not result.path.exists()

    @pytest.mark.parametrize("holds_model", [False, True])
    def test_half_written_checkpoints_go_and_whole_ones_stay(self, tmp_path, monkeypatch, holds_model):
        self.usage(monkeypatch)
        run = RunFolder(tmp_path / "run", "pretrain", FAKE)
        run.plan({}, BatchLayout(1, 1, 1))
        run.claim()
        run.begin("recipe")
        for name in (f"checkpoint-1/{COMPLETE}", "checkpoint-2/model.safetensors"):
            (run.checkpoints / name).parent.mkdir(parents=True)
            (run.checkpoints / name).touch()
        run.holds_model = holds_model
        with pytest.raises(DiskFullError, match="run: the disk is full: 160 bytes"), run.running(torch.nn.Linear(4, 2)):
            raise OSError(errno.ENOSPC, "No space left on device")
        assert [path.name for path in run.checkpoints.iterdir()] == ["checkpoint-1"]
        assert run.draft.exists() == holds_model
        assert run.lock is None


class FAKE:
    is_main_process = True
    wait_for_everyone = staticmethod(lambda: None)


READERS = {
    "vggsound.csv": vggsound.read_vggsound_csv,
    "vggss.json": vggss.read_vggss,
    "pairs.csv": vggsound_music.read_pairs,
    "labels.csv": audioset.read_class_labels,
    "segments.csv": audioset.read_segments,
    "label2idx.json": avsbench.read_label_names,
    "metadata.csv": avsbench.read_metadata,
    "list.csv": lists.read_list,
    "list.json": lists.read_list,
    "pairs.tsv": lists.read_test_pairs,
    "annotations.csv": folder.read_annotations,
    "annotations.jsonl": folder.read_annotations,
}
CONTENTS = {
    "a spreadsheet": ("", b"PK\x03\x04\x14\0\x06\0"),
    "latin-1": ("json", "id,file\nVögel,1\n".encode("latin-1")),
    "UTF-16": ("json", "id,file\n".encode("utf-16")),
    "a long field": ("csv", b'id,file\n"' + b"x" * 200_000 + b'"\n'),
    "half of it": ("json", b'[{"file": "x.mp4", '),
    "deep": ("json", b"[" * 100_000),
    "not an object": ("json", b"3"),
}
CASES = [
    (name, content) for name in READERS for content, (suffix, _) in CONTENTS.items() if suffix in Path(name).suffix
]


@pytest.mark.parametrize(("name", "content"), CASES)
def test_lists_that_cannot_be_read_are_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(CONTENTS[content][1])
    with pytest.raises(ValueError) as caught:
        READERS[name](path)
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1\nb: 2\n", "line 2, column 2: not valid YAML"),
        (b"a: \xff\n", "it is not UTF-8 text (byte 3)"),
        (b"[" * 100_000, "not valid YAML (is nested too deeply, in more than 50 lists or mappings)"),
        (b"run: {seed: 2024-13-45}\n", "not valid YAML (has a value that cannot be read: month must be in 1..12)"),
        (b"\x00\x07", "not valid YAML"),
        (b"3", "holds a number: expected sections"),
    ],
)
def test_recipes_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe("pretrain", str(path))
    text = str(caught.value)
    assert message in text
    assert (text.count(str(path)), text.count("\n")) == (1, 0)


@pytest.mark.parametrize("value", ["2024-13-45", "[" * 5000, "1" * 5000 + "_", "{a"])
def test_values_that_cannot_be_read(value):
    with pytest.raises(RecipeError):
        load_recipe("pretrain", "scenes_tiny", [f"run.seed={value}"])


@pytest.mark.parametrize("path", ["/dev/null/x", "/proc/nothing/x", "/sys/x", "x" * 300, "a\0b"])
def test_folders_that_cannot_be(path):
    with pytest.raises(FolderError) as caught, ResultFolder(path, "convert", "--out").claimed():
        pass
    assert str(caught.value).count(path) == 1
    assert "Errno" not in str(caught.value)


def test_a_folder_for_results_is_checked_before_the_model_is_loaded(capsys):
    for name in ("embed", "separate", "segment", "localize"):
        assert cli.main([name, "clip.mp4", "--model", "nowhere", "--out", "/dev/null/x"]) == 2
        assert "--out=/dev/null/x cannot be written to: /dev/null is a file" in capsys.readouterr().err


MARKERS = ("[]", "3", '{"format": 1}', '{"format": 1, "command": 3}', "{", "\xff", "[" * 9999)


@pytest.mark.parametrize("content", MARKERS)
def test_markers_that_are_damaged(tmp_path, content):
    (tmp_path / ".deepavfusion-run.json").write_text(content, encoding="latin-1")
    with pytest.raises(FolderError, match="name another --out") as caught:
        read_mark(tmp_path, "--out")
    assert str(caught.value).count(str(tmp_path)) == 1


@pytest.mark.parametrize("line", ["{", "3", "[]", '{"kind": "train"}', '{"step": "x", "kind": "train"}'])
def test_a_damaged_record_of_a_run_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f"{json.dumps({'step': 1, 'kind': 'train'})}\n{line}\n")
    with pytest.raises(FolderError, match=r"metrics.jsonl, line 2, is not JSON with a step and a kind"):
        MetricsFile(path).read()


class Dying(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)


class Failing(Dying):
    def __getitem__(self, index):
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/x")


@pytest.mark.parametrize(("data", "text"), [(Dying, "a process that reads data ended"), (Failing, "the disk is full")])
def test_workers_that_die_or_fail(data, text, capsys):
    loader = torch.utils.data.DataLoader(data(), num_workers=1)
    assert boundary.guard("deepavfusion pretrain", lambda: list(loader)) == 1
    err = capsys.readouterr().err
    assert text in err
    assert err.count("\n") == 1


def test_more_memory_than_there_is(capsys):
    assert boundary.guard("x", lambda: torch.empty(2**62, dtype=torch.uint8)) == 1
    assert capsys.readouterr().err.startswith("x: not enough memory (for 4611686018427387904 bytes more)")


@pytest.mark.parametrize("name", sorted({*cli.COMMANDS} - {"recipes"}))  # which `cli.main` answers, inside the boundary
def test_every_command_is_inside_the_boundary(name):
    package = "inference" if name in cli.INFERENCE else "training"
    source = Path(__file__).parents[2] / package / f"{cli.MODULES.get(name, name).replace('.', '/')}.py"
    source = source if source.is_file() else source.with_suffix("") / "__init__.py"
    program = {"data": "deepavfusion data check"}.get(name, f"deepavfusion {name}")
    assert f'@command("{program}")\ndef main(' in source.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Validation error for field 'depth': TypeError: Field 'depth' expected int, got str (value: 'x')",
            "depth is 'x': expected a whole number",
        ),
        (
            "Error: Field 'size' with value 'x' doesn't match any type in (<class 'int'>, list[int], tuple[int]). E",
            "size is 'x': expected a whole number or a list of whole numbers",
        ),
        ("invalid literal for int() with base 10: 'a'", "'a' is no whole number"),
        ("could not convert string to float: 'a'", "'a' is no number"),
        ("Class validation error for validator 'validate_x': ValueError: x is 3: expected 4.", "x is 3: expected 4."),
    ],
)
def test_types_are_told_in_words(text, expected):
    assert errors.cause(ValueError(text)) == expected


def test_weights_that_are_no_file_are_named(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    assert files.damaged_file(tmp_path) == "model.safetensors is a folder, not a file"
    (tmp_path / "model.safetensors").rmdir()
    (tmp_path / "model.safetensors").symlink_to("nowhere")
    assert files.damaged_file(tmp_path) == "model.safetensors is a link to nothing"
