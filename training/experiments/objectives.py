"""Pre-training objectives at equal time on the built-in scenes.

    python -m deepavfusion.training.experiments.objectives --minutes 8 --seeds 3

Every objective trains the model of `scenes_tiny` for as many clips as it sees in the given time on one CPU thread,
which is measured first. Completed runs are skipped, interrupted ones resume. At the end,
training/experiments/results/objectives.json and the table of docs/results.md are rewritten.
"""

import argparse
import sys
import time
from statistics import mean
from typing import Any

import torch

from deepavfusion.inference.files import write_atomically
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.paths import EVALUATION_FILE

from ..config.recipe import load_recipe
from ..data.loading import BatchPlace, ClipOrder
from ..report.tables import markdown_table
from ..runs.arguments import settle_precision
from ..runs.models import build_model
from ..runs.optimization import build_optimizer
from ..runs.records import package_versions
from ..tasks.pretraining import Pretraining
from .grid import (
    Run,
    add_table,
    complete,
    cost,
    cost_line,
    experiment_parser,
    median_with_std,
    seeds_text,
    slug,
    write_table,
)

RECIPE = "scenes_tiny"
_PLAIN = ("model.image_decoder_type=plain", "model.audio_decoder_type=plain")
_HALF = ("model.decoder_prediction_fraction=0.5",)
# Overrides of each objective.
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "reconstruction, masks and targets of the paper, plain decoder": (
        *("task.masks=[]", "model.norm_patch_loss=patch"),
        *_PLAIN,
    ),
    "reconstruction, plain decoder": _PLAIN,
    "reconstruction, cross decoder": (),
    "reconstruction, cross decoder, half of the patches": _HALF,
    "align": ("model.pretraining_objective=align",),
    "align, masked views, weight 1": (
        *("model.pretraining_objective=align", "model.pretraining_masked_views=true"),
        *("model.alignment_weight=1", "optim.batch_size=64"),
    ),
    "jepa": ("model.pretraining_objective=jepa", "task.masks=[]"),
}
# Metric of evaluation.json -> column.
_SHOWN = {
    "all_linear_500": "linear probe, 500 labels, %",
    "all_linear_2000": "2,000 labels, %",
    "shape_image_alone_linear": "shape, frame alone, %",
    "fusion_whitened": "1-NN fusion, whitened, %",
    "image_to_audio_r1": "R@1 image to audio, %",
    "audio_to_image_r1": "R@1 audio to image, %",
}
_WARM_UP, _TIMED = 4, 24  # steps


def seconds_per_clip(overrides: tuple[str, ...]) -> float:
    """CPU seconds of a training step per clip, on one thread: the mean over the masks that a run draws."""
    recipe = load_recipe("pretrain", RECIPE, overrides)
    settle_precision(recipe)
    model = build_model(Pretraining, recipe, None).train()
    optimizer, batch = build_optimizer(recipe, model), recipe.optim.batch_size
    for group in optimizer.param_groups:
        group["lr"] = 1e-6
    inputs = {name: torch.randn(batch, *shape) for name, shape in model.config.input_shapes.items()}
    order = ClipOrder(batch, batch, 1, 1, 0, seed=0, start_step=0, end_step=1)
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for step in range(_WARM_UP + _TIMED):
        start = time.process_time()
        place = BatchPlace(recipe.run.seed, step, 0, order)
        given = Pretraining.training_inputs(inputs, model.config, place, recipe)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.optim.mixed_precision == "bf16"):
            loss = model(**given).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(time.process_time() - start)
    torch.set_num_threads(threads)
    return mean(found[_WARM_UP:]) / batch


def make_run(objective: str, seed: int, given: argparse.Namespace) -> Run:
    """One pre-training run, whose length is measured unless it has begun with another."""
    folder = given.out / f"{slug(objective)}-{seed}"
    changes = (*OBJECTIVES[objective], *given.overrides)
    length = folder.with_name(f"{slug(objective)}.epochs")
    if not length.is_file() and not given.collect:
        size = load_recipe("pretrain", RECIPE, changes).data.train_size
        epochs = given.minutes * 60 / seconds_per_clip(changes) / size
        length.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(length, f"{epochs:.4g}\n")
    epochs = float(length.read_text()) if length.is_file() else 1.0
    command = (
        *(sys.executable, "-m", "deepavfusion.training.pretrain", RECIPE, *changes),
        *(f"run.seed={seed}", f"run.output_dir={folder}", f"optim.epochs={epochs:g}", f"run.eval_epochs={epochs:g}"),
    )
    return Run(folder, command, EVALUATION_FILE)


def collect(runs: dict[tuple[str, int], Run], minutes: float) -> dict[str, Any]:
    """Content of objectives.json: metrics, clips and minutes of each objective and seed."""
    rows: dict[str, Any] = {}
    for (objective, seed), run in runs.items():
        content = run.read()
        entry = rows.setdefault(objective, {"seeds": [], "minutes": [], "metrics": {}})
        entry["seeds"].append(seed)
        entry["minutes"].append(round(cost(run)["seconds"] / 60, 1))
        entry["clips_seen"], entry["device"] = content["training"]["clips_seen"], content["training"]["device"]
        for name in (*_SHOWN, "image_saved_few", "audio_saved_few", "chance_r1"):
            if name in content["metrics"]:
                entry["metrics"].setdefault(name, []).append(content["metrics"][name])
    return {"cpu_minutes": minutes, "objectives": rows, "versions": package_versions()}


def table(results: dict[str, Any]) -> str:
    """Table of docs/results.md."""
    rows = []
    for objective, entry in results["objectives"].items():
        values = (entry["metrics"].get(name) for name in _SHOWN)
        cells = ("-" if value is None else median_with_std(value, 100) for value in values)
        rows.append([objective, f"{entry['clips_seen']:,}", *cells])
    text = markdown_table(["objective", "clips", *_SHOWN.values()], rows)
    seeds = seeds_text([len(entry["seeds"]) for entry in results["objectives"].values()])
    return f"{text}\n\n{results['cpu_minutes']:g} minutes of training on one CPU thread each; {seeds}."


def summary_line(run: Run) -> str:
    """Cost and nearest neighbors of a completed run."""
    return f"{cost_line(run)}  1-NN fusion, whitened {100 * run.read()['metrics']['fusion_whitened']:.1f} %"


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = experiment_parser("objectives", __doc__, "runs/objectives", "the recipe")
    result.add_argument("--minutes", type=float, default=8.0, help="CPU minutes of training of each run (8)")
    result.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=list(OBJECTIVES), metavar="OBJECTIVE")
    add_table(result, "objectives.json")
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    given = parser().parse_intermixed_args(argv)
    keys = [(objective, seed) for seed in range(given.seeds) for objective in given.objectives]
    runs = complete({key: make_run(*key, given) for key in keys}, given, summary_line)
    results = collect(runs, given.minutes)
    write_table(given, results, "objectives", table(results))
    return 0


if __name__ == "__main__":
    run_module(main)
