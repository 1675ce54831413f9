"""Experiments of many runs: completed runs are skipped, interrupted ones resume.

Every run is a command with a folder of its own; several run side by side.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev
from typing import Any

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.jobs.progress import duration
from deepavfusion_cli.parser import CommandParser, positive

from ..report.tables import replace_between


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        folder: Folder of its results, whose name is the name of the run; the log is beside it.
        command: Command with all arguments.
        result: File in the folder that exists once the run is complete.
        after: Folders of the runs that must be completed first.
    """

    folder: Path
    command: tuple[str, ...]
    result: str
    after: tuple[Path, ...] = ()

    @property
    def completed(self) -> bool:
        """Whether the run has a result."""
        return (self.folder / self.result).is_file()

    @property
    def log(self) -> Path:
        """File with the output of the command."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def read(self) -> dict:
        """Read the result."""
        return json.loads((self.folder / self.result).read_text(encoding="utf-8"))


def run_all(runs: Sequence[Run], jobs: int, summary_line: Callable[[Run], str]) -> None:
    """Execute all runs that are not completed, on one CPU thread each. If a run fails, independent ones continue.

    Args:
        runs: Runs of the experiment.
        jobs: Maximum number of concurrent runs.
        summary_line: Function that describes a completed run, for printing.

    Raises:
        RuntimeError: If any run failed, with the names of all failed runs and the ends of their logs.
    """
    pending = [run for run in runs if not run.completed]
    print(f"{len(runs)} runs, {len(runs) - len(pending)} already completed, {jobs} at a time", flush=True)
    slots, futures = threading.Semaphore(jobs), {}

    def work(run: Run) -> None:
        for folder in run.after:
            if folder in futures:
                futures[folder].result()
        with slots:
            _execute(run)
            print(f"{run.folder.name:<36} {summary_line(run)}", flush=True)

    # One thread per run, so that a run waiting for another one does not occupy a slot.
    with ThreadPoolExecutor(max(1, len(pending))) as pool:
        futures.update({run.folder: Future() for run in pending})

        def work_and_report(run: Run) -> None:
            try:
                work(run)
                futures[run.folder].set_result(None)
            except Exception as error:  # raised below, after the other runs
                futures[run.folder].set_exception(error)

        for run in pending:
            pool.submit(work_and_report, run)
    errors = {run.folder.name: futures[run.folder].exception() for run in pending}
    if any(errors.values()):
        raise RuntimeError("\n\n".join(f"{name}: {error}" for name, error in errors.items() if error))


def complete(runs: Mapping[Any, Run], given: argparse.Namespace, summary_line: Callable[[Run], str]) -> dict[Any, Run]:
    """Execute the runs of an experiment as its command line says.

    Args:
        runs: Runs by any key.
        given: Arguments of `experiment_parser`; with `collect`, nothing is trained.
        summary_line: Function that describes a completed run, for printing.

    Returns:
        The completed runs.
    """
    runs = {key: run for key, run in runs.items() if run.completed or not given.collect}
    run_all(list(runs.values()), given.jobs, summary_line)
    return runs


def _execute(run: Run) -> None:
    """Execute a run and record its cost beside its folder."""
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.time()
    with open(run.log, "a", encoding="utf-8") as log:
        process = subprocess.Popen(run.command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not run.completed:
        last = "\n".join(run.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        raise RuntimeError(f"exit code {process.returncode} ({run.log}):\n{last}")
    earlier = cost(run)
    content = {
        "seconds": earlier["seconds"] + time.time() - started,
        "peak_memory_mb": max(earlier["peak_memory_mb"], usage.ru_maxrss / 1024),
    }
    write_atomically(_cost_file(run), json.dumps(content) + "\n")


def _cost_file(run: Run) -> Path:
    return run.folder.with_name(f"{run.folder.name}.cost.json")


def cost(run: Run) -> dict[str, float]:
    """Total `seconds` and `peak_memory_mb` of a run's processes; zeros if none has finished."""
    path = _cost_file(run)
    return json.loads(path.read_text()) if path.is_file() else {"seconds": 0.0, "peak_memory_mb": 0.0}


