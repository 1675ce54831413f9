"""Recipes: YAML files with sections, and `section.key=value` overrides, as dataclasses.

Unknown sections and keys and wrong types raise and say what exists.
"""

import dataclasses
import difflib
import itertools
import os
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from deepavfusion import DeepAVFusionConfig


class RecipeError(ValueError):
    """A recipe or an override that cannot be used; the message says what was expected."""


@dataclass
class RecipeArguments:
    """All of a run's arguments; `goal` is the recipe's first comment.

    Attributes:
        SECTIONS: name of each section -> its dataclass.
        COMMAND: the command whose recipes these are.
        FIXED_CONFIG: fields of the configuration that recipes of this kind do not set.
    """

    SECTIONS: ClassVar[dict[str, type]]
    COMMAND: ClassVar[str]
    FIXED_CONFIG: ClassVar[frozenset[str]] = frozenset(
        {"model_type", "base_model_fsdp_plan", "keys_to_ignore_at_inference"}
    )

    recipe: str
    goal: str
    if typing.TYPE_CHECKING:  # sections, which are fields of the subclasses
        data: Any
        optim: Any
        run: Any

    def __post_init__(self):
        if self.run.output_dir is None:
            self.run.output_dir = str(Path("runs") / self.recipe)
        self._check()

    def _check(self) -> None:
        """Raises `RecipeError` for values that do not exist or fit together."""
        raise NotImplementedError

    @staticmethod
    def check_choices(choices: dict[str, tuple[Any, tuple]]) -> None:
        """key -> (value, allowed values)."""
        for key, (value, allowed) in choices.items():
            if value not in allowed:
                raise RecipeError(f"{key} is {value!r}: expected one of {', '.join(allowed)}.")

    @staticmethod
    def check_positive(values: dict[str, float]) -> None:
        for key, value in values.items():
            if value <= 0:
                raise RecipeError(f"{key} is {value}: expected a positive number.")

    def check_training(self) -> None:
        """What the arguments of every training have in common."""
        self.check_choices(
            {
                "data.difficulty": (self.data.difficulty or "standard", ("easy", "standard", "hard")),
                "data.eval_split": (self.data.eval_split, ("validation", "test")),
                "optim.mixed_precision": (self.optim.mixed_precision, ("no", "bf16", "fp16")),
            }
        )
        self.check_positive(
            {
                "optim.batch_size": self.optim.batch_size,
                "optim.gradient_accumulation": self.optim.gradient_accumulation,
                "optim.epochs": self.optim.epochs,
                "run.log_steps": self.run.log_steps,
                "run.eval_epochs": self.run.eval_epochs,
                "run.keep_checkpoints": self.run.keep_checkpoints,
            }
        )
        if len(self.optim.betas) != 2:
            raise RecipeError(f"optim.betas is {self.optim.betas}: expected two numbers.")
        for tracker in self.run.trackers:
            if tracker not in ("tensorboard", "wandb"):
                raise RecipeError(f"run.trackers holds {tracker!r}: expected tensorboard or wandb.")

    def to_dict(self) -> dict[str, Any]:
        """Sections as plain dictionaries, `model.config` merged into `model`: what a recipe file holds."""
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in self.SECTIONS}
        sections["model"].update(sections["model"].pop("config"))
        return sections

    def to_yaml(self, public: bool = False) -> str:
        """This run as a recipe file, its recipe's first comment before it.

        With `public`, without what was left at None, without folders of the machine that it ran on, and of the comment
        the goal alone: cost and expectation are those of the recipe as it was, not of what overrides made of it.
        """
        lines = self.goal.splitlines()
        if public:
            lines = itertools.takewhile(lambda line: not line.startswith(("Cost:", "Expected:")), lines)
        comment = "".join(f"# {line}".rstrip() + "\n" for line in lines)
        sections = self.to_dict()
        if public:
            for section, key in (
                ("data", "path"),
                ("data", "annotations"),
                ("data", "train_list"),
                ("data", "test_list"),
                ("data", "cache_dir"),
                ("run", "output_dir"),
            ):
                del sections[section][key]
            sections = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in sections.items()}
        return comment + yaml.safe_dump(sections, sort_keys=False)


def recipe_names(kind: type[RecipeArguments]) -> list[str]:
    """Names of the recipes of a kind that come with the package."""
    folder = resources.files("deepavfusion.training.recipes")
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".yaml")]
    return sorted(f.name.removesuffix(".yaml") for f in files if _has_task(f.read_text()) == ("task" in kind.SECTIONS))


def _has_task(text: str) -> bool:
    return any(line.startswith("task:") for line in text.splitlines())


Arguments = TypeVar("Arguments", bound=RecipeArguments)


