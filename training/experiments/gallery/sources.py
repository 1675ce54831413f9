"""Evaluations whose cases are shown: the folder of a run, or of `deepavfusion evaluate`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from deepavfusion.inference.files import UnreadableError, reading
from deepavfusion_cli.early.marks import read_mark
from deepavfusion_cli.paths import EVALUATION_FILE

from ...config.recipe import Recipe, load_recipe
from ...report.predictions import FOLDER, read_table
from ...report.report import Example
from ...runs.models import load_task_model
from ...tasks import MODEL_INPUTS, TASKS, Task
from ...tasks.evaluation import with_media
from ...wording import clip_title
from .choice import Case, Measure, choose, measure_of


@dataclass
class Source:
    """An evaluation with all that is needed to show cases of it.

    Attributes:
        folder: Its folder.
        record: Content of evaluation.json.
        rows: What the model answered for each clip.
        recipe: Recipe of the evaluation.
        task: Task, with the evaluated clips.
        model: The evaluated model, in evaluation mode.
    """

    folder: Path
    record: dict[str, Any]
    rows: list
    recipe: Recipe
    task: Task
    model: torch.nn.Module

    @property
    def kind(self) -> str:
        """What is shown: the name of a task."""
        return measure_of(self.record["task"], self.rows)[0]

    @property
    def measure(self) -> Measure:
        """How the clips are ordered."""
        return measure_of(self.record["task"], self.rows)[1]

    def cases(self) -> list[Case]:
        """The clips that are shown."""
        return choose(self.measure.scores(self.rows), self.measure.higher)

    @torch.no_grad()
    def examples(self, cases: list[Case]) -> list[Example]:
        """What the report of the evaluation would show of these clips."""
        places = [case.place for case in cases]
        if self.kind == "retrieval":
            return self.task.ranked_examples(self.rows, places)
        clips, shown = self.task.clips, []
        for place in places:  # one by one: clips may be chosen twice, and reconstructions are of the first ones
            batch = clips.collate(clips.__getitems__([place]))
            inputs = {name: batch[name] for name in MODEL_INPUTS[:2]}
            with torch.autocast("cpu", torch.bfloat16, enabled=self.record["mixed_precision"] == "bf16"):
                found = self.task.examples(self.model, inputs, batch)
            if not found:
                raise UnreadableError(f"{self.folder}: clip {place} of {clips.card} has nothing to show.")
            shown += with_media([replace(found[0], title=clip_title(batch["path"][0]))], clips, [place])
        return shown


def load_source(folder: Path) -> Source:
    """Load an evaluation, its data and its model.

    Args:
        folder: Folder of a run, or of `deepavfusion evaluate`.

    Raises:
        OSError: If a file cannot be read.
        RecipeError: If recipe or model cannot be used.
        UnreadableError: If the folder holds no evaluation with predictions, or the data are not those of then.
    """
    path = folder / EVALUATION_FILE
    with reading(path):
        record = json.loads(path.read_text(encoding="utf-8"))
    predictions = folder / FOLDER / "clips.parquet"
    with reading(predictions):
        rows, _ = read_table(predictions)
    recipe, origin = _origin(folder, record)
    recipe.data.cache_dir = None
    task_class = TASKS[record["task"]]
    model = load_task_model(task_class, recipe, origin)
    clips = task_class.build_clips(recipe, model.config, record["split"], train=False)
    if clips.card != record["evaluated_data"] or len(clips) != len(rows):
        raise UnreadableError(
            f"{folder}: expected the data of its evaluation, {len(rows)} clips ({record['evaluated_data']}), got "
            f"{len(clips)} ({clips.card})."
        )
    task = task_class(clips, task_class.build_processor(model.config), recipe)
    return Source(folder, record, rows, recipe, task, model)


def _origin(folder: Path, record: dict[str, Any]) -> tuple[Recipe, str]:
    """Recipe of an evaluation, and folder or Hub id of its model."""
    if (folder / "recipe.yaml").is_file():
        command = "pretrain" if record["task"] == "pretraining" else "finetune"
        return load_recipe(command, str(folder / "recipe.yaml")), str(folder)
    mark = read_mark(folder, "the evaluation")
    if mark is None or mark["command"] != "evaluate":
        raise UnreadableError(f"{folder}: expected the folder of a run or of an evaluation, got neither.")
    plan = mark["fingerprint"]
    recipe = load_recipe("evaluate", record["recipe"])
    given = recipe.to_dict()["data"]
    changed = {name: value for name, value in plan["data"].items() if given.get(name) != value}
    if changed:
        words = [f"data.{name}={json.dumps(value)}" for name, value in changed.items()]
        recipe = load_recipe("evaluate", record["recipe"], words)
    return recipe, plan["model"]


__all__ = ["Source", "load_source"]
