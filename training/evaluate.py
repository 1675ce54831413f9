"""Evaluate a trained model on a data set, with controls and a report.

    deepavfusion evaluate scenes_separation --model runs/scenes_separation
    deepavfusion evaluate vggsound_finetune --model ORG/NAME data.path=/data/vggsound

RECIPE determines task and data, and from its training settings precision and attention. evaluation.json (metrics,
protocol, versions, skipped clips) and report.html (self-contained, with images and audio) are written to --out, by
default a folder of recipe and model, where another evaluation is replaced only with --overwrite.

A folder without given splits is scored as a whole, unless the model was trained on it: then what was held out is. Its
classes are matched with those of the model by name; classes of only one of them are named.

Exit codes: 0 success; 2 for an unusable recipe or model; 1 for too many unreadable clips.
"""

import contextlib
import copy
import dataclasses
import sys
from pathlib import Path
from typing import Any

import yaml

from deepavfusion.inference.folder import ResultFolder
from deepavfusion.inference.jobs.progress import plain_output
from deepavfusion.inference.precision import computing, set_float32_precision, set_threads
from deepavfusion_cli.boundary import command
from deepavfusion_cli.early.marks import evaluation_fingerprint
from deepavfusion_cli.errors import cause
from deepavfusion_cli.options import check_order, without_recipe
from deepavfusion_cli.preflight import HELP, evaluation_place, parse_evaluation, recipe_words
from deepavfusion_cli.terminal import say
from deepavfusion_cli.values import load_values

from .command import print_help
from .config.help import help_text
from .config.recipe import Recipe, RecipeError, load_recipe
from .data.scenes.cache import cache_notes
from .data.sets.folder import WHOLE, WHOLE_FOLDER
from .wording import count


def evaluate_model(recipe: Recipe, origin: str, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Evaluate a model on the recipe's `data.eval_split` and write the report.

    Args:
        recipe: Recipe with task and data.
        origin: Folder or Hub id of the model.
        out: Folder of the report.
        overwrite: Whether to replace the evaluation of another model or recipe.

    Returns:
        The content of evaluation.json on the main process; empty on others.

    Raises:
        RecipeError: For unusable data, precision, or an unusable model.
        FolderError: For an unusable folder.
    """
    from accelerate import Accelerator  # here: `--help` does not wait for what evaluates

    from .runs.arguments import settle_precision
    from .runs.models import load_task_model
    from .runs.records import evaluation_record, summary, write_report
    from .tasks import TASKS

    recipe.check_data_path()
    settle_precision(recipe)
    set_threads(recipe.data.workers)
    accelerator = Accelerator(mixed_precision=recipe.optim.mixed_precision, cpu=recipe.run.cpu)
    folder = ResultFolder(out, "evaluate", "--out", overwrite=overwrite, processes=accelerator)
    is_folder = Path(origin).is_dir()
    folder.plan(evaluation_fingerprint(origin, recipe.to_dict()))
    task_class = TASKS[recipe.task.name]
    model = load_task_model(task_class, recipe, origin).to(accelerator.device)
    whole, notes = scores_whole_folder(recipe, origin)
    try:
        clips = task_class.build_clips(whole or recipe, model.config, recipe.data.eval_split, train=False)
    except (OSError, ValueError) as error:
        raise RecipeError(f"The recipe's data cannot be used: {cause(error)}") from error
    try:
        clips, matching, left_out = task_class.match_clips(clips, model.config)
        task = task_class(clips, task_class.build_processor(model.config), recipe)
        task.check_model(model)
        clips.reading = f"evaluation on the {recipe.data.eval_split} split"
    except ValueError as error:
        raise RecipeError(f"model {origin} does not fit the data: {error}") from error
    notes = [*(notes if WHOLE_FOLDER in clips.card else []), *matching]
    if accelerator.is_main_process:
        about = f"{recipe.name}: {task.NAME}, model {origin}; {clips.card}"
        clips_and_cores = f"{count(len(clips), 'clip')} of data.eval_split={recipe.data.eval_split}"
        say(f"{about}; {clips_and_cores}; {accelerator.device.type}, {computing(recipe.data.workers)}")
        missing = [f"Left out: {what} ({number})" for what, number in left_out.items()]
        for note in (*notes, *missing, *cache_notes([clips])):
            say(note)
    evaluation = task.evaluate(model, accelerator, full=True)
    evaluation.left_out = left_out | evaluation.left_out
    record: dict[str, Any] = {}
    with folder.claimed():
        folder.begin()
        if accelerator.is_main_process:
            name = Path(origin).resolve().name if is_folder else origin
            record = evaluation_record(evaluation, recipe, name, accelerator.device)
            record["notes"] = [*notes, *evaluation.remarks]
            write_report(folder.draft, evaluation, record, f"{task.NAME.capitalize()}: {name}", notes)
            folder.publish()
            say(summary(evaluation, out), kept="\n")
    accelerator.wait_for_everyone()
    folder.close()
    return record


def scores_whole_folder(recipe: Recipe, origin: str) -> tuple[Recipe | None, list[str]]:
    """The recipe with all clips of its folder held out, unless part of them is given or was trained on.

    Args:
        recipe: Recipe of the evaluation.
        origin: Folder or Hub id of the model. If its recipe was trained on the same folder, only the clips that were
            held out then are scored.

    Returns:
        The recipe, or None if its own split is to be scored; and a note if it is unknown what the model was trained on.
    """
    data = recipe.data
    if data.name != "folder" or data.path is None or data.validation_fraction is not None:
        return None, []
    trained = _training_data(origin)
    if trained.get("path") and Path(str(trained["path"])).resolve() == Path(data.path).resolve():
        return None, []
    whole = copy.copy(recipe)  # without the checks of recipes, in which this fraction is none
    whole.data = dataclasses.replace(data, validation_fraction=WHOLE)
    if trained.get("path") or trained.get("name", "folder") != "folder":
        return whole, []
    return whole, [
        f"It is not known on which clips {origin} was trained: it has no recipe.yaml that says so, as models of "
        f"transformers' Trainer. Scores of such clips mean nothing: if {data.path} holds any, pass data.path=FOLDER of "
        "others, or data.annotations=FILE with the columns file, label and split (train, test)"
    ]


def _training_data(origin: str) -> dict[str, Any]:
    """Section `data` of the recipe that a model was trained by; empty if there is none."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, yaml.YAMLError):
        return dict(load_values((Path(origin) / "recipe.yaml").read_text(encoding="utf-8")).get("data") or {})
    return {}


@command("deepavfusion evaluate")
def main(argv: list[str]) -> int:
    """Run the command; returns the exit code (see the module's docstring)."""
    if not argv:
        raise without_recipe("evaluate")
    if HELP & set(argv):
        return print_help("evaluate", recipe_words(argv), lambda recipe: help_text("evaluate", __doc__, recipe))
    given = parse_evaluation(argv)
    check_order("evaluate", [given.recipe, *given.overrides])
    set_float32_precision()
    plain_output()
    recipe = load_recipe("evaluate", given.recipe, given.overrides)
    out, _ = evaluation_place(given, recipe.run.output_dir)
    evaluate_model(recipe, given.model, out, given.overwrite)
    return 0


if __name__ == "__main__":
    sys.exit(main())
