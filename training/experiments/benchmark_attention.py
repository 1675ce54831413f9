"""Time of attention kernels on a CPU, by number of tokens and precision: sdpa against eager attention.

    python -m deepavfusion.training.experiments.benchmark_attention --output attention.json

In several rounds, both kernels attend among the same tokens in turn, without and with the backward pass. Reported is
the median of the paired ratios of CPU time. `deepavfusion.attention_deepavfusion` uses whichever is faster.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from deepavfusion.attention_deepavfusion import eager_attention_forward
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from .measurement import describe_machine

# Batch, heads and width of a head: of the models on scenes, and of the base model.
SIZES = {"tiny": (32, 4, 32), "base": (8, 12, 64)}
TOKENS = (16, 32, 64, 96, 128, 160, 192, 224, 256, 320, 400)


class _Layer(nn.Module):
    """What the kernels ask of the layer that they attend for."""

    is_causal = False


def _attend(kernel, size: tuple[int, int, int], tokens: int, precision: str, backward: bool):
    """A call of a kernel, and of its backward pass."""
    batch, heads, width = size
    states = torch.randn(3, batch, heads, tokens, width, dtype=getattr(torch, precision), requires_grad=backward)
    layer = _Layer()

    def call():
        output, _ = kernel(layer, *states, None, scaling=width**-0.5, dropout=0.0)
        if backward:
            output.sum().backward()

    return call


def measure(size: tuple[int, int, int], tokens: int, precision: str, backward: bool, repeats: int) -> dict:
    """CPU seconds of both kernels, and the median ratio of sdpa to eager attention."""
    kernels = {"sdpa": ALL_ATTENTION_FUNCTIONS["sdpa"], "eager": eager_attention_forward}
    calls = {name: _attend(kernel, size, tokens, precision, backward) for name, kernel in kernels.items()}
    seconds = {name: [] for name in calls}
    for call in calls.values():
        call()  # warm-up
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    ratios = [sdpa / eager for sdpa, eager in zip(seconds["sdpa"], seconds["eager"], strict=True)]
    medians = {f"{name}_cpu_seconds": statistics.median(values) for name, values in seconds.items()}
    return {**medians, "eager_is_faster_by": statistics.median(ratios)}


def main(argv: list[str] | None = None) -> dict:
    """Run the benchmark; returns the report."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=SIZES, metavar="SIZE")
    parser.add_argument("--tokens", nargs="+", type=positive, default=list(TOKENS))
    parser.add_argument("--repeats", type=positive, default=21)
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (1, as in the experiments)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    report = {"machine": describe_machine("cpu", given.threads), "sizes": {}}
    columns = [(precision, backward) for precision in ("bfloat16", "float32") for backward in (False, True)]
    names = [f"{precision}, {'backward' if backward else 'forward'}" for precision, backward in columns]
    print(f"{'size':<8}{'tokens':>8}" + "".join(f"{name:>20}" for name in names))
    for size in given.sizes:
        rows = report["sizes"][size] = {}
        for tokens in given.tokens:
            row = rows[tokens] = {
                name: measure(SIZES[size], tokens, *column, given.repeats)
                for name, column in zip(names, columns, strict=True)
            }
            cells = (f"{row[name]['eager_is_faster_by']:.2f}x" for name in names)
            print(f"{size:<8}{tokens:>8}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    run_module(main)
