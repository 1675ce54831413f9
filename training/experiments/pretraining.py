"""Pre-training on the built-in scenes: what each modality saves of the other's loss, and probes.

    python -m deepavfusion.training.experiments.pretraining --recipes scenes_tiny_long --seeds 3

Each run is a `deepavfusion pretrain` of a recipe with one seed, in a folder of its own under --out. Completed runs are
skipped, interrupted ones resume. At the end, training/experiments/results/pretraining.json and the tables of
docs/results.md are rewritten.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.paths import EVALUATION_FILE

from ..config.recipe import load_recipe
from ..report.tables import markdown_table
from ..runs.records import package_versions
from .grid import (
    Run,
    add_table,
    complete,
    cost,
    cost_line,
    experiment_parser,
    median_with_std,
    seeds_text,
    write_table,
)

RECIPES = ("scenes_tiny", "scenes_tiny_long")
MODALITIES = ("image", "audio")
# Masks in the names of metrics -> column.
VISIBLE = {"recipe": "as published", "few": "few", "hidden": "none"}
# Metric of evaluation.json -> row.
PROBES = {
    "all_linear_100": "linear, all streams, 100 labels",
    "all_linear_500": "linear, all streams, 500 labels",
    "all_linear_2000": "linear, all streams, 2,000 labels",
    "fusion_linear_2000": "linear, fusion stream, 2,000 labels",
    "shape_image_alone_linear": "linear, frame alone: shape (chance 12.5 %), 2,000 labels",
    "timbre_audio_alone_linear": "linear, sound alone: timbre (chance 12.5 %), 2,000 labels",
    **{f"{stream}_whitened": f"1-NN, whitened: {stream}" for stream in ("fusion", "image", "audio")},
    **{f"{stream}_accuracy": f"1-NN: {stream}" for stream in ("fusion", "image", "audio")},
}


def make_run(recipe: str, seed: int, given: argparse.Namespace) -> Run:
    """One pre-training run."""
    folder = given.out / f"{recipe}-{seed}"
    command = (
        *(sys.executable, "-m", "deepavfusion.training.pretrain", recipe),
        *(f"run.seed={seed}", f"run.output_dir={folder}", *given.overrides),
    )
    return Run(folder, command, EVALUATION_FILE)


def collect(runs: dict[tuple[str, int], Run]) -> dict[str, Any]:
    """Content of pretraining.json: every metric over the seeds, before and after training, and the cost."""
    rows: dict[str, Any] = {}
    for (recipe, seed), run in runs.items():
        content = run.read()
        entry = rows.setdefault(recipe, {"seeds": [], "minutes": [], "metrics": {}, "before": {}})
        entry["seeds"].append(seed)
        entry["minutes"].append(round((cost(run)["seconds"] or content["training"]["seconds"]) / 60, 1))
        for kind, metrics in (("metrics", content["metrics"]), ("before", content["before"] or {})):
            for name, value in metrics.items():
                entry[kind].setdefault(name, []).append(value)
        entry["clips_seen"], entry["device"] = content["training"]["clips_seen"], content["training"]["device"]
        entry["data"], entry["protocol"] = content["data"]["description"], content["protocol"]
    return {"recipes": rows, "versions": package_versions()}


def cross_modal_table(recipes: dict[str, Any]) -> str:
    """Table of the losses with a matching, another and no other modality, and of what the match saves."""
    titles = list(recipes)
    last = recipes[titles[-1]]
    rows = []
    for modality in MODALITIES:
        for masks, visible in VISIBLE.items():
            losses = [last["metrics"].get(f"{modality}_loss_{masks}_{other}") for other in ("true", "shuffled", "none")]
            if losses[0] is None:
                continue
            saved = [recipes[title]["metrics"].get(f"{modality}_saved_{masks}") for title in titles]
            losses, saved = [_cell(values, 1, 3) for values in losses], [f"{_cell(values)} %" for values in saved]
            rows.append([modality, visible, *losses, *saved])
    columns = ["target", "visible patches", "loss, other modality matching", "of another clip", "absent"]
    columns += [f"saved by the match, {recipes[title]['clips_seen']:,} clips" for title in titles]
    return markdown_table(columns, rows)


def probe_table(recipes: dict[str, Any]) -> str:
    """Table of the probes, before training and after each recipe."""
    columns = {"untrained": next(iter(recipes.values()))["before"]}
    columns |= {f"{entry['clips_seen']:,} clips": entry["metrics"] for entry in recipes.values()}
    rows = [
        [title, *(f"{_cell(metrics[name])} %" if name in metrics else "-" for metrics in columns.values())]
        for name, title in PROBES.items()
        if any(name in metrics for metrics in columns.values())
    ]
    return markdown_table(["probe of the held-out clips", *columns], rows)


def table(results: dict[str, Any]) -> str:
    """Tables of docs/results.md."""
    recipes = results["recipes"]
    last = list(recipes.values())[-1]["metrics"]
    notes = []
    for modality in MODALITIES:
        if f"{modality}_oracle_loss" in last:
            loss, oracle = _cell(last[f"{modality}_loss"], 1, 4), _cell(last[f"{modality}_oracle_loss"][:1], 1, 4)
            notes.append(f"{modality} loss at the published masks {loss} (oracle {oracle})")
        if f"{modality}_bound_saved" in last:
            names = (f"{modality}_loss_hidden_true", f"{modality}_bound_true", f"{modality}_bound_none")
            losses = zip(*(last[name] for name in names), strict=True)
            saved = [(unknown - loss) / (unknown - known) for loss, known, unknown in losses]
            notes.append(f"{modality} hidden entirely: {_cell(saved, digits=0)} % of what the other modality can save")
    counts = {f"{entry['clips_seen']:,} clips": len(entry["seeds"]) for entry in recipes.values()}
    seeds = ", ".join(f"{seeds_text([count])} of {title}" for title, count in counts.items())
    note = "; ".join([f"Held-out scenes; {seeds}", *notes]) + "."
    return "\n\n".join([cross_modal_table(recipes), probe_table(recipes), note])


def _cell(values: Sequence[float] | None, scale: float = 100, digits: int = 1) -> str:
    return "-" if not values else median_with_std(values, scale, digits)


def summary_line(run: Run) -> str:
    """Cost and linear probe of a completed run."""
    found = run.read()["metrics"].get("all_linear_500")
    return cost_line(run) + ("" if found is None else f"  linear probe, 500 labels {100 * found:.1f} %")


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = experiment_parser("pretraining", __doc__, "runs/pretraining", "the recipes")
    result.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    add_table(result, "pretraining.json")
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    given = parser().parse_intermixed_args(argv)
    for recipe in given.recipes:
        load_recipe("pretrain", recipe, given.overrides)  # fail on invalid overrides before hours of training
    keys = [(recipe, seed) for recipe in given.recipes for seed in range(given.seeds)]
    results = collect(complete({key: make_run(*key, given) for key in keys}, given, summary_line))
    write_table(given, results, "pretraining", table(results))
    return 0


if __name__ == "__main__":
    run_module(main)
