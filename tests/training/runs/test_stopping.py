"""The first signal is remembered, the second one ends the process."""

import signal

from deepavfusion.training.runs.stopping import StopRequest


def test_a_second_signal_is_not_caught():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) == before
