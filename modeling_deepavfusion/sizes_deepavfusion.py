"""Named sizes of models, and bounds on what a configuration may claim, checked before anything is allocated."""

import math
import os

MAX_PARAMETERS = 10**10
PARAMETERS_SETTING = "DEEPAVFUSION_MAX_PARAMETERS"  # environment variable with another limit
MAX_LABELS = 10**6

# Paper, section 4 ("ViT-Base" unless stated otherwise); small, large and huge follow the usual ViT sizes.
NAMED_SIZES = {
    "small": {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "intermediate_size": 1536,
        "num_fusion_attention_heads": 6,
    },
    "base": {},
    "large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "num_fusion_attention_heads": 16,
    },
    "huge": {
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "intermediate_size": 5120,
        "num_fusion_attention_heads": 16,
        "patch_size": 14,
    },
}

# Fields that the number of weights depends on.
_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "image_size",
    "patch_size",
    "num_channels",
    "num_frames",
    "tubelet_size",
    "num_mel_bins",
    "spectrogram_length",
    "audio_patch_size",
    "num_fusion_tokens",
    "num_image_aggregation_tokens",
    "num_audio_aggregation_tokens",
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_intermediate_size",
)
_RATIOS = ("fusion_attention_ratio", "fusion_mlp_ratio")


def check_size(config, num_labels: int | None) -> None:
    """Check the number of weights and labels of a model.

    Args:
        config: A `DeepAVFusionConfig`, whose values may be invalid.
        num_labels: Number of labels without names; None if they have names.

    Raises:
        ValueError: If there are more than allowed.
    """
    if isinstance(num_labels, int) and num_labels > MAX_LABELS:
        raise ValueError(f"num_labels is {num_labels}: expected at most {MAX_LABELS}.")
    setting = os.environ.get(PARAMETERS_SETTING, "").strip() or str(MAX_PARAMETERS)
    if not setting.isdecimal():
        raise ValueError(f"{PARAMETERS_SETTING} is {setting[:40]!r}: expected a number of parameters.")
    count = count_parameters(config)
    if count > int(setting):
        largest = sorted((*_FIELDS, *_RATIOS), key=lambda name: -abs(_largest(getattr(config, name))))[:3]
        values = ", ".join(f"{name} is {getattr(config, name)}" for name in largest)
        raise ValueError(
            f"The model would have about {float(count):.3g} parameters and positions, more than the limit of {setting} "
            f"({values}): set the environment variable {PARAMETERS_SETTING} to allow more."
        )


def count_parameters(config) -> int:
    """Estimate the number of weights and fixed positions of a pre-training model, which is the largest.

    Sizes that no model can have, zero or below, count as 1, as do ratios that are not finite.
    """
    size = {name: max(int(_largest(getattr(config, name))), 1) for name in _FIELDS}
    width, decoder = size["hidden_size"], size["decoder_hidden_size"]
    attention = 8 if config.num_frames > 1 and config.video_attention == "divided" else 4
    layer = attention * width**2 + 2 * width * size["intermediate_size"]
    decoder_layer = 4 * decoder**2 + 2 * decoder * size["decoder_intermediate_size"]
    named = isinstance(config.fusion_layers, str)
    fusion_layers = size["num_hidden_layers"] * (config.fusion_layers == "all") if named else len(config.fusion_layers)
    attentions = 3 if config.fusion_type == "factorized" else 1
    ratio = abs(4 * attentions * config.fusion_attention_ratio + 2 * config.fusion_mlp_ratio)
    fusion_width = round(width * ratio) if math.isfinite(ratio) else 1
    frames = size["num_frames"] // size["tubelet_size"] + 1 if config.num_frames > 1 else 1
    sides = [config.image_size] * 2 if isinstance(config.image_size, int) else list(config.image_size)
    image_tokens = frames * math.prod(max(side, 1) // size["patch_size"] + 1 for side in sides)
    lengths = (size["num_mel_bins"], size["spectrogram_length"])
    audio_tokens = math.prod(length // size["audio_patch_size"] + 1 for length in lengths)
    time = size["tubelet_size"] if config.num_frames > 1 else 1
    patches = size["num_channels"] * size["patch_size"] ** 2 * time + size["audio_patch_size"] ** 2
    learned = size["num_fusion_tokens"] + size["num_image_aggregation_tokens"] + size["num_audio_aggregation_tokens"]
    return (
        2 * size["num_hidden_layers"] * layer
        + fusion_layers * fusion_width * width
        + 2 * size["decoder_num_hidden_layers"] * decoder_layer
        + (image_tokens + audio_tokens + patches) * (width + decoder)
        + learned * width
    )


def _largest(value: float | list[int] | tuple[int, ...]) -> float:
    return max(value, default=1) if isinstance(value, list | tuple) else value


__all__ = ["NAMED_SIZES", "check_size", "count_parameters"]