def cost_line(run: Run) -> str:
    """Time and memory of a run as text."""
    spent = cost(run)
    return f"{duration(spent['seconds'])}, {spent['peak_memory_mb']:.0f} MB"


def median_with_std(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Format the median of `values` times `scale`, with the standard deviation if there are several."""
    text = f"{scale * median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {scale * stdev(values):.{digits}f}"


def seeds_text(counts: Collection[int]) -> str:
    """Say over how many seeds the values of a table are, from the number of seeds of each entry."""
    most = max(counts, default=0)
    if set(counts) == {1}:
        return "one seed"
    return f"{'up to ' if len(set(counts)) > 1 else ''}{most} seeds, median ± standard deviation"


def slug(title: str) -> str:
    """Title of a run as part of a folder name."""
    return "".join(c if c.isalnum() else "-" for c in title).strip("-").replace("--", "-")


def add_fine_tuning(parser: argparse.ArgumentParser, pretrained: str, results: str) -> None:
    """Add the arguments of experiments that fine-tune a pre-trained model, and those of `add_table`.

    Args:
        parser: Parser of the experiment.
        pretrained: Default folder of the model.
        results: Name of the results file.
    """
    parser.add_argument(
        "--pretrained",
        default=pretrained,
        help=f"folder of the pre-trained model ({pretrained}); {{seed}} in it stands for the seed of a run",
    )
    add_table(parser, results)


def add_table(parser: argparse.ArgumentParser, results: str) -> None:
    """Add the arguments of experiments that write a table of docs/results.md.

    Args:
        parser: Parser of the experiment.
        results: Name of the results file.
    """
    parser.add_argument("--results", type=Path, default=Path("training/experiments/results") / results)
    parser.add_argument(
        "--page", type=Path, default=Path("docs/results.md"), help="page whose table is replaced (docs/results.md)"
    )


def origin(given: argparse.Namespace, start: str, seed: int) -> str:
    """Value of `model.init_from` for a run that starts "pretrained" or from "scratch"."""
    return given.pretrained.replace("{seed}", str(seed)) if start == "pretrained" else "null"


def has_pretrained(given: argparse.Namespace, maker: str) -> bool:
    """Whether the pre-trained models of all seeds exist; else names a missing one and the command that trains it."""
    folders = [Path(origin(given, "pretrained", seed)) for seed in range(given.seeds)]
    missing = next((folder for folder in folders if not (folder / "config.json").is_file()), None)
    if missing is not None:
        print(f"No pre-trained model in {missing}; `{maker}` trains one.", file=sys.stderr)
    return missing is None


def write_table(given: argparse.Namespace, results: dict[str, Any], marker: str, table: str) -> None:
    """Write the results of `add_table`'s experiments: the file, and the table, which is printed as well.

    Args:
        given: Arguments of the command.
        results: Content of the results file.
        marker: Name of the table's place on the page (see `replace_between`).
        table: The table.
    """
    given.results.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(given.results, json.dumps(results, indent=1) + "\n")
    replace_between(given.page, marker, table)
    print(table)


def experiment_parser(name: str, description: str | None, out: str, changes: str) -> CommandParser:
    """Build a parser with the arguments that all experiments share.

    Args:
        name: Name of the module in this package.
        description: Docstring of the module.
        out: Default folder of the runs.
        changes: The recipes that overrides apply to, for `--help`.
    """
    result = CommandParser(
        f"python -m deepavfusion.training.experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--out", type=Path, default=Path(out), help=f"folder of the runs ({out})")
    result.add_argument("--seeds", type=positive, default=1, help="number of seeds (1)")
    result.add_argument("--jobs", type=positive, default=os.cpu_count() or 1, help="concurrent runs (one per core)")
    result.add_argument("--collect", action="store_true", help="do not train; write the results of completed runs")
    result.add_argument("overrides", nargs="*", metavar="section.key=value", help=f"overrides of {changes}")
    return result


__all__ = [
    "Run",
    "add_fine_tuning",
    "add_table",
    "complete",
    "cost",
    "cost_line",
    "experiment_parser",
    "has_pretrained",
    "median_with_std",
    "origin",
    "run_all",
    "seeds_text",
    "slug",
    "write_table",
]
