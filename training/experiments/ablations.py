"""The paper's claims at the scale of the built-in scenes: which fusion, and where it starts.

    python -m deepavfusion.training.experiments.ablations

Each cell pre-trains the quickstart's model with one thing changed, for four of the quickstart's eleven epochs, after
which its nearest neighbours change little, and scores its streams along the way (paper, sections 4.4 and 4.5):

- where fusion happens: in all layers (early), in the upper half (mid), in the last layer (late), or nowhere;
- how: attention over pairs as factorized, dense or token fusion, with time and memory;
- where the towers start: from random weights, or from towers that were pre-trained without fusion.

Completed runs are skipped, interrupted ones resume. training/experiments/results/ablations.json holds the numbers,
training/experiments/results/ablations.md their table.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch

from deepavfusion.inference.common import quiet_library
from deepavfusion.inference.files import to_json, write_atomically

from ..config.recipe import load_recipe
from ..report.tables import markdown_table
from ..runs.logging import MetricsFile
from ..runs.records import package_versions
from ..tasks.pretraining import nested_scores
from .grid import Cell, cost, cost_line, experiment_parser, run_cells, spread

STREAMS = ("fusion", "image", "audio", "all")
_UNIMODAL = "no fusion"
# What each cell changes in the recipe; the first is what all others are compared with.
VARIANTS: dict[str, tuple[str, ...]] = {
    "early, factorized": (),
    "mid (upper half)": ("model.fusion_layers=[2, 3]",),
    "late (last layer)": ("model.fusion_layers=[3]",),
    _UNIMODAL: ("model.fusion_layers=none",),
    "early, dense": ("model.fusion_type=dense",),
    "early, token": ("model.fusion_type=token",),
    "early, factorized, unimodal start": (),
}
_LENGTH = ("optim.epochs=4", "optim.warmup_epochs=0.5", "run.eval_epochs=1")
_FROM_UNIMODAL = "early, factorized, unimodal start"


def slug(variant: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in variant).strip("-").replace("--", "-")


def cell(variant: str, seed: int, given: argparse.Namespace) -> Cell:
    """One pre-training."""
    folder = given.out / f"{slug(variant)}-{seed}"
    changes, after = VARIANTS[variant], ()
    if variant == _FROM_UNIMODAL:
        source = given.out / f"{slug(_UNIMODAL)}-{seed}"
        changes = tuple(f"model.init_{tower}={source}/{tower}_tower.pth" for tower in ("image", "audio"))
        after = (source,)
    command = (
        *(sys.executable, "-m", "deepavfusion.training.experiments.ablations", "--cell", given.recipe),
        *(f"run.seed={seed}", f"run.output_dir={folder}", "run.demo=false", *_LENGTH, *changes, *given.overrides),
    )
    return Cell(folder, command, "evaluation.json", after)


def pretrain_cell(arguments: list[str]) -> int:
    """Runs a cell's pre-training; of a model without fusion it also leaves the towers as unimodal checkpoints."""
    from .. import pretrain

    code = pretrain.main(arguments)
    folder = Path(next(part for part in arguments if part.startswith("run.output_dir=")).partition("=")[2])
    if not code and "model.fusion_layers=none" in arguments:
        write_towers(folder)
    return code


def write_towers(folder: Path) -> None:
    """Writes image_tower.pth and audio_tower.pth, in the format of MAE files, from the model in a folder."""
    from deepavfusion import DeepAVFusionForPreTraining, export_original_state_dict

    with quiet_library():
        published = export_original_state_dict(DeepAVFusionForPreTraining.from_pretrained(folder))
    for tower in ("image", "audio"):
        prefix = f"encoder.{tower}."
        weights = {name.removeprefix(prefix): value for name, value in published.items() if name.startswith(prefix)}
        path = folder / f"{tower}_tower.pth"
        torch.save({"model": weights}, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)


def probe_scores(metrics: dict[str, Any]) -> dict[str, float]:
    """Stream -> nearest-neighbour score, in the first metric that there is."""
    scores = nested_scores(metrics)
    return {name: next(iter(scores[name].values())) for name in scores if name != "chance"}


