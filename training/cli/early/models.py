"""What a saved model is for, by its config.json, and whether that is what a command needs."""

import json
from pathlib import Path
from typing import Any

from deepavfusion.formats_deepavfusion import checkpoint_fault
from deepavfusion.tasks_deepavfusion import HEADS

from ..paths import InputError, missing_model, unusable

MODEL_TYPE = "deepavfusion"
PRETRAINED, ENCODER = "DeepAVFusionForPreTraining", "DeepAVFusionModel"  # models without the head of a task
# Command -> the task that its models are for; other commands take any model.
TASKS = {"localize": "localization", "segment": "segmentation", "separate": "separation", "classify": "recognition"}
CLASSES = {task.name: name for name, task in HEADS.items()}  # task -> class of its models


def check_model(origin: str, argument: str = "", task: str | None = None, known: bool = False, **advice: str) -> None:
    """Check that a folder holds a model for a task, as far as its config.json says what it holds.

    Args:
        origin: Folder or Hub id of a model; of a Hub id, nothing is known yet.
        argument: How messages call it; by default by its name.
        task: Task that the model must be for; by default any, as for tasks that need an encoder alone.
        known: Whether it must be of a class of this package, and not of one derived from it.
        advice: Keyword arguments of `head_fault`.

    Raises:
        InputError: If there is no model, or a model of another type or for another task.
    """
    argument = argument or origin
    if reason := missing_model(origin):
        raise InputError(unusable(argument, reason))
    config, purpose = stored_config(origin), ""
    fault = type_fault(origin, config["model_type"]) if "model_type" in config else None
    if fault is None and (stored := stored_class(config)) is not None:
        fault = class_fault(origin, stored) if known else None
        if fault is None and task in CLASSES:
            fault, purpose = head_fault(origin, stored, CLASSES[task], **advice), f" for {task}"
    if fault is not None:
        named = argument == origin
        raise InputError(fault if named else f"{argument} cannot be used{purpose}: it{fault.removeprefix(origin)}")


def check_tower(origin: str | None, argument: str) -> None:
    """Raise `InputError` if a file, from which a tower is to start, is no checkpoint; folders and Hub ids pass."""
    if origin is not None and Path(origin).is_file() and (fault := checkpoint_fault(origin)):
        raise InputError(unusable(f"{argument}={origin}", fault))


def stored_config(origin: str) -> dict[str, Any]:
    """Content of the config.json in a folder; empty if there is none that can be read, which is answered later."""
    try:
        config = json.loads(Path(origin, "config.json").read_text(encoding="utf-8"))
        return config if isinstance(config, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def stored_class(config: dict[str, Any]) -> str | None:
    """Class that a model was saved from; None if its configuration does not say."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def type_fault(origin: str, kind: Any) -> str | None:
    """Sentence that says that a model, by the `model_type` of its configuration, is none of this package; else None."""
    return None if kind == MODEL_TYPE else f"{origin} holds a model of type {kind!r}: expected {MODEL_TYPE!r}."


def class_fault(origin: str, stored: str | None) -> str | None:
    """Sentence that says that a model was saved from no class of this package; else None."""
    known = (*HEADS, PRETRAINED, ENCODER)
    if stored in known:
        return None
    return f"{origin} holds a model of class {stored}: expected one of {', '.join(known)}."


def head_fault(
    origin: str, stored: str | None, wanted: str | None, training: str = "", alternative: str = ""
) -> str | None:
    """Sentence that says that a model lacks the head of a class; None if it has it, or if that is not known.

    Args:
        origin: Folder or Hub id of the model.
        stored: Class that it was saved from.
        wanted: Class that is needed.
        training: Command and recipe that train such a model; by default an example.
        alternative: What else to do with an encoder that was not fine-tuned.
    """
    if wanted not in HEADS or stored == wanted:
        return None
    training = training or example_run(wanted)
    if stored in (PRETRAINED, ENCODER):
        return (
            f"{origin} holds a pre-trained encoder ({stored}) without the weights of a {wanted}: fine-tune it first, "
            f"e.g. deepavfusion {training} model.init_from={origin}{alternative and f', or {alternative}'}."
        )
    if stored in HEADS:
        return (
            f"{origin} holds a model for {HEADS[stored].name} ({stored}): expected one for {HEADS[wanted].name} "
            f"({wanted}), which deepavfusion {training} makes, e.g. with model.init_from={origin}."
        )
    return None


def example_run(model_class: str) -> str:
    """Command and packaged recipe that train models of a class on the built-in scenes."""
    return f"finetune scenes_{HEADS[model_class].name}"


__all__ = [
    "CLASSES",
    "ENCODER",
    "MODEL_TYPE",
    "PRETRAINED",
    "TASKS",
    "check_model",
    "check_tower",
    "class_fault",
    "example_run",
    "head_fault",
    "stored_class",
    "stored_config",
    "type_fault",
]
