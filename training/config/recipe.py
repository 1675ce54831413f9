"""Recipes: YAML files of sections, and `section.key=value` overrides, as dataclasses.

A recipe starts with a comment on its goal, cost and expected result, and names the `command` that it is for.
Unknown sections and options, wrong types and values raise a `RecipeError` that lists what is valid.
"""

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deepavfusion_cli.early.recipes import check_combinations, override_warmup
from deepavfusion_cli.errors import cause
from deepavfusion_cli.options import inapplicable, unknown_option
from deepavfusion_cli.paths import no_data_path
from deepavfusion_cli.recipes import (
    SUFFIXES,
    check_command,
    check_recipe,
    first_comment,
    recipe_command,
    recipe_file,
    recipe_goal,
    recipe_names,
)
from deepavfusion_cli.values import kind_of, load_values, parse_override

from ..data import data_sets
from .arguments import DataArguments, OptimArguments, RunArguments, TaskArguments
from .commands import COMMANDS
from .model import ORIGINS, ModelArguments, public_origin
from .options import Option, RecipeError, Scope, check_value, convert, field_options, unknown
from .sections import SECTIONS, config_options, section_options


@dataclass
class Recipe:
    """All settings of a run.

    Args:
        name: Name of the recipe.
        goal: First comment of the recipe.
        command: Command that it is for: pretrain, finetune, probe or evaluate.
        task: Section `task`.
        model: Section `model`.
        data: Section `data`.
        optim: Section `optim`.
        run: Section `run`.
        source: Name or path by which it was given; by default its name.

    Raises:
        RecipeError: If values are invalid, exclude each other, or do not apply to the command, task or data set.
    """

    name: str
    goal: str
    command: str
    task: TaskArguments = field(default_factory=TaskArguments)
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    optim: OptimArguments = field(default_factory=OptimArguments)
    run: RunArguments = field(default_factory=RunArguments)
    source: str = field(default="", compare=False)

    def __post_init__(self):
        self.source = self.source or self.name
        if self.run.output_dir is None and self.command != "evaluate":
            self.run.output_dir = str(Path("runs") / self.name)
        self._check_command_task_and_data_set()
        for section in SECTIONS:
            for option, value in self._values(section):
                key = f"{section}.{option.name}"
                mismatch = self.scope.mismatch(option)
                if mismatch and value != option.default:
                    valid = [other.name for other in section_options(section) if not self.scope.mismatch(other)]
                    raise inapplicable(key, mismatch, valid)
                check_value(value, option, key)
        check_combinations(self.command, {section: vars(getattr(self, section)) for section in SECTIONS})

    @property
    def scope(self) -> Scope:
        """Command, task and data set."""
        return Scope(self.command, self.task.name, self.data.name)

    def _values(self, section: str) -> list[tuple[Option, Any]]:
        """List the options of a section with their values; of the model's configuration, only those that are set."""
        values = vars(getattr(self, section))
        values = {**values, **values.get("config", {})}
        return [(option, values[option.name]) for option in section_options(section) if option.name in values]

    def _check_command_task_and_data_set(self) -> None:
        if self.command not in COMMANDS:
            raise RecipeError(f"The recipe's command is {self.command!r}: expected one of {', '.join(COMMANDS)}.")
        if self.task.name not in COMMANDS[self.command]:
            raise RecipeError(
                f"task.name is {self.task.name!r}: expected {_one_of(COMMANDS[self.command])} "
                f"for `deepavfusion {self.command}`."
            )
        suitable = data_sets(task=self.task.data_task)
        if self.data.name not in suitable:
            raise RecipeError(
                f"data.name is {self.data.name!r}: expected {_one_of(suitable)} for task {self.task.name!r}."
            )

    def check_data_path(self) -> None:
        """Raise `RecipeError` if the data set needs a folder, and none is named."""
        if self.data.name != "scenes" and (reason := no_data_path(self.data.name, self.data.path)):
            raise RecipeError(reason)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a recipe file: the command, and the options of every section that apply."""
        sections = {
            section: {option.name: value for option, value in self._values(section) if not self.scope.mismatch(option)}
            for section in SECTIONS
        }
        return {"command": self.command, **sections}

    def to_yaml(self, public: bool = False) -> str:
        """Format the settings as a recipe file, which starts with the comment of the recipe.

        Args:
            public: Whether to leave out options at null, paths of this machine and, in the comment, cost and expected
                result, which may not apply with overrides.
        """
        lines, content = self.goal.splitlines(), self.to_dict()
        if public:
            lines = itertools.takewhile(lambda line: not line.startswith(("Cost:", "Expected:")), lines)
            for section in SECTIONS:
                local = {option.name for option in section_options(section) if option.local}
                entries = content[section].items()
                content[section] = {k: v for k, v in entries if v is not None and k not in local}
            origins = content["model"].keys() & set(ORIGINS)
            content["model"] |= {name: public_origin(content["model"][name]) for name in origins}
        comment = "".join(f"# {line}".rstrip() + "\n" for line in lines)
        return comment + yaml.safe_dump(content, sort_keys=False)


def _one_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def load_recipe(command: str, recipe: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Load a recipe for a command.

    Args:
        command: Command that runs it: pretrain, finetune, probe or evaluate.
        recipe: Name of a packaged recipe, or path of a YAML file.
        overrides: `section.key=value` strings, whose values are YAML.

    Raises:
        RecipeError: If the recipe does not exist, is for another command, or has an invalid option, type or value.
    """
    name, text = _read(command, recipe)
    try:
        values = load_values(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise RecipeError(f"Recipe {recipe}{place}: not valid YAML ({reason}).") from error
    except (ValueError, RecursionError, OverflowError) as error:  # dates and numbers that do not exist, deep nesting
        raise RecipeError(f"Recipe {recipe}: a value cannot be read ({cause(error)}).") from error
    if not isinstance(values, dict):
        raise RecipeError(f"Recipe {recipe} holds {kind_of(values)}: expected sections {', '.join(SECTIONS)}.")
    own_command = _check_command(command, recipe, values.pop("command", None))
    sections = {section: {} for section in SECTIONS}
    sections["task"]["name"] = COMMANDS[own_command][0]
    for section, entries in values.items():
        if section not in SECTIONS:
            raise unknown(f"section {section!r} in recipe {recipe}", str(section), "sections", SECTIONS)
        if not isinstance(entries or {}, dict):
            raise RecipeError(f"Section {section} of recipe {recipe} is {entries!r}: expected key: value pairs.")
        sections[section].update(entries or {})
    overridden = {section: {} for section in SECTIONS}
    for override, following in itertools.zip_longest(overrides, overrides[1:], fillvalue=""):
        section, key, value = parse_override(override, following, own_command)
        overridden[section][key] = value
    _leave_out_other_data(sections, overridden["data"], own_command)
    for section, entries in overridden.items():
        if section == "optim":
            sections[section] = override_warmup(sections[section], entries, OptimArguments.epochs)
        else:
            sections[section] |= entries
    built = {section: _build(section, sections[section], own_command) for section in SECTIONS}
    return Recipe(name=name, goal=first_comment(text), command=own_command, source=recipe, **built)


def _read(command: str, recipe: str) -> tuple[str, str]:
    """Read a recipe; returns its name and text."""
    check_recipe(command, recipe)
    packaged = None if recipe.endswith(SUFFIXES) else recipe_file(recipe)
    path = packaged or Path(recipe)
    try:
        return path.stem, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"Recipe {recipe} cannot be read: {cause(error, recipe)}.") from error


