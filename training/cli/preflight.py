"""Checks of a command line before torch is imported: what is wrong with it is answered at once.

Commands repeat these checks themselves, as they can also be called from Python.
"""

import argparse
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .arguments import DATA_ACTIONS, DATA_SETS, PARSERS, evaluate_parser
from .early.data import check_data_files, check_data_folder, check_things
from .early.data_commands import parse_data
from .early.marks import check_folder, evaluation_fingerprint
from .early.models import TASKS, check_model, check_tower
from .early.outputs import check_inputs, check_outputs
from .early.recipes import check_combinations, check_scope, settings
from .early.runs import check_run
from .exports import CHECKS
from .options import (
    check_order,
    closest_option,
    command_help,
    overview,
    recipes_parser,
    type_and_limits,
    without_recipe,
)
from .paths import (
    RUNS,
    InputError,
    check_output_file,
    check_writable,
    evaluation_folder,
)
from .recipes import ACCEPTED, COMMANDS, all_recipes, check_recipe, recipe_file, unknown
from .values import check_override, parse_override

HELP = frozenset({"-h", "--help"})


def program(command: str, words: Sequence[str]) -> str:
    """Name of a command in messages."""
    action = f" {words[0]}" if command == "data" and words and words[0] in DATA_ACTIONS else ""
    return f"deepavfusion {command}{action}"


def check(command: str, words: Sequence[str]) -> None:
    """Check the command line of a command as far as that is possible without importing it.

    Args:
        command: Name of the command.
        words: Its arguments.

    Raises:
        SystemExit: After `--help`, or for an option that does not exist.
        ValueError: For a file, a folder, a model or a recipe that cannot be used.
    """
    if command in PARSERS:
        parse(command, words)
    elif command == "data":
        parse_data(words)
    elif command in ACCEPTED and not words:
        raise without_recipe(command)
    elif command in ACCEPTED and not HELP & set(words):
        _check_recipe_command(command, words)


def help_without_recipe(command: str, words: Sequence[str]) -> str | None:
    """`--help` of a command that takes a recipe, if the command line asks for it and names none; else None."""
    if command not in ACCEPTED or not HELP & set(words):
        return None
    named = recipe_words(words) if command == "evaluate" else [word for word in words if word not in HELP]
    return None if named else command_help(command)


def _check_recipe_command(command: str, words: Sequence[str]) -> None:
    evaluation = None
    if command == "evaluate":
        evaluation = parse_evaluation(words)
        words = [evaluation.recipe, *evaluation.overrides]
    check_order(command, words)
    check_recipe(command, words[0])
    for word, following in itertools.zip_longest(words[1:], words[2:], fillvalue=""):
        section, name, value = parse_override(word, following, command)
        check_override(f"{section}.{name}", value, *type_and_limits(section, name, command))
    found = settings(words[0], words[1:])
    if found is None or found[0] not in ACCEPTED[command]:
        return  # which is answered later
    own, sections = found
    check_scope(own, words[1:], sections)
    check_combinations(own, sections)
    data, on_disk = sections["data"], sections["data"]["name"] in DATA_SETS
    if "data.path=" in words:
        data["path"] = ""  # which YAML reads as null
    if on_disk:
        check_data_folder(data["name"], data["path"])
    check_things(data.get("things"))
    if evaluation is None:
        _check_training(command, words[0], sections)
    else:
        _check_evaluation(evaluation, own, sections)
    if on_disk:
        splits = ["train"] * (evaluation is None) + ["test"] * (data["eval_split"] == "test")
        check_data_files(data["name"], data, splits, "The recipe's data cannot be used: ")


def _check_training(command: str, recipe: str, sections: dict[str, dict[str, Any]]) -> None:
    for name in ("init_image", "init_audio"):
        check_tower(sections["model"].get(name), f"model.{name}")
    path = Path(sections["run"]["output_dir"] or f"{RUNS}/{Path(recipe).stem}")
    check_run(command, sections, path)
    origin = sections["model"]["init_from"]
    if origin is not None and not path.exists():  # nothing starts from it in a run that has begun
        check_model(origin, f"model.init_from={origin}")