def collect(cells: dict[tuple[str, int], Cell]) -> dict[str, Any]:
    """Content of ablations.json: for each variant and seed the scores over training and what it cost."""
    variants: dict[str, Any] = {}
    for (variant, _), done in cells.items():
        results, spent = done.read(), cost(done)
        entry = variants.setdefault(variant, {"runs": []})
        evaluations = MetricsFile(done.folder / "metrics.jsonl").read("evaluation")
        entry["runs"].append(
            {
                "loss": results["metrics"]["loss"],
                "probe": probe_scores(results["metrics"]),
                "over_training": [{"epoch": record["epoch"], **probe_scores(record)} for record in evaluations],
                "samples_per_second": results["training"]["samples_per_second"],
                "parameters": results["architecture"]["encoder_parameters"],
                "minutes": round(spent["seconds"] / 60, 1),
                "peak_memory_mb": round(spent["peak_memory_mb"]),
                "device": results["training"]["device"],
            }
        )
        entry["data"], entry["chance"] = results["data"]["description"], nested_scores(results["metrics"])["chance"]
    return {"variants": variants, "versions": package_versions()}


def table(results: dict[str, Any]) -> str:
    """The scores at the end of training, seeds as median and standard deviation."""
    rows = []
    for variant, entry in results["variants"].items():
        runs = entry["runs"]
        rows.append(
            [
                variant,
                *(spread([run["probe"][name] for run in runs], 100) for name in STREAMS),
                spread([run["loss"] for run in runs], digits=3),
                spread([run["samples_per_second"] for run in runs], digits=0),
                spread([run["peak_memory_mb"] for run in runs], digits=0),
                f"{runs[0]['parameters'] / 1e6:.2f}",
                len(runs),
            ]
        )
    columns = [
        "variant",
        *(f"1-NN {name}, %" for name in STREAMS),
        "held-out loss",
        "clips a second",
        "peak memory, MB",
        "encoder, M parameters",
        "seeds",
    ]
    return markdown_table(columns, rows)


def course(results: dict[str, Any]) -> str:
    """The streams' scores over training (paper, section 4.5): a table of epochs for each variant."""
    texts = []
    for variant, entry in results["variants"].items():
        courses = [run["over_training"] for run in entry["runs"]]
        rows = [
            [round(at[0]["epoch"], 2), *(spread([record[name] for record in at], 100) for name in STREAMS)]
            for at in zip(*courses, strict=False)  # an epoch's evaluation in every seed
        ]
        texts.append(f"{variant}\n\n" + markdown_table(["epoch", *(f"1-NN {name}, %" for name in STREAMS)], rows))
    return "\n\n".join(texts)


def parser() -> argparse.ArgumentParser:
    result = experiment_parser("ablations", __doc__, "runs/ablations", "the recipe of all cells")
    result.add_argument("--recipe", default="scenes_tiny", help="what is pre-trained; two towers of four layers")
    result.add_argument(
        "--results", type=Path, default=Path("training/experiments/results"), help="folder of the tables"
    )
    result.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    return result


def headline(done: Cell) -> str:
    scores = probe_scores(done.read()["metrics"])
    return f"{cost_line(done)}  1-NN " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items())


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "--cell":
        return pretrain_cell(argv[1:])
    given = parser().parse_intermixed_args(argv)
    load_recipe("pretrain", given.recipe, given.overrides)  # a wrong override is told before hours of work
    wanted = [variant for variant in VARIANTS if variant in given.variants]
    if _FROM_UNIMODAL in wanted and _UNIMODAL not in wanted:
        wanted.insert(0, _UNIMODAL)
    cells = {(variant, seed): cell(variant, seed, given) for seed in range(given.seeds) for variant in wanted}
    if given.collect:
        cells = {key: one for key, one in cells.items() if one.done}
    run_cells(list(cells.values()), given.jobs, headline)
    results = collect(cells)
    given.results.mkdir(parents=True, exist_ok=True)
    write_atomically(given.results / "ablations.json", to_json(results) + "\n")
    entry = next(iter(results["variants"].values()), None)
    text = "# Fusion at the scale of the built-in scenes\n"
    if entry is not None:
        text += (
            f"\n{entry['data']}; 1-NN by class, leave one out, median ± standard deviation of the seeds. Runs share "
            "the machine's cores with whatever else is at work, so clips a second compare roughly.\n"
        )
    text += "\n" + table(results) + "\n\n## Over training\n\n" + course(results) + "\n"
    write_atomically(given.results / "ablations.md", text)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
