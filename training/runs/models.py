"""The model that a run starts from: random, earlier or unimodal weights."""

from pathlib import Path

import torch
from accelerate.utils import set_seed

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.common import load_model, quiet_library

from ..config.recipe import RecipeError, recipe_command
from ..tasks import Task
from .checkpoints import INITIAL_MODEL, remove_entry
from .folder import RunFolder

# Fields of the configuration that a recipe may set for an encoder that exists; the others are the encoder's own.
_FREE_OF_SHAPE = {
    "alignment_weight",
    "attention_probs_dropout_prob",
    "classifier_input_norm",
    "classifier_loss",
    "decoder_prediction_fraction",
    "drop_path_rate",
    "hidden_dropout_prob",
    "localization_loss",
    "localization_map",
    "localization_threshold",
    "pretraining_masked_views",
    "pretraining_objective",
    "semantic_loss_ignore_index",
    "separation_mask",
    "separation_weighted_loss",
    "sigreg_weight",
}


def encoder_config(recipe) -> DeepAVFusionConfig:
    """The configuration that a run's model starts from; it says how large frames and spectrograms are."""
    origin = recipe.model.init_from
    if origin is None:
        return recipe.model.build_config()
    check_origin(origin, "model.init_from")
    try:
        return DeepAVFusionConfig.from_pretrained(origin)
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.init_from={origin} cannot be used: {error}") from error


def build_model(task: type[Task], recipe, clips):
    """The task's model for these clips, on the CPU."""
    given, config = recipe.model, encoder_config(recipe)
    try:
        fields = task.head_config(clips, recipe)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    set_seed(recipe.run.seed)
    if given.init_from is None:
        for name, value in fields.items():
            setattr(config, name, value)
        model = task.MODEL(config)
    else:
        model = _earlier_model(task, given, config, fields)
    try:
        task.prepare_model(model, clips, recipe)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    given.set_attention(model)  # so that one that cannot be used is refused here
    return model


def _earlier_model(task: type[Task], given, config: DeepAVFusionConfig, fields: dict):
    free = {name: value for name, value in given.config.items() if name in _FREE_OF_SHAPE}
    try:
        for name, value in {**free, **fields}.items():
            setattr(config, name, value)
        config = type(config)(**config.to_dict())  # checks that the fields fit together
        return load_model(task.MODEL, given.init_from, needed=task.ENCODER, config=config, dtype=torch.float32)
    except Exception as error:  # the strict configuration raises classes of its own
        raise RecipeError(f"model.init_from={given.init_from} cannot be used: {error}") from error


def load_task_model(task: type[Task], recipe, origin: str):
    """A trained model of a task, in evaluation mode, from a folder or Hub name; one that lacks weights is refused."""
    check_origin(origin, "--model")
    try:
        model = load_model(task.MODEL, origin)
    except (OSError, ValueError) as error:
        raise RecipeError(f"--model {origin} cannot be used for {task.NAME}: {error}") from error
    recipe.model.set_attention(model)
    return model.eval()


def shard(model, recipe, folder: RunFolder):
    """The same model under FSDP2 as the library applies it: it shards while it loads, so it is saved first."""
    from transformers.distributed import DistributedConfig

    processes, path = folder.processes, folder.checkpoints / INITIAL_MODEL
    with quiet_library():
        if processes.is_main_process:
            model.save_pretrained(path)
        processes.wait_for_everyone()
        config = DistributedConfig(fsdp_size=processes.num_processes)
        sharded = type(model).from_pretrained(path, distributed_config=config, dtype=torch.float32)
    processes.wait_for_everyone()
    if processes.is_main_process:
        remove_entry(path)
    if recipe.task.freeze_encoder:
        sharded.freeze_encoder()
    return sharded


def check_origin(origin: str, argument: str) -> None:
    """Checks that a model in `runs/`, where trainings leave theirs, is there; it is no name on the Hub.

    Args:
        origin: folder or Hub name of a model.
        argument: what gave it, e.g. "model.init_from".

    Raises:
        RecipeError: with the command that makes the model, where it is a recipe's or the quickstart's.
    """
    path = Path(origin)
    if path.parts[:1] != ("runs",) or (path / "config.json").is_file():
        return
    command = _maker(path.name) if len(path.parts) == 2 else None
    hint = "" if command is None else f": `{command}` makes it"
    raise RecipeError(f"{argument}={origin} cannot be used: there is no model in that folder{hint}.")


def _maker(name: str) -> str | None:
    """The command that fills runs/NAME, if one of the package does."""
    if name == "quickstart":
        return "make quickstart"
    command = recipe_command(name)
    return None if command in (None, "evaluate") else f"deepavfusion {command} {name}"


__all__ = ["build_model", "check_origin", "encoder_config", "load_task_model", "shard"]
