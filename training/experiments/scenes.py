"""All tasks on the built-in scenes, with and without pre-training.

    python -m deepavfusion.training.experiments.scenes --pretrained runs/scenes_tiny_long

Every task starts from the pre-trained weights or from random ones. Each run is a `deepavfusion finetune` of a recipe
`scenes_<task>` in a folder of its own under --out. Completed runs are skipped, interrupted ones resume. At the end,
training/experiments/results/scenes_tasks.json and the table of docs/results.md are rewritten. --designs also compares
localization methods.
"""

import argparse
import json
import sys
from statistics import median
from typing import Any

from deepavfusion.inference.files import write_atomically
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.paths import EVALUATION_FILE

from ..config.recipe import load_recipe
from ..report.tables import markdown_table
from ..runs.records import package_versions
from .grid import (
    Run,
    add_fine_tuning,
    complete,
    cost,
    cost_line,
    experiment_parser,
    has_pretrained,
    median_with_std,
    origin,
    run_all,
    seeds_text,
    write_table,
)

TASKS = ("recognition", "localization", "separation", "segmentation")
STARTS = ("pretrained", "scratch")
# Localization methods, compared at less than the recipe's length.
DESIGN_LENGTH = ("optim.epochs=2",)
DESIGNS = {
    "head": (),
    "similarity": ("model.localization_map=similarity",),
    "attention": ("model.localization_map=attention",),
    "head, matching": ("model.localization_loss=matching",),
    "similarity, matching": ("model.localization_map=similarity", "model.localization_loss=matching"),
}
# Main metric of each task, its controls and bounds: (name in evaluation.json, title in the table).
SHOWN = {
    "recognition": [
        ("top1", "top-1, image and audio (upper bound 100 %)"),
        ("audio_only_top1", "top-1, audio only (upper bound 50 %)"),
        ("image_only_top1", "top-1, image only (upper bound 50 %)"),
    ],
    "separation": [
        ("si_sdri", "SI-SDR improvement, dB"),
        ("wrong_frame_si_sdri", "with the other source's frame (control), dB"),
        ("both_sources_improved", "mixtures with both sources improved, each with its own frame"),
        ("oracle_si_sdri", "ideal ratio mask (bound), dB"),
    ],
    "segmentation": [
        ("miou", "mIoU of sounding objects"),
        ("shuffled_miou", "mIoU with audio of another clip (control)"),
        ("silent_coverage", "mask coverage of silent objects beside sounding ones"),
        ("sounding_coverage", "mask coverage of sounding objects beside silent ones"),
    ],
    "localization": [
        ("ciou_50", "cIoU@0.5"),
        ("shuffled_ciou_50", "with audio of another clip (control)"),
        ("centre_ciou_50", "centered box (control)"),
        ("ap", "AP, with frames without a visible source as negatives"),
        ("ciou_50_at_0.5", "cIoU@0.5 at a probability threshold of 0.5"),
    ],
}


def make_run(task: str, start: str, seed: int, given: argparse.Namespace, design: str | None = None) -> Run:
    """One training run: a task, the origin of its encoder, a seed, and a design for localization."""
    name = f"{task}-{start}-{seed}" + ("" if design is None else f"-{design.replace(', ', '-')}")
    command = (
        *(sys.executable, "-m", "deepavfusion.training.finetune", f"scenes_{task}"),
        *(f"model.init_from={origin(given, start, seed)}", f"run.seed={seed}", f"run.output_dir={given.out / name}"),
        *((*DESIGN_LENGTH, *DESIGNS[design]) if design else ()),
        *given.overrides,
    )
    return Run(given.out / name, command, EVALUATION_FILE)


def design_runs(given: argparse.Namespace) -> dict[str, Run]:
    """Runs of all localization methods, equally long, from the same pre-trained weights."""
    return {design: make_run("localization", "pretrained", 0, given, design) for design in DESIGNS}


