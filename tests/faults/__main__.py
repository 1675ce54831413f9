"""Try mutated input of every kind, and write the table "tried, survived" of docs/reliability.md.

    python -m tests.faults --page docs/reliability.md
    python -m tests.faults --media 200 --models 30 --tensors 30 --recipes 100

Every kind runs in a process of its own, so that a crash is counted and not the end. What broke the contract (see
`tests.faults.contract`) is listed on standard error with the seed and number that repeat it; the exit code is then 1.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from deepavfusion.training.report.tables import markdown_table, replace_between
from deepavfusion.training.runs.records import package_versions
from deepavfusion_cli.parser import positive
from tests.faults import contract, mutations, test_mutated_media, test_mutated_models, test_mutated_recipes

COLUMNS = ("input", "tried", "read", "refused", "broke the contract", "slowest, s of CPU")
BROKEN = "broken"
# Trials of a process: (input, outcome, seconds of CPU time); of a broken one, the input is followed by the reason.
Trial = tuple[str, str, float]


def timed(trials: Iterator[Callable[[], tuple[str, str]]]) -> Iterator[Trial]:
    """Run trials that return input and outcome."""
    for trial in trials:
        start = time.process_time()
        try:
            what, outcome = trial()
        except Exception as error:
            what, outcome = str(error) or type(error).__name__, BROKEN
        yield what, outcome, time.process_time() - start


def try_all_media(count: int) -> Iterator[Trial]:
    """Mutated media files."""
    files = mutations.small_media()
    seed = test_mutated_media.SEED
    yield from timed(lambda n=n: contract.try_mutated_media(files, seed, n) for n in range(count))


def try_all_models(count: int) -> Iterator[Trial]:
    """Folders of a model of which one file is mutated."""
    seed = test_mutated_models.SEED
    with tempfile.TemporaryDirectory() as name:
        saved, folder = contract.small_model(Path(name) / "saved"), Path(name) / "model"
        yield from timed(lambda n=n: contract.try_mutated_model(saved, folder, seed, n) for n in range(count))


def try_all_tensors(count: int) -> Iterator[Trial]:
    """Published checkpoints of which one tensor is mutated."""
    seed, tensors = test_mutated_models.SEED, contract.published_tensors()

    def trial(number: int) -> tuple[str, str]:
        return "one tensor of many", contract.try_mutated_tensors(tensors, seed, number)[1]

    yield from timed(lambda n=n: trial(n) for n in range(count))


def try_all_recipes(count: int) -> Iterator[Trial]:
    """Packaged recipes with one to three overrides of any keys by any values."""
    drawn = test_mutated_recipes.draw_overrides(count)
    yield from timed(lambda o=o: ("one to three options of many", contract.try_recipe(*o)) for o in drawn)


KINDS: dict[str, Callable[[int], Iterator[Trial]]] = {
    "media": try_all_media,
    "models": try_all_models,
    "tensors": try_all_tensors,
    "recipes": try_all_recipes,
}
TITLES = {
    "media": "media files",
    "models": "saved models",
    "tensors": "published checkpoints",
    "recipes": "recipes",
}
COUNTS = {"media": 2200, "models": 300, "tensors": 300, "recipes": 1000}


def in_process(kind: str, count: int, sender) -> None:
    """Send the trials of a kind, then None."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # decoders complain of every file there
    for trial in KINDS[kind](count):
        sender.send(trial)
    sender.send(None)


def trials_of(kind: str, count: int) -> list[Trial]:
    """Trials of a kind in a process of its own; its crash is a broken trial."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=in_process, args=(kind, count, sender))
    process.start()
    sender.close()
    trials: list[Trial] = []
    try:
        while (trial := receiver.recv()) is not None:
            trials.append(trial)
    except EOFError:
        trials.append((f"{kind}, number {len(trials)}: the process ended", BROKEN, 0.0))
    process.join()
    return trials


def rows_of(kind: str, trials: list[Trial]) -> list[list]:
    """Rows of the table: a line per input, and those that broke the contract in the first line."""
    names = sorted({what for what, outcome, _ in trials if outcome != BROKEN})
    rows = []
    for name in names:
        outcomes = Counter(outcome for what, outcome, _ in trials if what == name)
        slowest = max(seconds for what, _, seconds in trials if what == name)
        tried, read, refused = sum(outcomes.values()), outcomes[contract.READ], outcomes[contract.REFUSED]
        rows.append([f"{TITLES[kind]}: {name}", tried, read, refused, 0, round(slowest, 2)])
    broken = sum(outcome == BROKEN for _, outcome, _ in trials)
    if broken:
        rows.append([f"{TITLES[kind]}: all that broke the contract", broken, 0, 0, broken, None])
    return rows


def main(argv: list[str] | None = None) -> int:
    """Run the trials; returns 1 if one broke the contract."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    for kind, count in COUNTS.items():
        parser.add_argument(f"--{kind}", type=positive, default=count, help=f"number of {TITLES[kind]} ({count})")
    parser.add_argument("--page", type=Path, help="page whose table is replaced")
    given = parser.parse_args(argv)
    rows, broken, start = [], [], time.time()
    for kind in KINDS:
        trials = trials_of(kind, getattr(given, kind))
        rows += rows_of(kind, trials)
        broken += [what for what, outcome, _ in trials if outcome == BROKEN]
        print(f"{kind}: {len(trials)} tried, {time.time() - start:.0f} s", flush=True)
    versions = package_versions()
    made = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions)
    total = sum(row[1] for row in rows)
    text = f"{markdown_table(COLUMNS, rows)}\n\n{total:,} tried, {len(broken)} broke the contract ({made})."
    print(text)
    if given.page is not None:
        replace_between(given.page, "faults", f"\n\n{text}\n\n")
    for what in broken:
        print(what, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
