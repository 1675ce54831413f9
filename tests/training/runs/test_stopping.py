"""The first signal is remembered, the second one ends the process."""

import signal

import pytest

from deepavfusion.training.runs.stopping import StopRequest


def test_a_second_signal_is_not_caught():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("number", "again"), [(signal.SIGINT, "press Ctrl-C again"), (signal.SIGTERM, "send SIGTERM")])
def test_the_first_signal_is_confirmed_at_once(number, again, capfd, monkeypatch):
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        with StopRequest():
            assert capfd.readouterr().err == ""
            signal.raise_signal(number)
            err = capfd.readouterr().err
        assert ("stopping: saving a checkpoint after this step" in err and again in err) == (rank == "0")
