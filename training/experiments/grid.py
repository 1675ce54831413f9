"""Experiments of many runs: each a command with a folder of its own, side by side, kept when done, resumed when not."""

import argparse
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev

from deepavfusion.inference.files import write_atomically

from ..runs.logging import duration


@dataclass(frozen=True)
class Cell:
    """One run of an experiment.

    Args:
        folder: of its results; its log lies beside it. The name of the folder names the cell.
        command: what runs, with all arguments.
        result: file in the folder that is there once the run is done.
        after: folders of the cells that must be done before it.
    """

    folder: Path
    command: tuple[str, ...]
    result: str
    after: tuple[Path, ...] = ()

    @property
    def done(self) -> bool:
        return (self.folder / self.result).is_file()

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def read(self) -> dict:
        """The content of its result."""
        return json.loads((self.folder / self.result).read_text(encoding="utf-8"))


def run_cells(cells: Sequence[Cell], jobs: int, headline: Callable[[Cell], str]) -> None:
    """Runs what is not done, `jobs` at a time, one CPU thread each. All other cells are run even if one fails.

    Args:
        headline: what to print of a cell that is done.

    Raises:
        RuntimeError: names every cell that failed, with the end of its log.
    """
    todo = [cell for cell in cells if not cell.done]
    print(f"{len(cells)} runs, {len(cells) - len(todo)} done before, {jobs} at a time", flush=True)
    gate, futures = threading.Semaphore(jobs), {}

    def work(cell: Cell) -> None:
        for folder in cell.after:
            if folder in futures:
                futures[folder].result()
        with gate:
            _run(cell)
            print(f"{cell.folder.name:<36} {headline(cell)}", flush=True)

    # One thread a cell, most of them waiting: so a cell that waits for another takes nobody's turn.
    with ThreadPoolExecutor(max(1, len(todo))) as pool:
        futures.update({cell.folder: Future() for cell in todo})

        def guarded(cell: Cell) -> None:
            try:
                work(cell)
                futures[cell.folder].set_result(None)
            except Exception as error:  # reported below, once the others are done
                futures[cell.folder].set_exception(error)

        for cell in todo:
            pool.submit(guarded, cell)
    errors = {cell.folder.name: futures[cell.folder].exception() for cell in todo}
    if any(errors.values()):
        raise RuntimeError("\n\n".join(f"{name}: {error}" for name, error in errors.items() if error))


def _run(cell: Cell) -> None:
    """Runs a cell and keeps its cost beside its folder."""
    cell.folder.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = time.time()
    with open(cell.log, "a", encoding="utf-8") as log:
        process = subprocess.Popen(cell.command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not cell.done:
        last = "\n".join(cell.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
        raise RuntimeError(f"exit code {process.returncode} ({cell.log}):\n{last}")
    earlier = cost(cell)
    content = {
        "seconds": earlier["seconds"] + time.time() - started,
        "peak_memory_mb": max(earlier["peak_memory_mb"], usage.ru_maxrss / 1024),
    }
    write_atomically(_cost_file(cell), json.dumps(content) + "\n")


def _cost_file(cell: Cell) -> Path:
    return cell.folder.with_name(f"{cell.folder.name}.cost.json")


def cost(cell: Cell) -> dict[str, float]:
    """`seconds` and `peak_memory_mb` of a cell's process so far; zeros where it never ended."""
    path = _cost_file(cell)
    return json.loads(path.read_text()) if path.is_file() else {"seconds": 0.0, "peak_memory_mb": 0.0}


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Median of the seeds times `scale`, with their standard deviation where there are several."""
    text = f"{scale * median(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {scale * stdev(values):.{digits}f}"


def experiment_parser(name: str, description: str | None, out: str, changes: str) -> argparse.ArgumentParser:
    """The arguments that all experiments have.

    Args:
        name: of the module in this package.
        description: the module's docstring.
        out: default folder of the cells.
        changes: which recipes the overrides change.
    """
    result = argparse.ArgumentParser(
        f"deepavfusion.training.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--out", type=Path, default=Path(out), help="folder of the cells")
    result.add_argument("--seeds", type=int, default=1, help="how many seeds of each cell")
    result.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cells at a time")
    result.add_argument(
        "--collect", action="store_true", help="train nothing: write what the cells that are done found"
    )
    result.add_argument("overrides", nargs="*", metavar="section.key=value", help=f"changes to {changes}")
    return result


def cost_line(cell: Cell) -> str:
    """Time and memory of a cell as text."""
    spent = cost(cell)
    return f"{duration(spent['seconds'])}, {spent['peak_memory_mb']:.0f} MB"


__all__ = ["Cell", "cost", "cost_line", "experiment_parser", "run_cells", "spread"]
