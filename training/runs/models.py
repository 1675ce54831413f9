"""Initial model of a run: with random weights, or those of an earlier model or of unimodal checkpoints."""

import torch
from accelerate.utils import set_seed

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.common import load_model, model_fault, quiet_library, reading_model
from deepavfusion_cli.paths import missing_model, unusable

from ..config.recipe import RecipeError
from ..tasks import Task
from .checkpoints import INITIAL_MODEL, remove_entry
from .folder import RunFolder

# Fields of the configuration that a recipe may set for an existing encoder; the others are those of the encoder.
_FREE_OF_SHAPE = {
    "alignment_weight",
    "attention_probs_dropout_prob",
    "classifier_input_norm",
    "classifier_loss",
    "decoder_prediction_fraction",
    "drop_path_rate",
    "hidden_dropout_prob",
    "label_smoothing",
    "localization_loss",
    "localization_map",
    "localization_threshold",
    "pretraining_masked_views",
    "pretraining_objective",
    "segmentation_width",
    "semantic_loss_ignore_index",
    "separation_condition",
    "separation_mask",
    "separation_scales",
    "separation_weighted_loss",
    "sigreg_weight",
    "unet_norm",
}


def encoder_config(recipe) -> DeepAVFusionConfig:
    """Build or load the configuration of a run's encoder, which determines the sizes of frames and spectrograms.

    Raises:
        RecipeError: If the configuration is invalid, or `model.init_from` cannot be used.
    """
    origin = recipe.model.init_from
    if origin is None:
        return recipe.model.build_config()
    check_origin(origin, "model.init_from")
    try:
        with reading_model(origin):
            return DeepAVFusionConfig.from_pretrained(origin)
    except (OSError, ValueError) as error:
        raise RecipeError(f"model.init_from={origin} cannot be used: {model_fault(error, origin)}") from error


def build_model(task: type[Task], recipe, clips):
    """Build the initial model of a run on the CPU.

    Args:
        task: Task of the run.
        recipe: Recipe of the run.
        clips: Training clips, which determine the heads.

    Raises:
        RecipeError: If the recipe, the clips and the initial weights do not fit together.
    """
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
    given.set_attention(model)  # raises early if it is unavailable
    return model


def _earlier_model(task: type[Task], given, config: DeepAVFusionConfig, fields: dict):
    free = {name: value for name, value in given.config.items() if name in _FREE_OF_SHAPE}
    try:
        for name, value in {**free, **fields}.items():
            setattr(config, name, value)
        config = type(config)(**config.to_dict())  # validates the combination of fields
        return load_model(task.MODEL, given.init_from, needed=task.ENCODER, config=config, dtype=torch.float32)
    except Exception as error:  # the strict configuration raises its own classes
        fault = model_fault(error, given.init_from)
        raise RecipeError(f"model.init_from={given.init_from} cannot be used: {fault}") from error


def load_task_model(task: type[Task], recipe, origin: str):
    """Load a trained model in evaluation mode.

    Args:
        task: Task of the model.
        recipe: Recipe of the evaluation.
        origin: Folder or Hub id of the model.

    Raises:
        RecipeError: If the model cannot be loaded or lacks weights of the task.
    """
    check_origin(origin, "--model")
    try:
        model = load_model(task.MODEL, origin, training=f"{recipe.command} {recipe.source}")
    except (OSError, ValueError) as error:
        fault = model_fault(error, origin)
        raise RecipeError(f"--model={origin} cannot be used for {task.NAME}: {fault}") from error
    recipe.model.set_attention(model)
    return model.eval()


def shard(model, recipe, folder: RunFolder):
    """Shard a model with FSDP2 through transformers, which shards while loading, so that the model is saved first.

    Args:
        model: Model on the CPU, the same on every process.
        recipe: Recipe of the run.
        folder: Folder of the run.

    Returns:
        The sharded model.
    """
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
    """Check that the folder of a model holds one; an `origin` that is no folder is a Hub id.

    Args:
        origin: Folder or Hub id of a model.
        argument: Argument that gives it, e.g. "model.init_from".

    Raises:
        RecipeError: If it holds none; names the command that creates it if a recipe or the quickstart does.
    """
    if reason := missing_model(origin):
        raise RecipeError(unusable(f"{argument}={origin}", reason))


__all__ = ["build_model", "check_origin", "encoder_config", "load_task_model", "shard"]
