"""All tasks on the built-in scenes, with and without pre-training: trains, evaluates, and writes the tables.

    python -m deepavfusion.training.scene_results --pretrained runs/quickstart

Recognition starts from the pre-trained weights, or from random ones; the other tasks start from the recognition model
of the same origin, so the two columns differ in the pre-training alone. Each cell is one `deepavfusion finetune` of a
recipe `scenes_<task>` in a folder of its own under --out. Cells that are done are kept, cells that were interrupted go
on, so the command can be repeated; cells run side by side on the cores that there are. At the end
training/results/scenes_tasks.json and the table of the README are written anew. With --designs the ways of localizing
are compared, too, from the same pre-trained recognition model.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from .checkpointing import write_atomically
from .finetune_arguments import load_finetune_arguments
from .model_card import package_versions
from .summary import markdown_table, replace_between
from .tracking import duration

TASKS = ("recognition", "separation", "segmentation", "localization")  # the others start from recognition
STARTS = ("pretrained", "scratch")
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
        ("top1", "top-1, frame and sound (at best 100 %)"),
        ("sound_alone_top1", "top-1, sound alone (at best 50 %)"),
        ("sight_alone_top1", "top-1, frame alone (at best 50 %)"),
    ],
    "separation": [
        ("si_sdri", "SI-SDR improvement, dB"),
        ("swapped_si_sdri", "the other source's, when its frame is shown, dB"),
        ("oracle_si_sdri", "ideal ratio mask (bound), dB"),
        ("sdr", "SDR, dB"),
    ],
    "segmentation": [
        ("miou", "foreground mIoU of what sounds"),
        ("f", "F"),
        ("shuffled_miou", "mIoU with another clip's sound (control)"),
    ],
    "localization": [
        ("ciou_50", "cIoU@0.5"),
        ("shuffled_ciou_50", "with another clip's sound (control)"),
        ("centre_ciou_50", "centred box (control)"),
        ("whole_ciou_50", "whole frame (control)"),
        ("ap", "AP, with silent frames as negatives"),
    ],
}


@dataclass(frozen=True)
class Cell:
    """One training: a task, where its encoder starts, and a seed."""

    task: str
    start: str
    seed: int
    out: Path
    design: str | None = None

    @property
    def folder(self) -> Path:
        name = f"{self.task}-{self.start}-{self.seed}"
        return self.out / (name if self.design is None else f"{name}-{self.design.replace(', ', '-')}")

    @property
    def done(self) -> bool:
        return (self.folder / "evaluation.json").is_file()

    def command(self, pretrained: str, overrides: list[str]) -> list[str]:
        if self.task != "recognition":
            origin = str(Cell("recognition", self.start, self.seed, self.out).folder)
        else:
            origin = pretrained if self.start == "pretrained" else "null"
        return [
            *(sys.executable, "-m", "deepavfusion.training.finetune", f"scenes_{self.task}"),
            *(f"model.init_from={origin}", f"run.seed={self.seed}", f"run.output_dir={self.folder}"),
            *(DESIGNS[self.design] if self.design else ()),
            *overrides,
        ]

    def read(self) -> dict[str, Any]:
        return json.loads((self.folder / "evaluation.json").read_text(encoding="utf-8"))


def all_cells(out: Path, tasks: list[str], seeds: int) -> list[Cell]:
    """Cells, the first seed of everything before the second of anything."""
    return [
        Cell(task, start, seed, out) for seed in range(seeds) for task in TASKS if task in tasks for start in STARTS
    ]


def run_cells(cells: list[Cell], pretrained: str, overrides: list[str], jobs: int) -> None:
    """Trains what is not done, `jobs` at a time, a core each; raises `RuntimeError` for a cell that fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

    def run(cell: Cell) -> None:
        started = time.time()
        cell.folder.parent.mkdir(parents=True, exist_ok=True)
        log = cell.folder.with_suffix(".log")
        with open(log, "a", encoding="utf-8") as file:
            command = cell.command(pretrained, overrides)
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment).returncode
        if code:
            last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise RuntimeError(f"{cell.folder.name} ended with exit code {code} ({log}):\n{last}")
        primary, title = SHOWN[cell.task][0]
        value = cell.read()["metrics"][primary]
        print(f"{cell.folder.name:<28} {duration(time.time() - started)}  {title}: {value:.3f}", flush=True)

    todo = [cell for cell in cells if not cell.done]
    print(f"{len(cells)} cells, {len(cells) - len(todo)} done, {jobs} at a time", flush=True)
    with ThreadPoolExecutor(jobs) as pool:
        recognition = {cell: pool.submit(run, cell) for cell in todo if cell.task == "recognition"}

        def after_recognition(cell: Cell) -> None:
            for other, future in recognition.items():
                if (other.start, other.seed) == (cell.start, cell.seed):
                    future.result()
            run(cell)

        for future in [pool.submit(after_recognition, cell) for cell in todo if cell.task != "recognition"]:
            future.result()
        for future in recognition.values():
            future.result()


