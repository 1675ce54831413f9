"""The commands that go on from a prepared data set: they agree with what was prepared."""

import json
import shlex
from pathlib import Path

import yaml

from deepavfusion_cli.environment import own_command
from deepavfusion_cli.values import load_values

from .config.recipe import Recipe, load_recipe
from .data.sets.folder import label_info
from .data.shards import Preparation, chosen_options

# Data set -> recipes for it, with their commands.
_RECIPES = {
    "folder": {"folder": "pretrain", "folder_recognition": "finetune"},
    "vggsound": {"vggsound_base": "pretrain", "vggsound_finetune": "finetune"},
    "audioset": {"audioset_base": "pretrain", "audioset_finetune": "finetune"},
    "music": {"music_separation": "finetune"},
    "vggsound_music": {"vggsound_music_separation": "finetune"},
    "avsbench": {"avsbench_{subset}": "finetune"},
    "vggss": {"vggss_localization": "finetune"},
    "flickr_soundnet": {"flickr_localization": "finetune"},
    "is3": {"is3_localization": "evaluate"},
}
# Of training frames without boxes, if the recipe expects some.
_WITHOUT_BOXES = (
    "data.validation_fraction=null",
    "run.keep_best=false",
    "model.localization_map=similarity",
    "model.localization_loss=matching",
)


def next_commands(preparation: Preparation, out: str | Path) -> list[str]:
    """The commands that train on a prepared data set, or evaluate where there are no training clips.

    Args:
        preparation: What was prepared.
        out: Where.

    Returns:
        The commands, quoted for a shell, in which MODEL stands for the folder of a model that the user has to choose;
        none if no recipe fits the splits and classes.
    """
    recipes = _RECIPES[preparation.about["data"]]
    found = (_command(preparation, out, command, name) for name, command in recipes.items())
    return [command for command in found if command is not None]


def _command(preparation: Preparation, out: str | Path, command: str, name: str) -> str | None:
    about, splits = preparation.about, {split for split, rows in preparation.rows.items() if len(rows)}
    recipe = load_recipe(command, name.format(**about["options"]))
    if recipe.task.name == "recognition" and not any(_has_classes(rows) for rows in preparation.rows.values()):
        return None
    words = _chosen(recipe, about["options"])
    fraction, split = recipe.data.validation_fraction, recipe.data.eval_split
    if command == "finetune" and splits == {"test"}:
        command = "evaluate"
    elif command != "evaluate" and not splits & {"train", None}:
        return None
    unlabeled = command == "finetune" and about["kind"] == "boxes" and preparation.rows["train"][0]["boxes"][0] is None
    if unlabeled and recipe.model.config.get("localization_loss") == "supervised":
        words += _WITHOUT_BOXES
    if None not in splits:
        if split not in splits and "test" in splits:
            words.append("data.eval_split=test")
        elif split not in splits and not (split == "validation" and fraction):
            return None
        if (
            command == "finetune"
            and recipe.run.keep_best
            and recipe.data.selection_split not in splits
            and not fraction
        ):
            words.append("run.keep_best=false")
    if command == "evaluate":
        words += ["--model", "MODEL"]
    elif recipe.model.init_from is not None and not Path(recipe.model.init_from).is_dir():
        words.append("model.init_from=MODEL")
    return shlex.join(
        [own_command(), command, recipe.name, "data.name=shards", _override("data.path", str(out)), *words]
    )


def _has_classes(rows) -> bool:
    names, _ = label_info(rows)
    return names is not None and len(names) > 1


def _chosen(recipe: Recipe, stored: dict) -> list[str]:
    """Overrides by which the options of a recipe that choose clips agree with those of the preparation."""
    values = {"name": recipe.data.name, "subset": recipe.data.subset, "drop_overlap": recipe.data.drop_overlap}
    wanted = chosen_options(values).items()
    return [f"data.{key}=null" for key, value in wanted if stored.get(key, False if value is False else None) != value]


def _override(option: str, text: str) -> str:
    """An override whose value is text, which is quoted where YAML would read something else."""
    text = f"./{text}" if text.startswith("~") else text  # which otherwise stands for the home folder
    try:
        plain = load_values(text) == text
    except (ValueError, yaml.YAMLError):
        plain = False
    return f"{option}={text if plain else json.dumps(text, ensure_ascii=False)}"


__all__ = ["next_commands"]
