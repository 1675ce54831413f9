"""The settings of a recipe with overrides, as plain values, from what `options.json` says of every option."""

import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yaml import YAMLError

from ..options import inapplicable, stored
from ..recipes import RecipeError, recipe_file
from ..values import as_choice, convert, load_values, parse_override

_WARMUP = 0.2  # of the epochs, by default


def settings(recipe: str, words: Sequence[str]) -> tuple[str, dict[str, dict[str, Any]]] | None:
    """Command of a recipe that `check_recipe` passed, and the options of every section that apply, as `Recipe.to_dict`.

    Args:
        recipe: Name of a packaged recipe, or path of a recipe file.
        words: Overrides.

    Returns:
        None for a recipe or overrides that cannot be read, which is answered later.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError, YAMLError):
        values = load_values((recipe_file(recipe) or Path(recipe)).read_text(encoding="utf-8"))
        command = values["command"]
        listed = {title.partition(":")[0]: entries for title, entries in stored()[command]}
        given = {section: dict(values.get(section) or {}) for section in listed}
        overrides: dict[str, dict[str, Any]] = {section: {} for section in listed}
        for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
            section, name, value = parse_override(word, following, command)
            overrides[section][name] = value
        for section, entries in overrides.items():
            if section == "optim":
                given[section] = override_warmup(given[section], entries, _defaults(listed[section]).get("epochs"))
            else:
                given[section] |= entries
        return command, _applying(listed, given)
    return None


def check_scope(command: str, words: Sequence[str], sections: dict[str, dict[str, Any]]) -> None:
    """Raise `RecipeError` for an override that does not apply to the command, task or data set of a recipe.

    Args:
        command: Command of the recipe.
        words: Overrides.
        sections: What `settings` returns.
    """
    scope = {"tasks": sections["task"]["name"], "data_sets": sections["data"]["name"]}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        check_applies(*parse_override(word, following, command), command, scope)


def check_applies(section: str, name: str, value: Any, command: str, scope: dict[str, str]) -> None:
    """Raise `RecipeError` for an option that does not apply, unless it has its default.

    Args:
        section: Its section.
        name: Its name.
        value: Its value.
        command: Command of the recipe.
        scope: Kind of limit, "tasks" or "data_sets" -> name of the task or data set.
    """
    entries = next(entries for title, entries in stored()[command] if title.partition(":")[0] == section)
    titles = {"tasks": "task", "data_sets": "dataset"}

    def mismatch(limits: dict[str, Any]) -> str | None:
        wrong = (kinds for kinds, own in scope.items() if own not in limits.get(kinds, (own,)))
        return next((f"{titles[kinds]} {scope[kinds]!r}" for kinds in wrong), None)

    found = {key.partition(".")[2]: (kind, mismatch(limits)) for key, kind, _, limits in entries}
    kind, wrong = found.get(name, ("", f"command {command!r}"))
    if wrong is not None and (not kind or value != load_values(kind.partition(", default ")[2])):
        raise inapplicable(f"{section}.{name}", wrong, [other for other, (_, why) in found.items() if why is None])


def check_combinations(command: str, sections: dict[str, dict[str, Any]]) -> None:
    """Raise `RecipeError` for settings that exclude each other.

    Args:
        command: Command of the recipe.
        sections: The options of every section that apply.
    """
    optim, model = sections["optim"], sections["model"]
    if len(optim.get("betas", "ab")) != 2:
        raise RecipeError(f"optim.betas is {optim['betas']}: expected two numbers.")
    if optim.get("warmup_epochs") is not None and optim.get("warmup_fraction") is not None:
        raise RecipeError("optim.warmup_epochs and optim.warmup_fraction are mutually exclusive.")
    if model.get("init_from") and (model.get("init_image") or model.get("init_audio")):
        raise RecipeError("model.init_from and model.init_image / init_audio are mutually exclusive.")
    if command == "probe" and not sections["task"]["freeze_encoder"]:
        raise RecipeError(
            "task.freeze_encoder is false: a probe needs task.freeze_encoder=true; "
            "`deepavfusion finetune` trains the encoder as well."
        )
    if optim.get("fsdp") and optim["mixed_precision"] == "fp16":
        raise RecipeError("optim.fsdp=true shards parameters, which fp16 loss scaling does not support: use bf16.")
    if optim.get("fsdp") and optim["optimizer"] == "muon":
        raise RecipeError("optim.fsdp=true shards matrices, which Muon needs whole: use optim.optimizer=adamw.")


def _applying(listed: dict[str, list], given: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The options that apply, with defaults; of the fields of the model's configuration, those that are given."""
    scope = {
        f"{kind}s": given[section].get("name", _defaults(listed[section])["name"])
        for section, kind in (("task", "task"), ("data", "data_set"))
    }
    found: dict[str, dict[str, Any]] = {}
    for section, entries in listed.items():
        found[section], defaults = {}, _defaults(entries)
        for key, kind, _, limits in entries:
            name = key.partition(".")[2]
            applies = all(value in limits.get(kinds, (value,)) for kinds, value in scope.items())
            if applies and (name in given[section] or not limits.get("configuration")):
                value = as_choice(given[section].get(name, defaults[name]), limits.get("choices", ()))
                found[section][name] = convert(value, kind.partition(", default ")[0], key)
    return found


def _defaults(entries: list) -> dict[str, Any]:
    return {key.partition(".")[2]: load_values(kind.partition(", default ")[2]) for key, kind, *_ in entries}


def override_warmup(optim: dict[str, Any], overridden: dict[str, Any], default: float | None) -> dict[str, Any]:
    """Values of `optim`, with the warm-up of the recipe replaced by an override of either of its forms.

    Without such an override, a warm-up in epochs follows an override of their number: it stays the same fraction.

    Args:
        optim: Values of the recipe.
        overridden: Overrides.
        default: Number of epochs of recipes that name none; None for those that do not train.
    """
    names = ("warmup_fraction", "warmup_epochs")
    if "epochs" not in overridden and not overridden.keys() & set(names):
        return optim | overridden
    others = {name: value for name, value in optim.items() if name not in names}
    if overridden.keys() & set(names):
        return others | overridden
    try:
        fraction = float(optim["warmup_epochs"]) / float(optim.get("epochs", default))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # in other forms; wrong values are reported later
        return optim | overridden
    return others | {"warmup_fraction": fraction} | overridden if 0 <= fraction < 1 else optim | overridden


def warmup(optim: dict[str, Any]) -> float:
    """Length of the warm-up in epochs, from the values of section `optim`."""
    if optim["warmup_epochs"] is not None:
        return optim["warmup_epochs"]
    return optim["epochs"] * (_WARMUP if optim["warmup_fraction"] is None else optim["warmup_fraction"])


__all__ = ["check_applies", "check_combinations", "check_scope", "override_warmup", "settings", "warmup"]