def collect(cells: list[Cell]) -> dict[str, Any]:
    """Content of scenes_tasks.json: for each task and start, every metric's values over the seeds."""
    rows = {}
    for cell in cells:
        content = cell.read()
        entry = rows.setdefault(cell.task, {}).setdefault(cell.start, {"seeds": [], "metrics": {}})
        entry["seeds"].append(cell.seed)
        for name, value in content["metrics"].items():
            entry["metrics"].setdefault(name, []).append(value)
        rows[cell.task]["protocol"], rows[cell.task]["num_clips"] = content["protocol"], content["num_clips"]
        rows[cell.task]["device"] = content["device"]
    return {"tasks": rows, "versions": package_versions()}


def spread(values: list[float], unit: str) -> str:
    """Median of the seeds, and their standard deviation where there are several."""
    scale, digits = (1, 2) if unit == "dB" else (100, 1)
    text = f"{scale * median(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {scale * stdev(values):.{digits}f}"
    return f"{text} {'dB' if unit == 'dB' else '%'}"


def table(results: dict[str, Any]) -> str:
    """The README's table."""
    rows = []
    for task in TASKS:
        if task not in results["tasks"]:
            continue
        found = results["tasks"][task]
        for k, (metric, title) in enumerate(SHOWN[task]):
            unit = "dB" if title.endswith("dB") else "share"
            cells = [spread(found[start]["metrics"][metric], unit) if start in found else "-" for start in STARTS]
            rows.append([task.capitalize() if k == 0 else "", title.removesuffix(", dB"), *cells])
    seeds = max(
        len(entry["seeds"]) for task in results["tasks"].values() for name, entry in task.items() if name in STARTS
    )
    note = f"Held-out scenes; {'one seed' if seeds == 1 else f'{seeds} seeds, median ± standard deviation'}."
    minutes = results.get("minutes")
    if minutes:
        note += f" All of it took {mean([minutes]):.0f} minutes on 2 CPU cores."
    return markdown_table(["task", "measure", "with pre-training", "without"], rows) + "\n\n" + note


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        "deepavfusion.training.scene_results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--pretrained", default="runs/quickstart", help="folder of the pre-trained model")
    result.add_argument("--out", type=Path, default=Path("runs/results"), help="folder of the cells")
    result.add_argument("--seeds", type=int, default=1, help="how many seeds of each cell")
    result.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at a time")
    result.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    result.add_argument("--designs", action="store_true", help="also compare the ways of localizing")
    result.add_argument("--results", type=Path, default=Path("training/results/scenes_tasks.json"))
    result.add_argument("--readme", type=Path, default=Path("README.md"), help="its table is written anew")
    result.add_argument("overrides", nargs="*", metavar="section.key=value", help="changes to all recipes")
    return result


def main(argv: list[str] | None = None) -> int:
    given = parser().parse_intermixed_args(argv)
    if not (Path(given.pretrained) / "config.json").is_file():
        print(f"There is no pre-trained model at {given.pretrained}: `make quickstart` makes one.", file=sys.stderr)
        return 2
    for task in given.tasks:
        load_finetune_arguments(f"scenes_{task}", given.overrides)  # a wrong override is told before hours of work
    cells = all_cells(given.out, given.tasks, given.seeds)
    fresh = not any(cell.done for cell in cells)
    started = time.time()
    run_cells(cells, given.pretrained, given.overrides, given.jobs)
    results = collect(cells)
    if given.designs:
        designs = [Cell("localization", "pretrained", 0, given.out, design) for design in DESIGNS]
        run_cells(designs, given.pretrained, given.overrides, given.jobs)
        results["localization_designs"] = {cell.design: cell.read()["metrics"] for cell in designs}
    if fresh:
        results["minutes"] = round((time.time() - started) / 60, 1)
    elif given.results.is_file():
        results["minutes"] = json.loads(given.results.read_text(encoding="utf-8")).get("minutes")
    given.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(given.results, json.dumps(results, indent=1) + "\n")
    replace_between(given.readme, "results", table(results))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
