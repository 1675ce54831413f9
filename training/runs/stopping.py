"""Requests to stop a run: SIGTERM from a scheduler, SIGINT from the keyboard."""

import contextlib
import os
import signal
import threading


class StopRequest:
    """Context that records SIGTERM and SIGINT, so that the current step can end and be saved; a second one kills.

    The first one is confirmed on stderr at once.

    Attributes:
        signal: Number of the signal, or None. The trainer shares a signal of any process with all.
    """

    def __init__(self):
        self.signal: int | None = None

    def __enter__(self):
        self.previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.previous[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number, frame):
        self.signal = number
        signal.signal(number, signal.SIG_DFL)
        if int(os.environ.get("RANK", 0)) == 0:
            again = "press Ctrl-C again" if number == signal.SIGINT else "send SIGTERM again"
            # Not by print, which a signal may have interrupted; a closed stderr must not end the run.
            with contextlib.suppress(OSError):
                os.write(2, f"\nstopping: saving a checkpoint after this step ({again} to abort without it)\n".encode())

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


__all__ = ["StopRequest"]