def load_recipe(kind: type[Arguments], recipe: str, overrides: list[str] | tuple[str, ...] = ()) -> Arguments:
    """Arguments from a recipe, by its name or path, and `section.key=value` overrides (values are YAML).

    Args:
        kind: of recipe: `PretrainArguments` or `FinetuneArguments`.

    Raises:
        RecipeError: for a recipe, key, value or type that does not exist or fit.
    """
    name, text = _read_recipe(recipe, kind)
    valid = kind.SECTIONS
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"Recipe {recipe} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"Recipe {recipe} holds {type(values).__name__}: expected sections {', '.join(valid)}.")
    sections = {section: {} for section in valid}
    for section, entries in values.items():
        if section not in valid:
            raise RecipeError(_unknown(f"section {section!r} in recipe {recipe}", section, list(valid)))
        if not isinstance(entries or {}, dict):
            raise RecipeError(f"Section {section} of recipe {recipe} is {entries!r}: expected key: value pairs.")
        sections[section].update(entries or {})
    for override in overrides:
        section, key, value = _parse_override(override, valid)
        sections[section][key] = value
    built = {section: _build(cls, section, sections[section], kind) for section, cls in valid.items()}
    return kind(recipe=name, goal=_first_comment(text), **built)


def _read_recipe(recipe: str, kind: type[RecipeArguments]) -> tuple[str, str]:
    path = Path(recipe)
    packaged = resources.files("deepavfusion.training.recipes") / f"{recipe}.yaml"
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"There is no recipe file {recipe}.")
        name, text = path.stem, path.read_text(encoding="utf-8")
    elif os.sep not in recipe and packaged.is_file():
        name, text = recipe, packaged.read_text(encoding="utf-8")
    else:
        names = recipe_names(kind)
        raise RecipeError(_unknown(f"recipe {recipe!r} (a name, or a path ending in .yaml)", recipe, names))
    if _has_task(text) and "task" not in kind.SECTIONS:
        raise RecipeError(f"Recipe {recipe} names a task: use `deepavfusion finetune {recipe}`.")
    if not _has_task(text) and "task" in kind.SECTIONS:
        raise RecipeError(
            f"Recipe {recipe} names no task: it is one of `deepavfusion pretrain`. "
            f"Recipes of `{kind.COMMAND}`: {', '.join(recipe_names(kind))}."
        )
    return name, text


def _first_comment(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return "\n".join(lines)


def _parse_override(override: str, sections: Iterable[str]) -> tuple[str, str, Any]:
    key, separator, text = override.partition("=")
    section, dot, name = key.partition(".")
    if not separator or not dot or not name:
        raise RecipeError(f"Argument {override!r}: expected section.key=value, such as optim.epochs=10.")
    if section not in sections:
        raise RecipeError(_unknown(f"section {section!r} in {override!r}", section, list(sections)))
    try:
        return section, name, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"The value in {override!r} is not YAML: {error}") from error


def _build(cls: type, section: str, values: dict[str, Any], kind: type[RecipeArguments]):
    hints = typing.get_type_hints(cls)
    own = {name: value for name, value in values.items() if name in hints and name != "config"}
    rest = {name: value for name, value in values.items() if name not in own}
    config_fields = sorted(set(DeepAVFusionConfig.__annotations__) - kind.FIXED_CONFIG) if section == "model" else []
    for name in rest:
        if name not in config_fields:
            valid = [*(n for n in hints if n != "config"), *config_fields]
            raise RecipeError(_unknown(f"key {section}.{name}", name, valid))
    own = {name: _convert(value, hints[name], f"{section}.{name}") for name, value in own.items()}
    return cls(**own, **({"config": rest} if section == "model" else {}))


def _convert(value: Any, hint: Any, key: str) -> Any:
    """`value` as `hint`, where nothing is lost: integers are floats, and so is 1e-4, which YAML reads as text."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in allowed:
        return None
    for kind in allowed:
        if typing.get_origin(kind) is list and isinstance(value, (list, str)):
            entries = [value] if isinstance(value, str) else value  # run.trackers=wandb is a list of one
            return [_convert(entry, typing.get_args(kind)[0], key) for entry in entries]
        if kind is float and not isinstance(value, bool) and isinstance(value, (int, float, str)):
            try:
                return float(value)
            except ValueError:
                continue
        if isinstance(kind, type) and type(value) is kind:
            return value
        if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        if kind is str and value is False and key == "optim.mixed_precision":
            return "no"  # YAML reads a bare no as false
    expected = " or ".join(
        "nothing" if kind is type(None) else getattr(kind, "__name__", str(kind)) for kind in allowed
    )
    raise RecipeError(f"{key} is {value!r} ({type(value).__name__}): expected {expected}.")


def _unknown(what: str, name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"Unknown {what}.{hint} Valid: {', '.join(valid)}."


__all__ = ["RecipeArguments", "RecipeError", "load_recipe", "recipe_names"]
