"""Fusion ablations at the scale of the built-in scenes.

    python -m deepavfusion.training.experiments.ablations

Each run pre-trains the quickstart's model with one change, for 30,000 of its 60,000 clips, and evaluates its streams
along the way (paper, sections 4.4 and 4.5):

- where fusion happens: in all layers (early), in the upper half (mid), in the last layer (late), or not at all;
- how: factorized, dense or token fusion, with time and memory;
- initial towers: random weights, or towers that were pre-trained without fusion.

Completed runs are skipped, interrupted ones resume. The numbers are written to
training/experiments/results/ablations.json, their tables to training/experiments/results/ablations.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from deepavfusion.inference.common import quiet_library
from deepavfusion.inference.files import to_json, write_atomically, writing
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.paths import EVALUATION_FILE

from ..config.recipe import load_recipe
from ..report.tables import markdown_table
from ..runs.logging import MetricsFile
from ..runs.records import package_versions
from ..tasks.pretraining_tables import nested_scores
from .grid import Run, complete, cost, cost_line, experiment_parser, median_with_std, slug

STREAMS = ("fusion", "image", "audio", "all")
_UNIMODAL = "no fusion"
# Overrides of each variant; the first variant is the reference.
VARIANTS: dict[str, tuple[str, ...]] = {
    "early, factorized": (),
    "mid (upper half)": ("model.fusion_layers=[2, 3]",),
    "late (last layer)": ("model.fusion_layers=[3]",),
    _UNIMODAL: ("model.fusion_layers=none",),
    "early, dense": ("model.fusion_type=dense",),
    "early, token": ("model.fusion_type=token",),
    "early, factorized, unimodal start": (),
}
_LENGTH = ("optim.epochs=1.5", "run.eval_epochs=0.75")
# Metric of evaluation.json -> column.
_SHOWN = {
    "all_linear_500": "linear probe, 500 labels, %",
    "all_linear_2000": "2,000 labels, %",
    "shape_image_alone_linear": "shape, frame alone, %",
    "fusion_whitened": "1-NN fusion, whitened, %",
    "all_whitened": "1-NN all, whitened, %",
    "image_saved_few": "saved of the image loss, few patches visible, %",
    "audio_saved_few": "saved of the audio loss, %",
}
_FROM_UNIMODAL = "early, factorized, unimodal start"


def make_run(variant: str, seed: int, given: argparse.Namespace) -> Run:
    """One pre-training run."""
    folder = given.out / f"{slug(variant)}-{seed}"
    changes, after = VARIANTS[variant], ()
    if variant == _FROM_UNIMODAL:
        source = given.out / f"{slug(_UNIMODAL)}-{seed}"
        changes = tuple(f"model.init_{tower}={source}/{tower}_tower.pth" for tower in ("image", "audio"))
        after = (source,)
    command = (
        *(sys.executable, "-m", "deepavfusion.training.experiments.ablations", "--run", given.recipe),
        *(f"run.seed={seed}", f"run.output_dir={folder}", "run.demo=false", *_LENGTH, *changes, *given.overrides),
    )
    return Run(folder, command, EVALUATION_FILE, after)


def pretrain_run(arguments: list[str]) -> int:
    """Pre-train one run; the towers of a model without fusion are also saved as unimodal checkpoints."""
    from .. import pretrain

    code = pretrain.main(arguments)
    folder = Path(next(part for part in arguments if part.startswith("run.output_dir=")).partition("=")[2])
    if not code and "model.fusion_layers=none" in arguments:
        write_towers(folder)
    return code


def write_towers(folder: Path) -> None:
    """Write the towers of the model in a folder to image_tower.pth and audio_tower.pth, in the format of MAE."""
    from deepavfusion import DeepAVFusionModel, export_original_state_dict

    with quiet_library():
        published = export_original_state_dict(DeepAVFusionModel.from_pretrained(folder))
    for tower in ("image", "audio"):
        prefix = f"{tower}."
        weights = {name.removeprefix(prefix): value for name, value in published.items() if name.startswith(prefix)}
        with writing(folder / f"{tower}_tower.pth") as file:
            torch.save({"model": weights}, file)


def probe_scores(metrics: dict[str, Any]) -> dict[str, float]:
    """Nearest-neighbor score of each stream, in the first metric available."""
    scores = nested_scores(metrics)
    return {name: next(iter(scores[name].values())) for name in scores if name != "chance"}


def collect(runs: dict[tuple[str, int], Run]) -> dict[str, Any]:
    """Content of ablations.json: scores over training and cost of each variant and seed."""
    variants: dict[str, Any] = {}
    for (variant, _), run in runs.items():
        results, spent = run.read(), cost(run)
        entry = variants.setdefault(variant, {"runs": []})
        evaluations = MetricsFile(run.folder / "metrics.jsonl").read("evaluation")
        entry["runs"].append(
            {
                "loss": results["metrics"]["loss"],
                "metrics": {name: results["metrics"][name] for name in _SHOWN if name in results["metrics"]},
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
    """Table of the scores at the end of training, as median ± standard deviation over the seeds."""
    rows = []
    for variant, entry in results["variants"].items():
        runs = entry["runs"]
        found = [[run["metrics"][name] for run in runs if name in run["metrics"]] for name in _SHOWN]
        rows.append(
            [
                variant,
                *(median_with_std(values, 100) if values else "-" for values in found),
                median_with_std([run["loss"] for run in runs], digits=3),
                median_with_std([run["samples_per_second"] for run in runs], digits=0),
                median_with_std([run["peak_memory_mb"] for run in runs], digits=0),
                f"{runs[0]['parameters'] / 1e6:.2f}",
                len(runs),
            ]
        )
    columns = [
        "variant",
        *_SHOWN.values(),
        "held-out loss",
        "clips/s",
        "peak memory, MB",
        "encoder, M parameters",
        "seeds",
    ]
    return markdown_table(columns, rows)


def course(results: dict[str, Any]) -> str:
    """Tables of the scores over training (paper, section 4.5), one per variant."""
    texts = []
    for variant, entry in results["variants"].items():
        courses = [run["over_training"] for run in entry["runs"]]
        rows = [
            [round(at[0]["epoch"], 2), *(median_with_std([record[name] for record in at], 100) for name in STREAMS)]
            for at in zip(*courses, strict=False)  # the evaluations of all seeds at one epoch
        ]
        texts.append(f"{variant}\n\n" + markdown_table(["epoch", *(f"1-NN {name}, %" for name in STREAMS)], rows))
    return "\n\n".join(texts)


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = experiment_parser("ablations", __doc__, "runs/ablations", "the recipe")
    result.add_argument(
        "--recipe", default="scenes_tiny", help="recipe to pre-train, with towers of four layers (scenes_tiny)"
    )
    result.add_argument(
        "--results", type=Path, default=Path("training/experiments/results"), help="folder of the results"
    )
    result.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="VARIANT")
    return result


def summary_line(run: Run) -> str:
    """Cost and nearest-neighbor scores of a completed run."""
    scores = probe_scores(run.read()["metrics"])
    return f"{cost_line(run)}  1-NN " + ", ".join(f"{name} {100 * value:.1f} %" for name, value in scores.items())


def main(argv: list[str] | None = None) -> int:
    """Run the experiment; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] == "--run":
        return pretrain_run(argv[1:])
    given = parser().parse_intermixed_args(argv)
    load_recipe("pretrain", given.recipe, given.overrides)  # fail on invalid overrides before hours of training
    variants = [variant for variant in VARIANTS if variant in given.variants]
    if _FROM_UNIMODAL in variants and _UNIMODAL not in variants:
        variants.insert(0, _UNIMODAL)
    runs = {(variant, seed): make_run(variant, seed, given) for seed in range(given.seeds) for variant in variants}
    results = collect(complete(runs, given, summary_line))
    given.results.mkdir(parents=True, exist_ok=True)
    write_atomically(given.results / "ablations.json", to_json(results) + "\n")
    entry = next(iter(results["variants"].values()), None)
    text = "# Fusion ablations on the built-in scenes\n"
    if entry is not None:
        text += (
            f"\nData: {entry['data']}. Median ± standard deviation over seeds. Linear probes are of all streams "
            'together. "Saved" is what the matching other modality saves of the loss with that of another clip, where '
            "few patches of the reconstructed one are visible. Throughput is approximate: runs share the cores.\n"
        )
    text += "\n" + table(results) + "\n\n## Over training\n\nLeave-one-out 1-NN accuracy.\n\n" + course(results) + "\n"
    write_atomically(given.results / "ablations.md", text)
    print(table(results))
    return 0


if __name__ == "__main__":
    run_module(main)
