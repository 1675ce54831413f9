"""Arguments of a pre-training run: four dataclasses, filled from a recipe (YAML) and `section.key=value` overrides.

A recipe is a YAML file with the sections `model`, `data`, `optim` and `run`. Keys of `model` that are not fields of
[`ModelArguments`] are fields of `DeepAVFusionConfig`. Unknown keys and wrong types raise and say what exists.
"""

import dataclasses
import difflib
import types
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from deepavfusion import DeepAVFusionConfig


class RecipeError(ValueError):
    """A recipe or an override that cannot be used; the message says what was expected."""


@dataclass
class ModelArguments:
    """Which model. Any other key of the section is a field of `DeepAVFusionConfig` and is kept in `config`."""

    size: str | None = None
    """small, base, large or huge; None for the configuration's own defaults (base)."""
    init_from: str | None = None
    """Folder or Hub name of a model of this package to start from; its configuration then holds."""
    init_image: str | None = None
    """Unimodal checkpoint for the image tower: MAE file, or folder or Hub name of a ViTMAE model."""
    init_audio: str | None = None
    """Unimodal checkpoint for the audio tower: AudioMAE file."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    config: dict[str, Any] = field(default_factory=dict)
    """Fields of `DeepAVFusionConfig` that the recipe sets."""

    def build_config(self) -> DeepAVFusionConfig:
        try:
            if self.size is not None:
                return DeepAVFusionConfig.from_size(self.size, **self.config)
            return DeepAVFusionConfig(**self.config)
        except Exception as error:  # the strict dataclass raises classes of its own
            raise RecipeError(f"The recipe's model section does not give a configuration: {error}") from error


@dataclass
class DataArguments:
    """Which data, and how clips are read. Keys left at None are the data set's own defaults."""

    name: str = "scenes"
    """scenes (built in), folder, vggsound or audioset."""
    path: str | None = None
    """Root folder of the clips; scenes have none."""
    train_size: int | None = None
    """How many training clips; None is all of a data set on disk."""
    eval_size: int | None = None
    """How many held-out clips."""
    cache_dir: str | None = None
    """Where prepared samples are kept; None prepares them anew."""
    annotations: str | None = None
    """folder: csv or jsonl with columns file, label, start, end."""
    validation_share: float | None = None
    """folder: share of the clips held out, by a hash of their names, where no column says which."""
    difficulty: str | None = None
    """scenes: easy, standard or hard."""
    min_objects: int | None = None
    """scenes: fewest objects in sight."""
    max_objects: int | None = None
    """scenes: most objects in sight."""
    max_sounding: int | None = None
    """scenes: most objects that sound; 1 gives every clip one class."""
    noise: float | None = None
    """scenes: level of the noise."""
    motion: bool | None = None
    """scenes: whether objects move."""
    scene_seed: int | None = None
    """scenes: seed of the scenes themselves."""
    eval_split: str = "test"
    """Held-out split that is evaluated on: validation or test."""
    num_workers: int = 2
    """Processes that read clips, per training process; 0 reads in the training process."""
    max_broken: float = 0.01
    """Share of a split's clips; the run stops and lists the unreadable ones when they are more."""

    def source(self) -> dict[str, Any]:
        """What `build_dataset` is given: everything that was set but how the trainer uses it."""
        trainer_keys = ("eval_split", "num_workers", "max_broken")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in trainer_keys and v is not None}


@dataclass
class OptimArguments:
    """Optimiser, schedule, precision."""

    base_lr: float = 1.5e-4
    """Learning rate of a batch of 256; the real one is base_lr * effective batch / 256."""
    min_lr: float = 0.0
    """Where the cosine ends."""
    epochs: float = 200.0
    """Passes over the training clips."""
    warmup_epochs: float = 40.0
    """Linear warm-up."""
    tower_warmup_epochs: float | None = None
    """Slow start of towers that come from unimodal checkpoints; None is half the epochs, 0 is none."""
    batch_size: int = 64
    """Clips per device and micro-batch."""
    gradient_accumulation: int = 1
    """Micro-batches per optimiser step."""
    weight_decay: float = 0.05
    """On parameters of two or more dimensions."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    """AdamW's."""
    clip_grad_norm: float | None = None
    """Largest norm of the gradient; None does not clip."""
    mixed_precision: str = "no"
    """no, bf16 or fp16."""
    fsdp: bool = False
    """Shard parameters over the processes (FSDP2, the configuration's plan) instead of replicating them."""


