"""Evaluate a trained model on a data set, with controls and a report.

    deepavfusion evaluate scenes_separation --model runs/scenes_separation
    deepavfusion evaluate vggsound_finetune --model ORG/NAME data.path=/data/vggsound

RECIPE determines task and data, and from its training settings precision and attention. evaluation.json (metrics,
protocol, versions, skipped clips) and report.html (self-contained, with images and audio) are written to --out, by
default a folder of recipe and model, where another evaluation is replaced only with --overwrite.

A folder without given splits is scored as a whole, except for the clips that the model was trained on, wherever these
were. Its classes are matched with those of the model by name; classes of only one of them are named.

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
from .config.data import DataArguments
from .config.help import help_text
from .config.recipe import Recipe, RecipeError, load_recipe
from .data.identity import TrainingClips, leaving_out
from .data.identity.clips import FILE
from .data.identity.unseen import LeftOut
from .data.scenes.cache import cache_notes
from .data.sets.folder import HELD_OUT, HELD_OUT_CLIPS, WHOLE, WHOLE_FOLDER
from .data.shards import WITHOUT_SPLITS, read_about
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
    trained = trained_clips(origin)
    scored, notes = split_to_score(recipe, origin, trained)
    try:
        with leaving_out(trained) as left:
            clips = task_class.build_clips(scored, model.config, recipe.data.eval_split, train=False)
    except (OSError, ValueError) as error:
        raise RecipeError(f"The recipe's data cannot be used: {cause(error)}") from error
    try:
        clips, matching, left_out = task_class.match_clips(clips, model.config)
        task = task_class(clips, task_class.build_processor(model.config), recipe)
        task.check_model(model)
        clips.reading = f"evaluation on the {recipe.data.eval_split} split"
    except ValueError as error:
        raise RecipeError(f"model {origin} does not fit the data: {error}") from error
    divided = any(text in clips.card for text in (WHOLE_FOLDER, HELD_OUT_CLIPS))
    notes = [*(notes if divided else []), *left_out_note(left, origin), *matching]
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


def split_to_score(recipe: Recipe, origin: str, trained: TrainingClips | None) -> tuple[Recipe, list[str]]:
    """The recipe with all clips of a folder without splits, unless part of them is given or was trained on.

    Args:
        recipe: Recipe of the evaluation.
        origin: Folder or Hub id of the model.
        trained: Clips that it was trained on, which are left out; None if that is unknown.

    Returns:
        The recipe, and a note if it is unknown what the model was trained on.
    """
    data, before = recipe.data, _training_data(origin)
    if not has_no_splits(data):
        return recipe, []
    path, known = before.get("path"), trained is not None or before.get("name") == "scenes"
    fraction = data.validation_fraction or WHOLE
    notes = [
        f"It is not known on which clips {origin} was trained: it has no {FILE}, as models of earlier versions and of "
        f"transformers' Trainer. Scores of such clips mean nothing: if {data.path} holds any, pass data.path=FOLDER of "
        "others, or data.annotations=FILE with the columns file, label and split (train, test)"
    ]
    if not known and path and data.validation_fraction is None and same_folder(str(path), str(data.path)):
        fraction = before.get("validation_fraction") or HELD_OUT
        notes = [
            f"It is not recorded which clips of {data.path} {origin} was trained on, as it is of an earlier version: "
            f"what data.validation_fraction={fraction} holds out is scored, which it was not trained on if the folder "
            "and the fraction are those of then"
        ]
    scored = copy.copy(recipe)  # without the checks of recipes, in which WHOLE is no fraction
    scored.data = dataclasses.replace(data, validation_fraction=fraction)
    return scored, [] if known else notes


def left_out_note(left: LeftOut | None, origin: str) -> list[str]:
    """A note on the clips that are not scored, as the model was trained on them; none without any."""
    if left is None or not left.clips:
        return []
    clips = f"{left.clips:,} of {count(left.total, 'clip')}"
    return [f"Not scored: {clips}, as {origin} was trained on them or on others of their recordings"]


def has_no_splits(data: DataArguments) -> bool:
    """Whether a data set may be a folder without splits, or is shards of one, of which any clips can be scored."""
    if data.name == "shards":
        with contextlib.suppress(OSError, ValueError):  # building the data set says what is wrong
            return WITHOUT_SPLITS in read_about(str(data.path), data.cache_dir)["splits"]
    return data.name == "folder"


def same_folder(path: str, other: str) -> bool:
    """Whether two paths are those of one folder."""
    return Path(path).resolve() == Path(other).resolve()


def _training_data(origin: str) -> dict[str, Any]:
    """Section `data` of the recipe that a model was trained by; empty if there is none."""
    for folder in _run_folders(origin):
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, yaml.YAMLError):
            return dict(load_values((folder / "recipe.yaml").read_text(encoding="utf-8")).get("data") or {})
    return {}


def _run_folders(origin: str) -> list[Path]:
    """The folder of a model, and, of a checkpoint, that of its run."""
    folder = Path(origin).resolve()
    return [folder, *([folder.parent.parent] if folder.parent.name == "checkpoints" else [])]


def trained_clips(origin: str) -> TrainingClips | None:
    """The clips that a model was trained on, or None if it does not say.

    Args:
        origin: Folder or Hub id of the model.

    Raises:
        RecipeError: If the file that says so cannot be read.
    """
    if Path(origin).is_dir():
        files = [folder / FILE for folder in _run_folders(origin)]
        file = next((file for file in files if file.is_file()), None)
    else:
        from transformers.utils import cached_file

        absent = dict.fromkeys(("missing_entries", "connection_errors", "gated_repo"), False)
        file = cached_file(origin, FILE, **{f"_raise_exceptions_for_{what}": value for what, value in absent.items()})
    try:
        return None if file is None else TrainingClips.read(file)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{origin}: it cannot be read on which clips it was trained: {error}") from error


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
