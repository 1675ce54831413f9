"""metrics.jsonl and the lines on the terminal."""

import json

import pytest

from deepavfusion.training.runs.logging import MetricsFile, check_trackers, duration, evaluation_line, training_line


def test_records_beyond_a_checkpoint_are_removed(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    assert metrics.read() == []
    for step in range(1, 6):
        metrics.append({"step": step, "kind": "train"})
    metrics.append({"step": 5, "kind": "evaluation"})
    metrics.keep_until(4)
    assert [record["step"] for record in metrics.read()] == [1, 2, 3, 4]
    assert metrics.read("evaluation") == []
    metrics.keep_until(-1)
    assert metrics.path.read_text() == ""


def test_a_half_written_last_line_is_dropped_and_a_damaged_file_is_not(tmp_path):
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.path.write_text(json.dumps({"step": 1, "kind": "train"}) + '\n{"step": 2, "ki')
    assert [record["step"] for record in metrics.read()] == [1]
    metrics.path.write_text('{"step": 2, "ki\n' + json.dumps({"step": 1, "kind": "train"}) + "\n")
    with pytest.raises(ValueError, match="line 1"):
        metrics.read()


def test_lines_are_aligned():
    record = {
        "loss": 1.5,
        "image_loss": 0.5,
        "audio_loss": 1.0,
        "grad_norm": 0.3,
        "lr": 1e-4,
        "samples_per_second": 99.5,
    }
    lines = [
        training_line({**record, "step": step, "epoch": epoch, "eta": 3725.4}, 1000)
        for step, epoch in ((5, 0.01), (1000, 12.5))
    ]
    assert lines[0].startswith("step    5/1000")
    assert lines[0].endswith("eta 1:02:05")
    assert len(lines[0]) == len(lines[1])
    line = evaluation_line({**record, "step": 5, "epoch": 1, "probe": {"fusion": {"map": 0.25, "auc": 0.6}}}, 10)
    assert "fusion 25.0 % (map)" in line
    assert "fusion" not in evaluation_line({**record, "step": 5, "epoch": 1, "probe": None}, 10)


def test_durations():
    assert duration(59.6) == "0:01:00"
    assert duration(90000) == "1 day, 1:00:00"


def test_a_missing_tracker_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_trackers([])
    with pytest.raises(ImportError, match="run.trackers names tensorboard"):
        check_trackers(["tensorboard"])
