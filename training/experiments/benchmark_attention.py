"""Time and peak memory of a recipe's optimization step on a CPU, by attention implementation and precision.

    python -m deepavfusion.training.experiments.benchmark_attention scenes_recognition scenes_segmentation

In several rounds, all combinations take the same step in turn, on the recipe's first clips and from random weights.
Reported are the median time, and the median ratio to SDPA in float32 within a round. Peak memory is the growth of the
resident set during one step in a fresh process.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from ..config.recipe import load_recipe
from ..runs.models import build_model
from ..runs.optimization import parameter_groups
from ..tasks import MODEL_INPUTS, TASKS
from .measurement import describe_machine, in_fresh_process, resident_growth

COMBINATIONS = [(name, precision) for precision in ("float32", "bfloat16") for name in ("sdpa", "eager")]


class Step:
    """One optimization step of a recipe with an attention implementation and a precision."""

    def __init__(self, recipe: str, overrides: list[str], attention: str, precision: str):
        fixed = ["model.init_from=null", f"model.attn_implementation={attention}", "data.cache_dir=null"]
        given = load_recipe("finetune", recipe, [*overrides, *fixed])
        if given.data.name == "scenes":
            given.data.train_size = given.optim.batch_size  # no more are used
        task = TASKS[given.task.name]
        clips = task.build_clips(given, given.model.build_config(), "train", train=True)
        batch = clips.collate(clips.__getitems__(list(range(given.optim.batch_size))))
        self.inputs = {name: batch[name] for name in MODEL_INPUTS if name in batch}
        self.model = build_model(task, given, clips).train()
        given.model.set_computation(self.model)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, given.optim.weight_decay), 1e-4)
        self.half = precision == "bfloat16"

    def __call__(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            loss = self.model(**self.inputs).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def memory(recipe: str, overrides: list[str], attention: str, precision: str, threads: int) -> int:
    """Peak memory of one step in bytes, excluding weights and inputs."""
    torch.set_num_threads(threads)
    return resident_growth(Step(recipe, overrides, attention, precision))


def measure(recipe: str, overrides: list[str], repeats: int, threads: int) -> dict[str, dict]:
    """Measure `seconds`, `speedup` over the first, `ratios` and `peak_bytes` of each "attention, precision"."""
    steps = {combination: Step(recipe, overrides, *combination) for combination in COMBINATIONS}
    for step in steps.values():
        step()  # warm-up
    seconds = {combination: [] for combination in steps}
    for _ in range(repeats):
        for combination, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[combination].append(time.perf_counter() - start)
    found = {}
    for combination, own in seconds.items():
        ratios = [first / second for first, second in zip(seconds[COMBINATIONS[0]], own, strict=True)]
        found[", ".join(combination)] = {
            "seconds": statistics.median(own),
            "speedup": statistics.median(ratios),
            "ratios": ratios,
            "peak_bytes": in_fresh_process(memory, recipe, overrides, *combination, threads),
        }
    return found


def main(argv: list[str] | None = None) -> dict:
    """Run the benchmark; returns the report."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", metavar="RECIPE")
    parser.add_argument("--overrides", nargs="+", default=[], metavar="section.key=value")
    parser.add_argument("--repeats", type=positive, default=15)
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (1, as in the experiments)")
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    report = {"machine": describe_machine("cpu", given.threads), "recipes": {}}
    for recipe in given.recipes:
        report["recipes"][recipe] = found = measure(recipe, given.overrides, given.repeats, given.threads)
        for name, row in found.items():
            print(
                f"{recipe:<24}{name:<18}{row['seconds'] * 1e3:>9.1f} ms{row['speedup']:>7.2f}x"
                f"{row['peak_bytes'] / 1e6:>8.0f} MB",
                flush=True,
            )
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(report, indent=1) + "\n")
    return report


if __name__ == "__main__":
    run_module(main)
