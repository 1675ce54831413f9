"""The first signal is remembered, the second one ends the process; the message says how to resume."""

import signal
from types import SimpleNamespace

import pytest

from deepavfusion.training.runs.run import Run
from deepavfusion.training.runs.steps import StopRequest


def test_a_second_signal_is_not_caught():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("number", "resume", "text"),
    [
        (
            signal.SIGINT,
            True,
            "stopped by Ctrl-C (SIGINT) after step 7; checkpoint saved; run the same command to resume",
        ),
        (
            signal.SIGTERM,
            False,
            "stopped by SIGTERM after step 7; checkpoint saved; run the same command with run.resume=",
        ),
    ],
)
def test_the_message_says_how_to_resume(number, resume, text):
    recipe = SimpleNamespace(run=SimpleNamespace(resume=resume))
    stopped = SimpleNamespace(recipe=recipe, trainer=SimpleNamespace(state=SimpleNamespace(global_step=7)))
    assert Run._stopped(stopped, number).startswith(text)


@pytest.mark.parametrize(("number", "again"), [(signal.SIGINT, "press Ctrl-C again"), (signal.SIGTERM, "send SIGTERM")])
def test_the_first_signal_is_confirmed_at_once(number, again, capfd, monkeypatch):
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with StopRequest():
            assert capfd.readouterr().err == ""
            signal.raise_signal(number)
            err = capfd.readouterr().err
        assert ("stopping: saving a checkpoint after this step" in err and again in err) == (rank == "0")


def test_a_signal_after_the_last_step_does_not_promise_a_checkpoint(capfd):
    with StopRequest() as stop:
        stop.complete = True
        signal.raise_signal(signal.SIGINT)
    err = capfd.readouterr().err
    assert "the training is complete: the run ends when it is evaluated (press Ctrl-C again to interrupt that)" in err
    assert "checkpoint" not in err