@dataclass
class RunArguments:
    """Output, evaluation, logging."""

    output_dir: str | None = None
    """Result folder; None is runs/<recipe>."""
    seed: int = 0
    """Of initial weights, order of the clips, augmentations and masks."""
    log_steps: int = 20
    """Optimiser steps between two log lines."""
    eval_epochs: float = 10.0
    """Epochs between two evaluations; there is always one before the first step and one after the last."""
    save_epochs: float = 1.0
    """Epochs between two checkpoints."""
    keep_checkpoints: int = 2
    """How many of the last checkpoints stay."""
    picture_samples: int = 6
    """Clips in the picture of reconstructions."""
    trackers: list[str] = field(default_factory=list)
    """tensorboard, wandb."""
    cpu: bool = False
    """Train on the CPU even where there is an accelerator."""
    compile: bool = False
    """torch.compile the model."""
    resume: bool = True
    """Go on from the output folder's last checkpoint, if there is one; false starts over and removes it."""
    allow_changed_recipe: bool = False
    """Go on even though the recipe differs from the checkpoint's."""
    demo: bool = False
    """At the end write one built-in scene as mp4 into the output folder and embed it with the saved model."""
    license: str = "apache-2.0"
    """Licence of the weights, for the model card."""


@dataclass
class PretrainArguments:
    """All of a run's arguments; `goal` is the recipe's first comment."""

    recipe: str
    goal: str
    model: ModelArguments = field(default_factory=ModelArguments)
    data: DataArguments = field(default_factory=DataArguments)
    optim: OptimArguments = field(default_factory=OptimArguments)
    run: RunArguments = field(default_factory=RunArguments)

    def __post_init__(self):
        if self.run.output_dir is None:
            self.run.output_dir = str(Path("runs") / self.recipe)
        self._check()

    def _check(self) -> None:
        choices = {
            "data.name": (self.data.name, ("scenes", "folder", "vggsound", "audioset")),
            "data.difficulty": (self.data.difficulty or "standard", ("easy", "standard", "hard")),
            "data.eval_split": (self.data.eval_split, ("validation", "test")),
            "optim.mixed_precision": (self.optim.mixed_precision, ("no", "bf16", "fp16")),
        }
        for key, (value, allowed) in choices.items():
            if value not in allowed:
                raise RecipeError(f"{key} is {value!r}: expected one of {', '.join(allowed)}.")
        for tracker in self.run.trackers:
            if tracker not in ("tensorboard", "wandb"):
                raise RecipeError(f"run.trackers holds {tracker!r}: expected tensorboard or wandb.")
        positive = {
            "optim.batch_size": self.optim.batch_size,
            "optim.gradient_accumulation": self.optim.gradient_accumulation,
            "optim.epochs": self.optim.epochs,
            "run.log_steps": self.run.log_steps,
            "run.eval_epochs": self.run.eval_epochs,
            "run.save_epochs": self.run.save_epochs,
            "run.keep_checkpoints": self.run.keep_checkpoints,
            "run.picture_samples": self.run.picture_samples,
        }
        for key, value in positive.items():
            if value <= 0:
                raise RecipeError(f"{key} is {value}: expected a positive number.")
        if len(self.optim.betas) != 2:
            raise RecipeError(f"optim.betas is {self.optim.betas}: expected two numbers.")
        if self.model.init_from and (self.model.init_image or self.model.init_audio):
            raise RecipeError(
                "model.init_from and model.init_image / init_audio exclude each other: give one or the other."
            )

    def to_dict(self) -> dict[str, Any]:
        """Sections as plain dictionaries, `model.config` merged into `model`: what a recipe file holds."""
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in SECTIONS}
        sections["model"].update(sections["model"].pop("config"))
        return sections

    def to_yaml(self, public: bool = False) -> str:
        """This run as a recipe file, its goal as the first comment.

        With `public`, without what was left at None and without folders of the machine that it ran on.
        """
        comment = "".join(f"# {line}".rstrip() + "\n" for line in self.goal.splitlines())
        sections = self.to_dict()
        if public:
            for section, key in (
                ("data", "path"),
                ("data", "annotations"),
                ("data", "cache_dir"),
                ("run", "output_dir"),
            ):
                del sections[section][key]
            sections = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in sections.items()}
        return comment + yaml.safe_dump(sections, sort_keys=False)


