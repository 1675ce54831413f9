"""Section `model` of a recipe."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepavfusion import DeepAVFusionConfig
from deepavfusion.configuration_deepavfusion import NAMED_SIZES

from .commands import TRAINING
from .options import RecipeError, option

ORIGINS = ("init_from", "init_image", "init_audio")  # options that name where weights are from


def public_origin(path: str) -> str:
    """A folder or Hub id; of absolute paths, which may be private, the name."""
    return Path(path).name if Path(path).is_absolute() else path


@dataclass
class ModelArguments:
    """Sizes, initial weights, computation.

    Args:
        config: Fields of `DeepAVFusionConfig` that the recipe sets, as keys of the section like all others.
    """

    size: str | None = option(
        None,
        "Named size; null for the defaults of the configuration (base).",
        choices=tuple(NAMED_SIZES),
        commands=TRAINING,
    )
    init_from: str | None = option(
        None,
        "Folder or Hub id of a model of this package to start from; sizes are then those of that model.",
        commands=TRAINING,
    )
    init_image: str | None = option(
        None,
        "Unimodal checkpoint for the image tower: MAE file, or folder or Hub id of a ViTMAE model.",
        tasks=("pretraining",),
    )
    init_audio: str | None = option(
        None, "Unimodal checkpoint for the audio tower: AudioMAE file.", tasks=("pretraining",)
    )
    gradient_checkpointing: bool = option(
        False, "Recompute activations in the backward pass: less memory, about a third more time.", commands=TRAINING
    )
    attn_implementation: str | None = option(
        None, "Attention implementation: eager, sdpa, flash_attention_2 ...; null for the default of transformers."
    )
    config: dict[str, Any] = field(default_factory=dict)

    def build_config(self) -> DeepAVFusionConfig:
        """Build the configuration of a model with random weights.

        Raises:
            RecipeError: If a field is invalid.
        """
        try:
            if self.size is not None:
                return DeepAVFusionConfig.from_size(self.size, **self.config)
            return DeepAVFusionConfig(**self.config)
        except Exception as error:  # the strict dataclass raises its own classes
            raise RecipeError(f"Invalid model section: {error.__cause__ or error}") from error

    def set_attention(self, model) -> None:
        """Set the attention implementation of a model.

        Raises:
            RecipeError: If it is unknown or unavailable.
        """
        if self.attn_implementation is not None:
            try:
                model.set_attn_implementation(self.attn_implementation)
            except (ImportError, ValueError) as error:
                raise RecipeError(f"model.attn_implementation={self.attn_implementation}: {error}") from error

    def set_computation(self, model) -> None:
        """Set the attention implementation and gradient checkpointing of a model to train."""
        self.set_attention(model)
        if self.gradient_checkpointing:
            model.activation_checkpointing_enable()


__all__ = ["ORIGINS", "ModelArguments", "public_origin"]