def compare_designs(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Train all localization methods and write localization_designs.md; returns the metrics of each."""
    runs = design_runs(given)
    run_all(list(runs.values()), given.jobs, summary_line)
    found = {design: run.read()["metrics"] for design, run in runs.items()}
    text = (
        "# Localization methods on the built-in scenes\n\n"
        f"All start from the same pre-trained weights; one seed, {' '.join(DESIGN_LENGTH)}. The probability "
        "threshold of each method is chosen on the validation split. The gap between a score and its control with "
        "mismatched audio measures how much the localization depends on the audio. All metrics are in "
        f"{given.results.name}.\n\n{designs_table(found)}\n"
    )
    given.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(given.results.with_name("localization_designs.md"), text)
    return found


def designs_table(found: dict[str, dict[str, float]]) -> str:
    """Table of the localization methods and their controls."""
    shown = [
        *SHOWN["localization"],
        ("whole_ciou_50", "whole frame (control)"),
        ("auc", "AUC"),
        ("median_ciou_50", "cIoU@0.5 at the map's median"),
    ]
    rows = [
        [design, *(f"{100 * metrics[name]:.1f} %" for name, _ in shown if name in metrics)]
        for design, metrics in found.items()
    ]
    names = [title for name, title in shown if name in next(iter(found.values()))]
    return markdown_table(["method", *names], rows)


def summary_line(run: Run) -> str:
    """Cost and main metric of a completed run."""
    metric, title = SHOWN[run.read()["task"]][0]
    return f"{cost_line(run)}  {title}: {run.read()['metrics'][metric]:.3f}"


def collect(runs: dict[tuple[str, str, int], Run]) -> dict[str, Any]:
    """Content of scenes_tasks.json: every metric over the seeds, and the cost, of each task and start."""
    rows = {}
    for (task, start, seed), run in runs.items():
        content, spent = run.read(), cost(run)
        entry = rows.setdefault(task, {}).setdefault(start, {"seeds": [], "seconds": [], "metrics": {}})
        entry["seeds"].append(seed)
        entry["seconds"].append(round(spent["seconds"]))
        for name, value in content["metrics"].items():
            entry["metrics"].setdefault(name, []).append(value)
        rows[task]["protocol"], rows[task]["num_clips"] = content["protocol"], content["num_clips"]
        rows[task]["device"] = content["device"]
    return {"tasks": rows, "versions": package_versions()}


def entries(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Results of all tasks and starts."""
    return [task[start] for task in results["tasks"].values() for start in STARTS if start in task]


def table(results: dict[str, Any]) -> str:
    """Table of docs/results.md."""
    rows = []
    for task in TASKS:
        if task not in results["tasks"]:
            continue
        found = results["tasks"][task]
        for k, (metric, title) in enumerate(SHOWN[task]):
            scale, digits, unit = (1, 2, "dB") if title.endswith("dB") else (100, 1, "%")
            cells = [
                f"{median_with_std(found[start]['metrics'][metric], scale, digits)} {unit}" if start in found else "-"
                for start in STARTS
            ]
            rows.append([task.capitalize() if k == 0 else "", title.removesuffix(", dB"), *cells])
    note = f"Held-out scenes; {seeds_text([len(entry['seeds']) for entry in entries(results)])}."
    note += f" One seed of all tasks took {results['core_minutes']:.0f} minutes of one CPU core."
    return markdown_table(["task", "metric", "with pre-training", "from random weights"], rows) + "\n\n" + note


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = experiment_parser("scenes", __doc__, "runs/results", "all recipes")
    add_fine_tuning(result, "runs/scenes_tiny_long", "scenes_tasks.json")
    result.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    result.add_argument("--designs", action="store_true", help="also compare localization methods")
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    given = parser().parse_intermixed_args(argv)
    if not has_pretrained(given, "deepavfusion pretrain scenes_tiny_long"):
        return 2
    for task in given.tasks:
        load_recipe("finetune", f"scenes_{task}", given.overrides)  # fail on invalid overrides before hours of training
    keys = [(task, start, seed) for seed in range(given.seeds) for task in given.tasks for start in STARTS]
    runs = {key: make_run(*key, given) for key in keys}
    results = collect(complete(runs, given, summary_line))
    earlier = json.loads(given.results.read_text(encoding="utf-8")) if given.results.is_file() else {}
    # each run uses one core
    results["core_minutes"] = round(sum(median(entry["seconds"]) for entry in entries(results)) / 60, 1)
    if given.designs:
        results["localization_designs"] = compare_designs(given)
    elif "localization_designs" in earlier:
        results["localization_designs"] = earlier["localization_designs"]
    write_table(given, results, "results", table(results))
    return 0


if __name__ == "__main__":
    run_module(main)
