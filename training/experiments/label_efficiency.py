"""Fine-tuning with few labels on the built-in scenes, with and without pre-training.

    python -m deepavfusion.training.experiments.label_efficiency --pretrained runs/scenes_tiny_long

Each run is a `deepavfusion finetune scenes_recognition` on a number of labeled scenes with links (`data.coupling`),
from the pre-trained weights or from random ones, for the same number of steps whatever the number of labels; the last
checkpoint is evaluated. Completed runs are skipped, interrupted ones resume. At the end,
training/experiments/results/label_efficiency.json, the table of docs/results.md and docs/label_efficiency.png are
rewritten.
"""

import argparse
import sys
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from deepavfusion.inference.files import write_atomically
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import positive
from deepavfusion_cli.paths import EVALUATION_FILE

from ..config.recipe import load_recipe
from ..report.charts import chart_axes
from ..report.style import CYCLE, figure_png, own_style
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
    seeds_text,
    write_table,
)

LABELS = (100, 500, 2000, 20000)
STARTS = {"pretrained": "with pre-training", "scratch": "from random weights"}
SAMPLES = 24_000  # clips seen by every run
_EVIDENCE = {"top1": "image and audio", "image_only_top1": "image alone", "audio_only_top1": "audio alone"}


def make_run(start: str, labels: int, seed: int, given: argparse.Namespace) -> Run:
    """One fine-tuning."""
    folder = given.out / f"{start}-{labels}-{seed}"
    epochs = given.samples / labels
    command = (
        *(sys.executable, "-m", "deepavfusion.training.finetune", "scenes_recognition"),
        f"model.init_from={origin(given, start, seed)}",
        *(f"data.train_size={labels}", f"optim.epochs={epochs:g}"),
        *(f"run.eval_epochs={epochs:g}", "run.keep_best=false", f"run.seed={seed}", f"run.output_dir={folder}"),
        *given.overrides,
    )
    return Run(folder, command, EVALUATION_FILE)


def collect(runs: dict[tuple[str, int, int], Run]) -> dict[str, Any]:
    """Content of label_efficiency.json: the metrics over the seeds of each start and number of labels."""
    rows: dict[str, Any] = {}
    for (start, labels, seed), run in runs.items():
        content = run.read()
        entry = rows.setdefault(start, {}).setdefault(str(labels), {"seeds": [], "seconds": [], "metrics": {}})
        entry["seeds"].append(seed)
        entry["seconds"].append(round(cost(run)["seconds"]))
        for name in _EVIDENCE:
            entry["metrics"].setdefault(name, []).append(content["metrics"][name])
        rows.setdefault("data", content["protocol"])
        rows.setdefault("device", content["training"]["device"])
        rows.setdefault("clips_seen", content["training"]["clips_seen"])
    return {"runs": rows, "versions": package_versions()}


def table(results: dict[str, Any]) -> str:
    """Table of docs/results.md."""
    runs = results["runs"]
    counts = sorted({int(labels) for start in STARTS for labels in runs.get(start, {})})
    rows = []
    for labels in counts:
        cells = [f"{labels:,}"]
        for metric in _EVIDENCE:
            for start in STARTS:
                entry = runs.get(start, {}).get(str(labels))
                cells.append("-" if entry is None else f"{median_with_std(entry['metrics'][metric], 100)} %")
        rows.append(cells)
    columns = [f"{evidence}, {title}" for evidence in _EVIDENCE.values() for title in STARTS.values()]
    seeds = seeds_text([len(entry["seeds"]) for start in STARTS for entry in runs.get(start, {}).values()])
    note = f"Top-1 on held-out scenes after {runs['clips_seen']:,} clips of fine-tuning; {seeds}."
    return markdown_table(["labels", *columns], rows) + "\n\n" + note


@own_style
def figure(results: dict[str, Any]) -> Figure:
    """Accuracy over the number of labels, the median and range of the seeds, for each start."""
    drawn = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = drawn.subplots()
    for color, (start, title) in zip(CYCLE, STARTS.items()):
        entries = results["runs"].get(start, {})
        counts = sorted(map(int, entries))
        scores = [100 * np.array(entries[str(labels)]["metrics"]["top1"]) for labels in counts]
        axes.plot(counts, [np.median(values) for values in scores], color=color, marker="o", label=title)
        low, high = [values.min() for values in scores], [values.max() for values in scores]
        axes.fill_between(counts, low, high, color=color, alpha=0.2, linewidth=0)
    chart_axes(axes, "Recognition with few labels", "labels", "top-1 (%)")
    axes.set_xscale("log")
    counts = sorted({int(labels) for start in STARTS for labels in results["runs"].get(start, {})})
    axes.set_xticks(counts, [f"{labels:,}" for labels in counts])
    axes.minorticks_off()
    axes.set_ylim(0, 100)
    axes.legend(loc="lower right")
    return drawn


def summary_line(run: Run) -> str:
    """Cost and accuracy of a completed run."""
    return f"{cost_line(run)}  top-1 {100 * run.read()['metrics']['top1']:.1f} %"


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = experiment_parser("label_efficiency", __doc__, "runs/label_efficiency", "the recipe")
    add_fine_tuning(result, "runs/scenes_tiny_long", "label_efficiency.json")
    result.add_argument("--labels", type=positive, nargs="+", default=list(LABELS), help="numbers of labels")
    result.add_argument("--samples", type=positive, default=SAMPLES, help=f"clips seen by every run ({SAMPLES})")
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    given = parser().parse_intermixed_args(argv)
    if not has_pretrained(given, "deepavfusion pretrain scenes_tiny_long"):
        return 2
    load_recipe("finetune", "scenes_recognition", given.overrides)  # fail on invalid overrides before training
    keys = [(start, labels, seed) for seed in range(given.seeds) for labels in given.labels for start in STARTS]
    results = collect(complete({key: make_run(*key, given) for key in keys}, given, summary_line))
    write_atomically(given.page.with_name("label_efficiency.png"), figure_png(figure(results)))
    write_table(given, results, "labels", table(results))
    return 0


if __name__ == "__main__":
    run_module(main)
