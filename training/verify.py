"""Derive every number of an evaluation anew from its stored predictions, and compare.

    deepavfusion verify runs/scenes_recognition
    deepavfusion verify runs/evaluations/scenes_retrieval-quickstart

DIR holds evaluation.json and the folder predictions/ that evaluations of this version write. The metrics are computed
again by the protocol that evaluation.json names, from what the model answered for each clip; where a row also holds the
scores of its clip, these are computed again first. So are the scores that `probe` writes to nearest_neighbours.json.
The results in .eval_results/ and in the metadata of the model card are compared with evaluation.json. What is not
derived, and scores of clips that are taken as they are stored, are named.

Exit codes: 0 all numbers agree; 1 a number differs by more than 1e-6; 2 for a folder without predictions.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from deepavfusion.inference.files import UnreadableError, reading
from deepavfusion.inference.publishing.checks import metric_key
from deepavfusion_cli.boundary import command
from deepavfusion_cli.errors import FAILED
from deepavfusion_cli.paths import EVALUATION_FILE, PREDICTIONS, missing_evaluation
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from .metrics.knn import neighbor_scores
from .report.predictions import NEIGHBORS, differences, read_table
from .runs.card import CARD_DIGITS, EVAL_RESULTS
from .tasks import TASKS
from .wording import count

TOLERANCE = 1e-6
# Numbers of evaluation.json beside the metrics -> why they are not derived.
_OTHERS = {
    "before": "predictions before the training are not kept",
    "ceilings": "they follow from the data, not from predictions",
    "training": "it was measured during the training",
}


class Difference(NamedTuple):
    """A number that differs.

    Attributes:
        name: Name of the number, such as "metrics.top1".
        file: File that states it.
        stored: Its value there; None if it is missing.
        derived: Its value derived anew; None if it cannot be derived.
    """

    name: str
    file: str
    stored: Any
    derived: Any

    def __str__(self) -> str:
        stated = "is missing" if self.stored is None else f"is {self.stored!r}"
        derived = "cannot be derived from the predictions" if self.derived is None else f"is {self.derived!r} anew"
        return f"{self.name} {stated} in {self.file}, but {derived}"


class Verification(NamedTuple):
    """Result of `verify`.

    Attributes:
        differences: All numbers that differ.
        verified: Number of metrics, counts and scores of clips that were derived and agree.
        not_derived: Number -> why it is not derived.
        as_stored: Scores of clips that the derived numbers rest on -> why they are not derived themselves.
    """

    differences: list[Difference]
    verified: int
    not_derived: dict[str, str]
    as_stored: dict[str, str]


def verify(folder: Path) -> Verification:
    """Compare the numbers of an evaluation with those that follow from its stored predictions.

    Args:
        folder: Folder of a run, or of `deepavfusion evaluate`.

    Raises:
        OSError: If a file cannot be read.
        UnreadableError: If there is no evaluation, or none with predictions, or a file is damaged.
    """
    if reason := missing_evaluation(folder):
        raise UnreadableError(reason)
    record = _read_record(folder)
    tables, about = _read_tables(folder)
    task = TASKS[record["task"]](SimpleNamespace(**about["data"]), None)
    found: list[Difference] = []
    if about["protocol"] != record["protocol"]:
        found.append(Difference("protocol", EVALUATION_FILE, record["protocol"], about["protocol"]))
    scores = 0
    for name, rows in tables.items():
        for index, row in enumerate(rows):
            again = {} if isinstance(row, str) else task.rescore(row)
            scores += len(again)
            for key, stored, derived in differences({name: row[name] for name in again}, again, TOLERANCE):
                found.append(Difference(f"{key} of clip {index}", f"{PREDICTIONS}/{name}.parquet", stored, derived))
    metrics, left_out = task.rederive(tables, about["data"])
    left_out = {what: number for what, number in left_out.items() if number}
    derived: dict[str, Any] = {
        "metrics": metrics,
        "num_clips": len(tables["clips"]),
        "left_out": left_out,
        "skipped": len(record["skipped_clips"]),
    }
    stored = {name: record[name] for name in derived}
    found += [Difference(name, EVALUATION_FILE, *pair) for name, *pair in differences(stored, derived, TOLERANCE)]
    found += _published(folder, record["metrics"])
    verified = scores + len(metrics) + len(left_out) + 2
    not_derived = {name: reason for name, reason in _OTHERS.items() if record.get(name)}
    path = folder / f"{NEIGHBORS}.json"
    if path.is_file():
        again = neighbor_scores(tables[NEIGHBORS]) if NEIGHBORS in tables else {}
        with reading(path):
            pairs = differences(json.loads(path.read_text(encoding="utf-8")), again, TOLERANCE)
            found += [Difference(name, path.name, *pair) for name, *pair in pairs]
        verified += sum(map(len, again.values()))
    return Verification(found, max(0, verified - len(found)), not_derived, task.taken_as_stored(tables))


def _read_record(folder: Path) -> dict[str, Any]:
    path = folder / EVALUATION_FILE
    with reading(path):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or record.get("task") not in TASKS:
            raise ValueError("it is no evaluation of this package")
        return record


def _read_tables(folder: Path) -> tuple[dict[str, list], dict[str, Any]]:
    """Rows of each file of predictions, and what is stored with the clips."""
    tables, about = {}, {}
    for file in sorted((folder / PREDICTIONS).glob("*.parquet")):
        with reading(file):
            tables[file.stem], about[file.stem] = read_table(file)
    return tables, about["clips"]


def _published(folder: Path, metrics: dict[str, float]) -> Iterator[Difference]:
    """Differences between evaluation.json and what is published with the model."""
    for file in sorted((folder / EVAL_RESULTS).glob("*.yaml")):
        with reading(file):
            entries = parse_eval_result_entries(yaml.safe_load(file.read_text(encoding="utf-8")))
        for entry in entries:
            name = entry.task_id.partition("/")[2]
            for _, stored, derived in differences(entry.value, metrics.get(name), TOLERANCE):
                yield Difference(name, f"{EVAL_RESULTS}/{file.name}", stored, derived)
    card = folder / "README.md"
    if card.is_file():
        with reading(card):
            results = ModelCard.load(card).data.eval_results or []
        for result in results:
            key = metric_key(result)
            value = metrics.get(key)
            if value is None or result.metric_value != round(value, CARD_DIGITS):
                yield Difference(key, "README.md", result.metric_value, value)


@command("deepavfusion verify")
def main(argv: list[str]) -> int:
    """Run the command; returns the exit code (see the module's docstring)."""
    given = parse("verify", argv)
    found = verify(given.folder)
    for difference in found.differences:
        say(f"deepavfusion verify: {given.folder}: {difference}", stream=sys.stderr)
    for name, reason in found.not_derived.items():
        say(f"not derived: {name}: {reason}")
    for name, reason in found.as_stored.items():
        say(f"taken as stored: {name}: {reason}")
    if found.differences:
        say(f"{count(len(found.differences), 'number')} of {given.folder} cannot be confirmed", stream=sys.stderr)
        return FAILED
    say(f"{count(found.verified, 'number')} of {given.folder} derived anew from the predictions: all agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
