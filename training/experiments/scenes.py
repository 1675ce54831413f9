"""All tasks on the built-in scenes, with and without pre-training: trains, evaluates, and writes the tables.

    python -m deepavfusion.training.experiments.scenes --pretrained runs/quickstart

Recognition starts from the pre-trained weights, or from random ones; localization from the recognition model of the
same origin, and separation and segmentation from that localization model: the two columns differ in the pre-training
alone. Each cell is one `deepavfusion finetune` of a recipe `scenes_<task>` in a folder of its own under
--out. Cells that are done are kept, cells that were interrupted go on, so the command can be repeated; cells run side
by side on the cores that there are. At the end training/experiments/results/scenes_tasks.json and the table of
docs/results.md are rewritten. --designs also compares ways of localizing, from the same pre-trained recognition model.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from deepavfusion.inference.files import write_atomically

from ..config.recipe import load_recipe
from ..report.tables import markdown_table, replace_between
from ..runs.records import package_versions
from .grid import Cell, cost, cost_line, experiment_parser, run_cells, spread

TASKS = ("recognition", "localization", "separation", "segmentation")
# The task whose model, of the same origin, another starts from.
FOUNDATIONS = {"localization": "recognition", "separation": "localization", "segmentation": "localization"}
STARTS = ("pretrained", "scratch")
# Ways of localizing, compared at a third of the recipe's length.
DESIGN_LENGTH = ("optim.epochs=2",)
DESIGNS = {
    "head": (),
    "similarity": ("model.localization_map=similarity",),
    "attention": ("model.localization_map=attention",),
    "head, matching": ("model.localization_loss=matching",),
    "similarity, matching": ("model.localization_map=similarity", "model.localization_loss=matching"),
}
# Metric of the table, its bounds and controls: (metric in evaluation.json, what the table calls it).
SHOWN = {
    "recognition": [
        ("top1", "top-1, image and audio (at best 100 %)"),
        ("audio_only_top1", "top-1, audio only (at best 50 %)"),
        ("image_only_top1", "top-1, image only (at best 50 %)"),
    ],
    "separation": [
        ("si_sdri", "SI-SDR improvement, dB"),
        ("wrong_frame_si_sdri", "with the other source's frame (control), dB"),
        ("both_sources_improved", "mixtures in which both sources improve, each with its own frame"),
        ("oracle_si_sdri", "ideal ratio mask (bound), dB"),
    ],
    "segmentation": [
        ("miou", "foreground mIoU of what sounds"),
        ("shuffled_miou", "mIoU with another clip's sound (control)"),
        ("silent_coverage", "mask coverage of silent objects beside sounding ones"),
        ("sounding_coverage", "mask coverage of sounding objects beside silent ones"),
    ],
    "localization": [
        ("ciou_50", "cIoU@0.5"),
        ("shuffled_ciou_50", "with another clip's sound (control)"),
        ("centre_ciou_50", "centred box (control)"),
        ("ap", "AP, with silent frames as negatives"),
        ("ciou_50_at_0.5", "cIoU@0.5 at a probability threshold of 0.5"),
    ],
}


def cell(task: str, start: str, seed: int, given: argparse.Namespace, design: str | None = None) -> Cell:
    """One training: a task, where its encoder comes from, a seed, and of localization a design."""
    name = f"{task}-{start}-{seed}" + ("" if design is None else f"-{design.replace(', ', '-')}")
    if task in FOUNDATIONS:
        after = (given.out / f"{FOUNDATIONS[task]}-{start}-{seed}",)
        origin = after[0]
    else:
        after, origin = (), given.pretrained if start == "pretrained" else "null"
    command = (
        *(sys.executable, "-m", "deepavfusion.training.finetune", f"scenes_{task}"),
        *(f"model.init_from={origin}", f"run.seed={seed}", f"run.output_dir={given.out / name}"),
        *((*DESIGN_LENGTH, *DESIGNS[design]) if design else ()),
        *given.overrides,
    )
    return Cell(given.out / name, command, "evaluation.json", after)


def design_cells(given: argparse.Namespace) -> dict[str, Cell]:
    """The ways of localizing, from the pre-trained recognition model, all trained equally long."""
    return {design: cell("localization", "pretrained", 0, given, design) for design in DESIGNS}


def compare_designs(given: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Trains what is not done, and writes localization_designs.md beside the results; every design's metrics."""
    cells = design_cells(given)
    run_cells(list(cells.values()), given.jobs, headline)
    found = {design: one.read()["metrics"] for design, one in cells.items()}
    text = (
        "# Ways of localizing, on the built-in scenes\n\n"
        f"All start from the same pre-trained recognition model; one seed, {' '.join(DESIGN_LENGTH)}. A place is found "
        "where its probability exceeds the threshold that was best on the validation split, each design's own. How far "
        "a score lies above its control says how much the sound decides. "
        f"{given.results.name} holds the whole numbers.\n\n{designs_table(found)}\n"
    )
    given.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(given.results.with_name("localization_designs.md"), text)
    return found


