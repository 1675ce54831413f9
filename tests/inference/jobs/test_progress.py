"""Bars on a terminal, lines elsewhere."""

import io
import re
import sys
import threading

import pytest
from transformers.utils import logging

from deepavfusion.inference.jobs import progress as module
from deepavfusion.inference.jobs.progress import (
    Count,
    Progress,
    announced,
    counted,
    duration,
    plain_output,
    with_progress,
)
from deepavfusion_cli.terminal import say


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_bar_is_drawn_at_once_with_the_remaining_time(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("embed", 1000, "window") as progress:
        first = sys.stderr.getvalue()
        progress.bar.start_t -= 10  # ten seconds later
        progress.update(250)
        progress.bar.refresh()
        assert "embed:  25%" in sys.stderr.getvalue()
        assert "250/1000 [00:10<00:3" in sys.stderr.getvalue()
    assert "embed:   0%" in first
    assert "0/1000 [00:00<?" in first


def test_a_bar_of_a_recording_shows_its_time_and_starts_where_an_earlier_process_ended(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("separate duet", 7200.0, "s", done=3600.0) as progress:
        assert "separate duet:  50%" in sys.stderr.getvalue()
        progress.reach(5400.0)
        progress.bar.refresh()
    assert "1:30:00 of 2:00:00" in sys.stderr.getvalue()


def test_lines_now_and_then_where_there_is_no_terminal(clock, capsys):
    progress = Progress("separate duet", 3600.0, "s", done=600.0)
    for _ in range(6):
        clock[0] += 10
        progress.update(150)
    progress.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "separate duet: 0:17:30 of 1:00:00 (29 %), eta 0:02:50\nseparate duet: 0:25:00 of 1:00:00 (42 %), eta 0:02:20\n"
    )


def test_lines_count_what_is_not_seconds(clock, capsys):
    batches = with_progress([1, 2, 3], "evaluation", "batch", "batches")
    for _ in batches:
        clock[0] += 31
    assert capsys.readouterr().err.splitlines() == [
        "evaluation: 1 of 3 batches (33 %), eta 0:01:02",
        "evaluation: 2 of 3 batches (67 %), eta 0:00:31",
        "evaluation: 3 of 3 batches (100 %), eta 0:00:00",
    ]


def test_what_came_before_the_work_does_not_count(clock, capsys):
    """As an evaluation before the first step of a training."""
    progress = Progress("pretrain", 10, "step")
    clock[0] += 3600
    progress.start_again()
    clock[0] += 2
    progress.update(2)
    assert capsys.readouterr().err == "pretrain: 2 of 10 steps (20 %), eta 0:00:08\n"


def test_no_line_follows_another_that_tells_as_much(clock, capsys):
    progress = Progress("finetune", 100, "step")
    for note in ("loss 2.0000", "loss 1.0000", "loss 0.5000"):
        clock[0] += 20
        progress.update(note=note)
        if note == "loss 1.0000":
            progress.mark_reported()
    clock[0] += 10
    progress.update(note="loss 0.2500")
    assert capsys.readouterr().err.splitlines() == [
        "finetune: 2 of 100 steps (2 %), eta 0:32:40, loss 1.0000",
        "finetune: 4 of 100 steps (4 %), eta 0:28:00, loss 0.2500",
    ]


def test_a_bar_shows_the_note(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("finetune", 100, "step") as progress:
        progress.update(10, "loss 0.5000")
        progress.bar.refresh()
        assert re.search(r"finetune:  10%\|.*\| 10/100 \[00:00<[^]]*\], loss 0\.5000", sys.stderr.getvalue())


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
@pytest.mark.parametrize("case", ["not shown", "worker", "second process"])
def test_other_processes_show_nothing(stream, case, clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    if case == "worker":
        monkeypatch.setattr(module.multiprocessing, "parent_process", lambda: "main")
    if case == "second process":
        monkeypatch.setenv("RANK", "1")
    with Progress("embed", 10, "window", shown=case != "not shown") as progress:
        clock[0] += 60
        progress.update()
    assert sys.stderr.getvalue() == ""


def test_lines_are_printed_above_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    with Progress("embed", 10, "window"):
        say("clip.mp4")
        say("absent.mp4: no such file", stream=sys.stderr)
    assert sys.stdout.getvalue() == "clip.mp4\n"
    assert "\rabsent.mp4: no such file\n" in sys.stderr.getvalue().replace(" ", "").replace(
        "absent.mp4:nosuchfile", "absent.mp4: no such file"
    )


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_bars_of_libraries_are_left_to_terminals(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    monkeypatch.delenv("HF_DATASETS_DISABLE_PROGRESS_BARS", raising=False)
    shown = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        plain_output()
        assert logging.is_progress_bar_enabled() == (stream is Terminal)
    finally:
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()


def test_durations():
    assert duration(59.6) == "0:01:00"
    assert duration(90000) == "1 day, 1:00:00"


def test_what_is_counted_is_shown_once_it_takes_long(clock, capsys):
    with Count("big: listing its files", "entry", "entries") as count:
        for seconds in (1.0, 0.4, 0.2, 20.0, 20.0, 1.0):
            clock[0] += seconds
            count.add()
    for _ in counted(range(2000), "x", "file"):
        clock[0] += 0.001
    line = "big: listing its files: {} entries so far\n"
    assert capsys.readouterr().err == line.format(3) + line.format(5) + "x: 1,500 of 2,000 files so far\n"


def test_on_a_terminal_one_line_counts(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Count("big", "file", total=3) as count:
        count.add()
        assert sys.stderr.getvalue() == ""
        clock[0] += 2
        count.add()
        count.bar.refresh()
        assert "big: 2 of 3 files [" in sys.stderr.getvalue()
    assert sys.stderr.getvalue().endswith("\r")


def test_other_processes_count_nothing(clock, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    for _ in counted(range(3), "x", "file"):
        clock[0] += 60
    with announced("x"):
        clock[0] += 60
    assert capsys.readouterr() == ("", "")


def test_what_takes_long_is_announced(capsys, monkeypatch):
    with announced("short"):
        pass
    monkeypatch.setattr(module, "_SHORT_SECONDS", 0.0)
    with announced("listing the clips"):
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join()
    assert capsys.readouterr().err == "listing the clips ...\n"
