"""How a run is asked to stop: SIGTERM from a scheduler, SIGINT from a keyboard."""

import signal
import threading

import torch


class StopRequest:
    """Remembers SIGTERM and SIGINT while in use, so that the step at hand can end and be saved; a second one kills."""

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

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def agreed(self, state) -> bool:
        """Whether any process got a signal; `state` is accelerate's, and all processes must ask together."""
        if state.num_processes == 1:
            return self.signal is not None
        flag = torch.tensor(float(self.signal or 0), device=state.device)
        dist = torch.distributed
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)  # ty: ignore[possibly-missing-attribute]
        if flag and self.signal is None:
            self.signal = int(flag)
        return self.signal is not None


__all__ = ["StopRequest"]