def designs_table(found: dict[str, dict[str, float]]) -> str:
    """How the designs compare, with the controls of each."""
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
    return markdown_table(["design", *names], rows)


def with_foundations(tasks: list[str]) -> list[str]:
    """Tasks and what they start from, in the order of training."""
    wanted = set(tasks)
    for task in reversed(TASKS):
        if task in wanted and task in FOUNDATIONS:
            wanted.add(FOUNDATIONS[task])
    return [task for task in TASKS if task in wanted]


def headline(done: Cell) -> str:
    metric, title = SHOWN[done.read()["task"]][0]
    return f"{cost_line(done)}  {title}: {done.read()['metrics'][metric]:.3f}"


def collect(cells: dict[tuple[str, str, int], Cell]) -> dict[str, Any]:
    """Content of scenes_tasks.json: for each task and start, every metric's values over the seeds, and what it cost."""
    rows = {}
    for (task, start, seed), done in cells.items():
        content, spent = done.read(), cost(done)
        entry = rows.setdefault(task, {}).setdefault(start, {"seeds": [], "seconds": [], "metrics": {}})
        entry["seeds"].append(seed)
        entry["seconds"].append(round(spent["seconds"]))
        for name, value in content["metrics"].items():
            entry["metrics"].setdefault(name, []).append(value)
        rows[task]["protocol"], rows[task]["num_clips"] = content["protocol"], content["num_clips"]
        rows[task]["device"] = content["device"]
    return {"tasks": rows, "versions": package_versions()}


def entries(results: dict[str, Any]) -> list[dict[str, Any]]:
    """What was found of each task with each start."""
    return [task[start] for task in results["tasks"].values() for start in STARTS if start in task]


def table(results: dict[str, Any]) -> str:
    """The table of docs/results.md."""
    rows = []
    for task in TASKS:
        if task not in results["tasks"]:
            continue
        found = results["tasks"][task]
        for k, (metric, title) in enumerate(SHOWN[task]):
            scale, digits, unit = (1, 2, "dB") if title.endswith("dB") else (100, 1, "%")
            cells = [
                f"{spread(found[start]['metrics'][metric], scale, digits)} {unit}" if start in found else "-"
                for start in STARTS
            ]
            rows.append([task.capitalize() if k == 0 else "", title.removesuffix(", dB"), *cells])
    counts = {len(entry["seeds"]) for entry in entries(results)}
    seeds = f"{'up to ' if len(counts) > 1 else ''}{max(counts)} seeds, median ± standard deviation"
    note = f"Held-out scenes; {'one seed' if counts == {1} else seeds}."
    note += f" One seed of what is shown took {results['core_minutes']:.0f} minutes of one CPU core."
    return markdown_table(["task", "measure", "with pre-training", "without"], rows) + "\n\n" + note


def parser() -> argparse.ArgumentParser:
    result = experiment_parser("scene_results", __doc__, "runs/results", "all recipes")
    result.add_argument("--pretrained", default="runs/quickstart", help="folder of the pre-trained model")
    result.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    result.add_argument("--designs", action="store_true", help="also compare the ways of localizing")
    result.add_argument("--results", type=Path, default=Path("training/experiments/results/scenes_tasks.json"))
    result.add_argument("--page", type=Path, default=Path("docs/results.md"), help="page whose table is replaced")
    return result


def main(argv: list[str] | None = None) -> int:
    given = parser().parse_intermixed_args(argv)
    if not (Path(given.pretrained) / "config.json").is_file():
        print(f"There is no pre-trained model at {given.pretrained}: `make quickstart` makes one.", file=sys.stderr)
        return 2
    for task in given.tasks:
        load_recipe("finetune", f"scenes_{task}", given.overrides)  # a wrong override is told before hours of work
    keys = [(task, start, seed) for seed in range(given.seeds) for task in TASKS for start in STARTS]
    cells = {key: cell(*key, given) for key in keys if key[0] in with_foundations(given.tasks)}
    if given.collect:
        cells = {key: one for key, one in cells.items() if one.done}
    run_cells(list(cells.values()), given.jobs, headline)
    results = collect(cells)
    earlier = json.loads(given.results.read_text(encoding="utf-8")) if given.results.is_file() else {}
    # Each cell runs on one core.
    results["core_minutes"] = round(sum(median(entry["seconds"]) for entry in entries(results)) / 60, 1)
    if given.designs:
        results["localization_designs"] = compare_designs(given)
    elif "localization_designs" in earlier:
        results["localization_designs"] = earlier["localization_designs"]
    given.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(given.results, json.dumps(results, indent=1) + "\n")
    replace_between(given.page, "results", table(results))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
