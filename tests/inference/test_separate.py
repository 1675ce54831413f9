"""The command separate on long recordings: memory, resuming, and what it shows."""

import io
import re
import subprocess
import sys
import wave

import numpy as np
import pytest
from PIL import Image

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionForSourceSeparation
from deepavfusion.inference import separate
from deepavfusion.inference.jobs.recording_drafts import RecordingDraft
from deepavfusion.processors import chunking_deepavfusion, sample_streams_deepavfusion
from deepavfusion.processors.recording_separation_deepavfusion import RecordingSeparation
from tests.isolated import run_python
from tests.media_factory import write_kinds
from tests.modeling_deepavfusion.cases import save_model


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("separate")
    save_model(folder / "model", DeepAVFusionForSourceSeparation, seed=1)
    write_kinds(folder, seconds=3.0, sound_seconds=3.1, silent_seconds=1.0, rate=16000, picture="cello.png")
    return folder


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    """Runs the command on clip.mov in parts of half a second; gives its exit code and the files that it wrote."""
    monkeypatch.setattr(sample_streams_deepavfusion, "_CHUNK", 8000)
    monkeypatch.setattr(chunking_deepavfusion, "_BLOCK", 20)
    monkeypatch.setattr(separate, "_MAX_SPECTROGRAM_SECONDS", 0.25)

    def run(*options, out="out"):
        given = [str(folder / "clip.mov"), "--model", str(folder / "model"), "--out", str(tmp_path / out)]
        code = cli.main(["separate", *given, "--device", "cpu", *options])
        return code, {path.name: path.read_bytes() for path in (tmp_path / out).glob("*") if path.is_file()}

    return run


def stop_after(monkeypatch, count, error):
    """Ends the separation after a number of parts."""
    parts, used = RecordingSeparation.parts, []

    def stopping(self, skip=0):
        used.append(skip)
        for number, part in enumerate(parts(self, skip)):
            if number == count:
                raise error
            yield part

    monkeypatch.setattr(RecordingSeparation, "parts", stopping)
    return used


def test_a_run_that_was_killed_is_continued_with_the_same_result(run, tmp_path, monkeypatch, capsys):
    code, expected = run(out="whole")
    assert code == 0
    assert not list((tmp_path / "whole").glob("*.unfinished"))
    with monkeypatch.context() as patch:
        patch.setattr(RecordingDraft, "__exit__", lambda self, *_: self.close())  # no other cleanup runs after a kill
        stop_after(patch, 3, Killed())
        with pytest.raises(Killed):
            run()
    assert not list((tmp_path / "out").glob("*.wav"))  # no result before it is whole
    capsys.readouterr()
    with monkeypatch.context() as patch:
        used = stop_after(patch, 2, KeyboardInterrupt())
        assert run()[0] == 130
    assert used == [3]
    assert "clip: 0:00:02 of 0:00:03 are separated already; the rest follows" in capsys.readouterr().err
    assert run() == (0, expected)
    assert not list((tmp_path / "out").glob("*.unfinished"))


def test_other_options_start_anew(run, folder, monkeypatch):
    for options in (("--overlap", "0.25"), ("--frame", str(folder / "cello.png")), ("--frame", "0.5")):
        with monkeypatch.context() as patch:
            stop_after(patch, 2, KeyboardInterrupt())
            assert run()[0] == 130
            used = stop_after(patch, 1, KeyboardInterrupt())
            assert run(*options)[0] == 130
            assert used == [0]


