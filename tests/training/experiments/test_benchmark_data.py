"""The benchmark of files and shards."""

import json
from pathlib import Path

import pytest

from deepavfusion.processors.file_source_deepavfusion import FileSource
from deepavfusion.training.experiments import benchmark_data
from deepavfusion.training.experiments.benchmark_data import __main__ as program
from deepavfusion.training.experiments.benchmark_data import steps as steps_file
from deepavfusion.training.experiments.benchmark_data import throughput
from tests.training.data.disk import make_clips, write

PAGE = Path(__file__).parents[3] / "docs" / "results.md"
RESULTS = Path(benchmark_data.__file__).parents[1] / "results"


def test_files_and_shards_are_compared(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(throughput, "_TURN", 0.0)
    monkeypatch.setattr(throughput, "in_fresh_process", lambda function, *words: function(*words))
    make_clips(tmp_path / "videos", 3, 1.0)
    out = tmp_path / "results" / "found.json"
    page = write(tmp_path / "page.md", "before\n<!-- data:begin -->\n<!-- data:end -->\nafter\n")
    words = ["--size", "32", "--repeats", "1", "--samples", "20", "--results", str(out), "--page", str(page)]
    decode = FileSource.read_frames
    assert program.main([str(tmp_path / "videos"), *words]) == 0
    assert FileSource.read_frames is decode  # as it was
    found = json.loads(out.read_text())
    rates = found["samples_per_second"]
    assert set(rates) == {"files", "pyav", "flac", "pcm", "h264"}
    assert found["times_files"]["flac"] == pytest.approx(rates["flac"] / rates["files"], rel=0.1)
    assert found["clips"] == 2  # of three, one is held out
    assert 0 < found["preparation"]["flac"]["megabytes_per_clip"] < 1
    assert found["memory"]["samples"] == 20
    assert set(found["step_milliseconds"]) == {"files", "flac", "pcm", "h264"}
    for steps in found["step_milliseconds"].values():
        assert list(steps) == list(steps_file.STEPS)
        assert min(steps.values()) > 0
    table = throughput.throughput_table(found)
    assert capsys.readouterr().out.strip() == table
    assert page.read_text() == f"before\n<!-- data:begin -->\n\n{table}\n\n<!-- data:end -->\nafter\n"
    assert [line.count("|") for line in table.splitlines()[:7]] == [12] * 7
    assert f"| video files | {rates['files']:.1f} | - | - | - |" in table


def test_the_table_of_the_page_is_that_of_the_results():
    table = throughput.throughput_table(json.loads((RESULTS / "benchmark_data_cpu.json").read_text(encoding="utf-8")))
    assert f"<!-- data:begin -->\n\n{table}\n\n<!-- data:end -->" in PAGE.read_text(encoding="utf-8")


def test_time_counts_as_that_of_the_innermost_step(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(steps_file.time, "process_time", lambda: next(clock))
    steps = steps_file.Steps()
    inner = steps.timed("inner", lambda: None)
    steps.timed("outer", lambda: (inner(), inner()))()
    assert steps.seconds == {"inner": 2, "outer": 3}  # of five in all


def test_what_the_results_say_of_memory_and_rates_holds():
    """The targets: 200 samples a second, 40 times as many as from files, near PyAV's rate, in constant memory."""
    found = json.loads((RESULTS / "benchmark_data_cpu.json").read_text(encoding="utf-8"))
    assert found["samples_per_second"]["flac"] >= 200
    assert found["times_files"]["flac"] >= 40
    assert found["files_to_pyav"] >= 0.9
    assert found["memory"]["samples"] >= 20_000
    assert found["memory"]["megabytes"] <= found["memory"]["megabytes_early"] * 1.02


def test_windows_reduced_frames_and_spectrograms_are_compared(tmp_path, capsys):
    make_clips(tmp_path / "videos", 2, 2.0)
    for only in ("windows", "reduction", "spectrograms"):
        out = tmp_path / f"{only}.json"
        words = ["--only", only, "--repeats", "1", "--results", str(out)]
        assert program.main([str(tmp_path / "videos"), *words]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    found = json.loads((tmp_path / "windows.json").read_text())
    assert (found["clips"], found["windows"]) == (2, 10)
    assert 0 < found["ratio"]["lowest"] <= found["ratio"]["median"] <= found["ratio"]["highest"]
    found = json.loads((tmp_path / "reduction.json").read_text())
    assert found["frames"] == 8
    assert all(about["fraction_of_crops"] == 0 for about in found["sizes"].values())  # of frames of 48 pixels
    found = json.loads((tmp_path / "spectrograms.json").read_text())
    assert (found["windows"], list(found["milliseconds"])) == (32, ["1", "8", "32"])
    assert found["times_single"]["8"] == pytest.approx(
        found["milliseconds"]["8"] / found["milliseconds"]["1"], abs=0.02
    )


def test_what_the_results_say_of_windows_frames_and_spectrograms_holds():
    """The target of reduced frames: at most a level of 255 on average."""
    windows = json.loads((RESULTS / "clip_windows_cpu.json").read_text(encoding="utf-8"))
    assert windows["ratio"]["median"] > 2
    sizes = json.loads((RESULTS / "reduced_frames_cpu.json").read_text(encoding="utf-8"))["sizes"]
    assert all(sizes[str(size)]["levels"] <= 1 for size in (48, 64, 80))
    assert all(sizes[str(size)]["levels"] > 1 for size in (112, 128))
    assert sizes["224"] == {"fraction_of_crops": 0}
    batches = json.loads((RESULTS / "spectrogram_batches_cpu.json").read_text(encoding="utf-8"))
    assert min(batches["times_single"].values()) > 0.9  # a batch saves less than 10 %, or nothing