def _check_command(command: str, recipe: str, own: Any) -> str:
    if own is None:
        raise RecipeError(f"Recipe {recipe} names no command: add the line `command: {command}` to it.")
    if own not in tuple(COMMANDS):  # own may be of any type
        raise RecipeError(f"The command of recipe {recipe} is {own!r}: expected one of {', '.join(COMMANDS)}.")
    check_command(command, recipe, own)
    return own


def _leave_out_other_data(sections: dict[str, dict], overridden: dict[str, Any], command: str) -> None:
    """Leave out the options of a recipe's data set that another one, which is named instead, does not have."""
    data, name = sections["data"], overridden.get("name")
    if name is None or name == data.get("name"):
        return
    scope = Scope(command, sections["task"].get("name"), name)
    for option in section_options("data", command):
        if scope.mismatch(option):
            data.pop(option.name, None)


def _build(section: str, values: dict[str, Any], command: str):
    """Build the dataclass of a section from the values of a recipe."""
    known = {option.name for option in section_options(section)}
    for name in values:
        if name not in known:
            raise unknown_option(section, str(name), command)
    own = {option.name: option for option in field_options(SECTIONS[section])}
    fields = {option.name: option for option in config_options()} if section == "model" else {}
    found = {name: convert(value, (own | fields)[name], f"{section}.{name}") for name, value in values.items()}
    given = {name: value for name, value in found.items() if name in own}
    if section == "model":
        given["config"] = {name: value for name, value in found.items() if name not in own}
    return SECTIONS[section](**given)


__all__ = ["Recipe", "RecipeError", "load_recipe", "recipe_command", "recipe_goal", "recipe_names"]
