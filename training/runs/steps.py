"""Optimizer steps: what each process measures in one, what all share of it, and signals that ask a run to stop."""

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from deepavfusion.presence_deepavfusion import without_reading_values

from ..data.loading import on_device


@dataclass
class Step:
    """Measurements of this process in an optimizer step.

    Attributes:
        number: Number of the step, from 1.
        started: Time at which it began to wait for its clips, of `time.perf_counter`.
        wait: Seconds that it waited.
        sums: Losses times clips, and clips, on the device.
        broken: Paths of clips that could not be read, with reasons.
        paths: Paths of its clips.
        micro: Number of batches so far.
        grad_norm: Norm of the gradient before clipping, on the device.
        seconds: Duration of the step.
    """

    number: int
    started: float
    wait: float
    sums: torch.Tensor
    broken: list[tuple[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    micro: int = 0
    grad_norm: torch.Tensor | float = 0.0
    seconds: float = 0.0


class SharedStep:
    """The measurements of a step, summed over all processes and copied to the host without waiting for the device.

    All processes must create one together.

    Args:
        step: Those of this process.
        names: Names of the losses.
        stop: Number of a signal that asks this process to stop, or None.
        accelerator: Of `accelerate`.
    """

    def __init__(self, step: Step, names: Sequence[str], stop: int | None, accelerator):
        self.step, self.names = step, names
        device, dtype = accelerator.device, step.sums.dtype
        flags = torch.zeros(1 + accelerator.num_processes, dtype=dtype)
        flags[0], flags[1 + accelerator.process_index] = len(step.broken), stop or 0
        finite = step.sums.isfinite()
        bad = (~finite).any().to(dtype)[None]
        seen = torch.cat([step.sums.masked_fill(~finite, 0.0), bad, on_device(flags, device)])
        norm = step.grad_norm if torch.is_tensor(step.grad_norm) else torch.tensor(step.grad_norm)
        norm = on_device(norm.to(dtype), device).reshape(1)
        self._host, self._copied = _to_host(torch.cat([accelerator.reduce(seen, "sum"), norm, bad]))

    def read(self) -> None:
        """Wait for the copy, and set the other attributes.

        Attributes:
            totals: Losses times clips, "clips", "grad_norm" and "wait" over all processes.
            loss_is_finite: Whether that of every process is.
            own_loss_is_finite: Whether that of this process is.
            broken: Number of clips that could not be read.
            stop: Number of a signal that asks a process to stop, or None.
        """
        if self._copied is not None:
            self._copied.synchronize()
        *sums, norm, own_bad = self._host.tolist()
        sums, (bad, broken, *signals) = sums[: len(self.names) + 1], sums[len(self.names) + 1 :]
        self.loss_is_finite, self.own_loss_is_finite = not bad, not own_bad
        self.broken, self.stop = int(broken), int(max(signals)) or None
        self.totals = dict(zip((*self.names, "clips"), sums, strict=True))
        self.totals |= {"grad_norm": norm, "wait": self.step.wait}


@contextlib.contextmanager
def forward_context(on_accelerator: bool, recompiles: bool):
    """Context of a forward pass in training.

    Args:
        on_accelerator: Whether reading values would wait for the device: checks that do so are left out.
        recompiles: Whether a compiled model meets a batch of another size, because clips could not be read: it runs
            without compilation rather than being compiled again.
    """
    with contextlib.ExitStack() as stack:
        if on_accelerator:
            stack.enter_context(without_reading_values())
        if recompiles:
            stack.enter_context(torch.compiler.set_stance("eager_on_recompile"))
        yield


def measured_dtype(device: torch.device) -> torch.dtype:
    """The dtype of sums over many clips: float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _to_host(values: torch.Tensor) -> tuple[torch.Tensor, torch.Event | None]:
    """A copy on the host, and the event after which it is complete; None if it is complete."""
    if values.device.type == "cpu":
        return values.clone(), None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.device.type == "cuda")
    host.copy_(values, non_blocking=True)
    copied = torch.Event(values.device)
    copied.record()
    return host, copied


class StopRequest:
    """Context that records SIGTERM and SIGINT, so that the current step can end and be saved; a second one kills.

    The first one is confirmed on stderr at once.

    Attributes:
        signal: Number of the signal, or None. The trainer shares a signal of any process with all.
        complete: Whether the last step is done, so that an evaluation alone is left.
    """

    def __init__(self):
        self.signal: int | None = None
        self.complete = False

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
            text = f"stopping: saving a checkpoint after this step ({again} to abort without it)"
            if self.complete:
                text = f"the training is complete: the run ends when it is evaluated ({again} to interrupt that)"
            # Not by print, which a signal may have interrupted; a closed stderr must not end the run.
            with contextlib.suppress(OSError):
                os.write(2, f"\n{text}\n".encode())

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


__all__ = ["SharedStep", "Step", "StopRequest", "forward_context", "measured_dtype"]