SECTIONS = {"model": ModelArguments, "data": DataArguments, "optim": OptimArguments, "run": RunArguments}


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("deepavfusion.training.recipes")
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_arguments(recipe: str, overrides: list[str] | tuple[str, ...] = ()) -> PretrainArguments:
    """Arguments from a recipe, by its name or path, and `section.key=value` overrides (values are YAML).

    Raises:
        RecipeError: for a recipe, key, value or type that does not exist or fit.
    """
    name, text = _read_recipe(recipe)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"Recipe {recipe} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"Recipe {recipe} holds {type(values).__name__}: expected sections {', '.join(SECTIONS)}.")
    sections = {section: {} for section in SECTIONS}
    for section, entries in values.items():
        if section not in SECTIONS:
            raise RecipeError(_unknown(f"section {section!r} in recipe {recipe}", section, list(SECTIONS)))
        if not isinstance(entries or {}, dict):
            raise RecipeError(f"Section {section} of recipe {recipe} is {entries!r}: expected key: value pairs.")
        sections[section].update(entries or {})
    for override in overrides:
        section, key, value = _parse_override(override)
        sections[section][key] = value
    built = {section: _build(cls, section, sections[section]) for section, cls in SECTIONS.items()}
    return PretrainArguments(recipe=name, goal=_first_comment(text), **built)


def _read_recipe(recipe: str) -> tuple[str, str]:
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"There is no recipe file {recipe}.")
        return path.stem, path.read_text(encoding="utf-8")
    names = recipe_names()
    if recipe not in names:
        raise RecipeError(_unknown(f"recipe {recipe!r} (a name, or a path ending in .yaml)", recipe, names))
    return recipe, (resources.files("deepavfusion.training.recipes") / f"{recipe}.yaml").read_text(encoding="utf-8")


def _first_comment(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return "\n".join(lines)


def _parse_override(override: str) -> tuple[str, str, Any]:
    key, separator, text = override.partition("=")
    section, dot, name = key.partition(".")
    if not separator or not dot or not name:
        raise RecipeError(f"Argument {override!r}: expected section.key=value, such as optim.epochs=10.")
    if section not in SECTIONS:
        raise RecipeError(_unknown(f"section {section!r} in {override!r}", section, list(SECTIONS)))
    try:
        return section, name, yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"The value in {override!r} is not YAML: {error}") from error


def _build(cls: type, section: str, values: dict[str, Any]):
    hints = typing.get_type_hints(cls)
    own = {name: value for name, value in values.items() if name in hints and name != "config"}
    rest = {name: value for name, value in values.items() if name not in own}
    config_fields = sorted(DeepAVFusionConfig.__annotations__) if section == "model" else []
    for name in rest:
        if name not in config_fields or name in _NOT_CONFIGURED:
            valid = [*(n for n in hints if n != "config"), *(n for n in config_fields if n not in _NOT_CONFIGURED)]
            raise RecipeError(_unknown(f"key {section}.{name}", name, valid))
    own = {name: _convert(value, hints[name], f"{section}.{name}") for name, value in own.items()}
    return cls(**own, **({"config": rest} if section == "model" else {}))


# Annotated in the configuration class, yet no sizes or variants of the pre-training model.
_NOT_CONFIGURED = {
    "model_type",
    "base_model_fsdp_plan",
    "keys_to_ignore_at_inference",
    "classifier_loss",
    "classifier_input_norm",
    "separation_mask",
    "separation_weighted_loss",
}


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


__all__ = [
    "DataArguments",
    "ModelArguments",
    "OptimArguments",
    "PretrainArguments",
    "RecipeError",
    "RunArguments",
    "load_arguments",
    "recipe_names",
]