def _check_evaluation(given: argparse.Namespace, own: str, sections: dict[str, dict[str, Any]]) -> None:
    origin, task = given.model, sections["task"]["name"]
    path, argument = evaluation_place(given, sections["run"].get("output_dir"))
    check_model(origin, f"--model={origin}", task, training=f"{own} {given.recipe}")
    check_folder(path, argument, "evaluate", evaluation_fingerprint(origin, sections), given.overwrite)


def evaluation_place(given: argparse.Namespace, output_dir: str | None) -> tuple[Path, str]:
    """Folder of the report of `deepavfusion evaluate`, and the argument that gives it.

    Args:
        given: What `parse_evaluation` returns.
        output_dir: Value of `run.output_dir`, which is that of the model unless an override names it.
    """
    if given.out is None and output_dir and any(word.startswith("run.output_dir=") for word in given.overrides):
        return Path(output_dir), "run.output_dir"
    return given.out or evaluation_folder(Path(given.recipe).stem, given.model), "--out"


def parse_evaluation(words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of `deepavfusion evaluate`.

    Raises:
        SystemExit: For an option that does not exist.
    """
    parser = evaluate_parser("", "")
    parser.suggest = lambda word: (found := closest_option("", word, "evaluate")) and f"{found}=..."
    return parser.parse_intermixed_args(words)


def recipes_page(words: Sequence[str]) -> str:
    """What `deepavfusion recipes` prints: an overview of all recipes or of those of a command, or a recipe's file.

    Raises:
        SystemExit: After `--help`, or for an option that does not exist.
        RecipeError: For what is neither a command nor a recipe.
    """
    name = recipes_parser().parse_args(words).name
    if name is None or name in COMMANDS:
        return overview(list(COMMANDS) if name is None else [name])
    file = recipe_file(name)
    if file is None:
        raise unknown(f"recipe {name!r}", name, "names", [*COMMANDS, *all_recipes()])
    return file.read_text(encoding="utf-8").rstrip("\n")


def parse(command: str, words: Sequence[str]) -> argparse.Namespace:
    """Parse the command line of a command that takes no recipe, and check the paths in it.

    Raises:
        SystemExit: After `--help`, or for an option that does not exist.
        FolderError: For an output that cannot be written.
        FileExistsError: For an output that is there already, unless it may be replaced.
        InputError: If there is no such model, or none of the input files.
    """
    given = PARSERS[command]().parse_args(words)
    if command == "export" and given.format == "onnx":
        check_model(given.model)
        check_output_file(given.output, "output")
        check_outputs(command, given)
        return given
    if command in CHECKS:
        CHECKS[command](given)
        return given
    output = getattr(given, "output", None)
    single = command != "export"
    if output is not None and single and (len(given.files) > 1 or Path(given.files[0]).is_dir()):
        what = "a folder" if len(given.files) == 1 else len(given.files)
        raise InputError(f"--output takes one input file, got {what}; use --out.")
    if output is not None:
        check_output_file(output, "--output")
    if (out := getattr(given, "out", None)) is not None:
        check_writable(out, "--out")
        if (
            hasattr(given, "film")
            and out.exists()
            and any(os.path.isdir(item) and os.path.samefile(out, item) for item in given.files)
        ):
            raise InputError(f"--out={out} is a folder of input files, among which results would be: name another.")
    _check_task_model(command, given)
    check_inputs(command, given)
    for item in getattr(given, "frame", None) or ():
        if isinstance(item, str) and not os.path.exists(item):
            expected = "expected a timestamp in seconds, an image or a video"
            raise InputError(f"--frame {item}: {expected}, but there is no such file.")
    check_outputs(command, given)
    return given


def _check_task_model(command: str, given: argparse.Namespace) -> None:
    task = "recognition" if command == "export" else TASKS.get(command)
    if command == "localize" and given.map is not None:
        task = None  # such maps need no head
    check_model(given.model, task=task, alternative="pass --map attention" if command == "localize" else "")


def recipe_words(words: Sequence[str]) -> list[str]:
    """Recipe and overrides of a command line of `evaluate`, which may lack the other arguments."""
    flags = argparse.ArgumentParser(add_help=False)
    for name in ("--model", "--out"):
        flags.add_argument(name, nargs="?")
    return [word for word in flags.parse_known_args(words)[1] if not word.startswith("-")]


__all__ = [
    "HELP",
    "program",
    "InputError",
    "check",
    "help_without_recipe",
    "parse",
    "parse_data",
    "parse_evaluation",
    "recipe_words",
    "recipes_page",
]