WAITING = """
import sys
import deepavfusion_cli as cli
from deepavfusion.processors.recording_separation_deepavfusion import RecordingSeparation

parts = RecordingSeparation.parts

def waiting(self, skip=0):
    for part in parts(self, skip):
        yield part
        if part.index == 0:
            print("started", flush=True)
            sys.stdin.readline()

RecordingSeparation.parts = waiting
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_second_process_on_the_same_recording_is_told_of_the_first(folder, tmp_path, capsys):
    words = ["separate", str(folder / "clip.mov"), "--model", str(folder / "model"), "--device", "cpu"]
    words += ["--out", str(tmp_path / "out")]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", WAITING, *words], text=True, **streams) as first:
        assert first.stdout.readline() == "started\n", first.stderr.read()
        for options in ((), ("--overwrite",), ("--overlap", "0.25")):
            assert cli.main([*words, *options]) == 2
            place = tmp_path / "out" / "clip.unfinished"
            told = f"{place} is in use by another run (process {first.pid}): wait until it ends, or name another one."
            assert capsys.readouterr().err == f"deepavfusion separate: {told}\n"
        out, err = first.communicate("\n")
    assert (first.returncode, out.count("written to "), err) == (0, 3, "")
    names = ["clip_separated.json", "clip_separated.mp4", "clip_separated.wav", "clip_spectrograms.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert cli.main(words) == 0
    record = tmp_path / "out" / "clip_separated.json"
    assert capsys.readouterr().err == f"clip: its results are there already, as {record} says\n"
    assert cli.main([*words, "--overlap", "0.25"]) == 2
    assert "clip_separated.json already exists" in capsys.readouterr().err


def test_results_of_a_process_that_was_faster_are_not_replaced(run, tmp_path, monkeypatch, capsys):
    """It ends between the look for earlier results and the lock of the draft."""
    enter = RecordingDraft.__enter__

    def enter_late(self):
        self.outputs[0].parent.mkdir()
        self.outputs[0].write_text("result")
        return enter(self)

    monkeypatch.setattr(RecordingDraft, "__enter__", enter_late)
    assert run() == (2, {"clip_separated.wav": b"result"})
    assert "clip_separated.wav already exists" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.unfinished"))


def test_a_recording_that_fails_at_once_leaves_no_folder(run, tmp_path, monkeypatch):
    stop_after(monkeypatch, 0, KeyboardInterrupt())
    assert run() == (130, {})
    assert not list(tmp_path.glob("out/*"))


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_progress_is_a_bar_on_a_terminal_alone(run, stream, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", stream())
    code, _ = run()
    assert code == 0
    shown = sys.stderr.getvalue()
    assert (re.search(r"separate clip:   0%\|.*0:00:00 of 0:00:03 \[00:00<\?\]", shown) is not None) == (
        stream is Terminal
    )
    if stream is not Terminal:
        assert shown == ""
    assert capsys.readouterr().out.count("written to ") == 3


def test_a_full_disk_is_foreseen(run, monkeypatch, capsys):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(separate.shutil, "disk_usage", lambda _: usage)
    assert run()[0] == 0
    needed = 3.1 * 16000 * 6 / 1e3
    assert f"the separated recording needs about {needed:.0f} kB, and 1 kB are free" in capsys.readouterr().err


MEASURE = """
import resource
import sys
from deepavfusion import DeepAVFusionForSourceSeparation
from deepavfusion.inference import separate


def highest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB


model, image, out, *recordings = sys.argv[1:]
loaded = DeepAVFusionForSourceSeparation.from_pretrained(model)
print(highest())
for recording in recordings:
    given = [recording, "--model", model, "--device", "cpu", "--out", out, "--frame", image]
    assert separate.main([*given, "--overlap", "0"]) == 0
    print(highest())
"""


def test_memory_does_not_depend_on_the_length(tmp_path):
    """Four minutes after one, each of which takes more than 60 MiB if it is separated at once."""
    save_model(tmp_path / "model", DeepAVFusionForSourceSeparation, seed=1, spectrogram_length=192, num_mel_bins=32)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "image.png")
    second = (3000 * np.random.default_rng(0).standard_normal(44100)).astype("<i2").tobytes()
    for minutes in (1, 4):
        with wave.open(str(tmp_path / f"{minutes}.wav"), "wb") as file:
            file.setparams((1, 2, 44100, 0, "NONE", ""))
            for _ in range(60 * minutes):
                file.writeframes(second)
    arguments = [str(tmp_path / name) for name in ("model", "image.png", "out", "1.wav", "4.wav")]
    printed = run_python(MEASURE, *arguments, home=tmp_path / "home")
    before, short, long = (float(line) for line in printed.splitlines() if re.fullmatch(r"[\d.]+", line))
    assert long - before < 300  # in MiB, beside the model
    assert long - short < 80
    with wave.open(str(tmp_path / "out" / "4_image.wav")) as file:
        assert file.getnframes() == 240 * 44100
