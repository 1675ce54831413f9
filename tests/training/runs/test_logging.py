"""metrics.jsonl and the lines on the terminal."""

import json
import re
import sys
from types import SimpleNamespace

import pytest

from deepavfusion.inference.jobs import progress
from deepavfusion.training.runs.logging import (
    LogAverages,
    MetricsFile,
    ProgressLog,
    evaluation_line,
    tracker_callbacks,
    training_line,
)
from tests.inference.jobs.test_progress import Terminal


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
        "learning_rate": 1e-4,
        "samples_per_second": 99.5,
    }
    lines = [
        training_line({**record, "step": step, "epoch": epoch, "eta": 3725.4}, 1000)
        for step, epoch in ((5, 0.01), (1000, 12.5))
    ]
    assert lines[0].startswith("step    5/1000")
    assert "  loss 1.5000  image loss 0.5000  audio loss 1.0000  " in lines[0]
    assert lines[0].endswith("samples/s")
    assert len(lines[0]) == len(lines[1])
    line = evaluation_line({**record, "step": 5, "epoch": 1, "fusion_map": 0.25}, 10, ("loss", "fusion_map", "top1"))
    assert line == "eval  5/10  epoch    1.00  loss 1.5000  1-NN mAP (fusion) 0.2500"


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("main", [True, False])
def test_a_slow_training_tells_where_it_is_between_its_log_lines(main, clock, tmp_path, capsys):
    """Ten steps of twelve seconds, the fifth of which is logged."""
    log = ProgressLog(MetricsFile(tmp_path / "metrics.jsonl"), main, "pretrain")
    state = SimpleNamespace(max_steps=10, global_step=0)
    logs = {"epoch": 0.5, "loss": 0.5, "learning_rate": 1e-4, "grad_norm": 1.0, "samples_per_second": 1.0, "eta": 48.0}
    log.on_train_begin(None, state, None)
    told = [clock[0]]
    for step in range(1, 11):
        clock[0] += 12
        state.global_step = step
        log.advance(1 / step)
        if step == 5:
            log.on_log(None, state, None, logs)
        captured = capsys.readouterr()
        told += [clock[0]] * bool(captured.out or captured.err)
        if main and step == 3:
            assert captured.err == "pretrain: 3 of 10 steps (30 %), eta 0:01:24, loss 0.3333\n"
        assert "step" not in captured.err or step in (3, 8)
    log.on_train_end(None, state, None)
    assert told == ([100, 136, 160, 196] if main else [100])


def test_a_training_on_a_terminal_shows_a_bar(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    log = ProgressLog(MetricsFile(tmp_path / "metrics.jsonl"), True, "pretrain")
    log.on_train_begin(None, SimpleNamespace(max_steps=10, global_step=4), None)
    clock[0] += 100
    log.advance(0.25)
    log.progress.bar.refresh()
    assert re.search(r"pretrain:  50%\|.*5/10 .*, loss 0\.2500", sys.stderr.getvalue())
    log.close()
    assert "eta" not in sys.stderr.getvalue()


def test_a_missing_tracker_is_named(monkeypatch):
    assert tracker_callbacks([]) == []
    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: False)
    with pytest.raises(ValueError, match="run.trackers=tensorboard cannot be used: .* tensorboard to be installed"):
        tracker_callbacks(["tensorboard"])
    with pytest.raises(ValueError, match="run.trackers=notebook .* trackio"):  # lists those that there are
        tracker_callbacks(["notebook"])


def test_averages_weigh_clips_and_start_anew():
    averages, losses = LogAverages(), ("loss", "image_loss")
    averages.add({"loss": 6.0, "image_loss": 4.0, "clips": 2, "grad_norm": 1.0, "wait": 0.1}, 0.5)
    resumed = LogAverages()
    vars(resumed).update(json.loads(json.dumps(vars(averages))))  # as by way of a checkpoint
    resumed.add({"loss": 4.0, "image_loss": 3.0, "clips": 8, "grad_norm": 3.0, "wait": 0.1}, 0.5)
    record = resumed.record(losses, remaining_steps=10)
    assert (record["loss"], record["image_loss"], record["grad_norm"]) == (1.0, 0.7, 2.0)
    assert (record["samples_per_second"], record["data_wait_fraction"]) == (10.0, pytest.approx(0.2))
    assert record["eta"] == pytest.approx(5.0)
    assert resumed.sums == {}
    assert (resumed.clips, resumed.seconds) == (10, 1.0)
