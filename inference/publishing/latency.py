"""Time of a forward pass on this machine, for model cards."""

import statistics
import time
from typing import Any

import torch

from deepavfusion import DeepAVFusionForPreTraining

_RUNS = 5


def forward_time(model: torch.nn.Module, device: torch.device) -> dict[str, Any]:
    """Time of a forward pass for one clip of zeros, in float32; of a model for pre-training, that of its encoder.

    Args:
        model: A model of this package, on the device.
        device: The device.

    Returns:
        `seconds`, the median of a few runs, and `device`.
    """
    part = model.deepavfusion if isinstance(model, DeepAVFusionForPreTraining) else model
    inputs = {name: torch.zeros(1, *shape, device=device) for name, shape in part.config.input_shapes.items()}
    training, seconds = part.training, []
    part.eval()
    with torch.no_grad():
        for _ in range(1 + _RUNS):  # the first one prepares
            start = time.perf_counter()
            type(part).forward(part, **inputs)  # that of the instance may be under autocast
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            seconds.append(time.perf_counter() - start)
    part.train(training)
    return {"seconds": statistics.median(seconds[1:]), "device": device_name(device)}


def device_name(device: torch.device) -> str:
    """Return the name of a device for reports: the GPU's model, or the CPU with its number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"cpu ({threads} thread{'' if threads == 1 else 's'})"


def latency_rows(forward: dict[str, Any] | None) -> list[list[str]]:
    """Row of a card's table of details; none where nothing was measured.

    Args:
        forward: What `forward_time` returns.
    """
    if not forward:
        return []
    text = f"{1000 * forward['seconds']:.3g} ms for a forward pass, batch of 1, float32, {forward['device']}"
    return [["latency", text]]


__all__ = ["device_name", "forward_time", "latency_rows"]
