"""The configuration of a published checkpoint, inferred from its names, shapes and position tables."""

import math
import re

import torch
from transformers.utils import logging

from .configuration_deepavfusion import DeepAVFusionConfig
from .patches_deepavfusion import sincos_positions

logger = logging.get_logger(__name__)


class _Tensors(dict):
    """Tensors by name, without a prefix that their names have in the file. Errors name a missing one in full."""

    def __init__(self, tensors: dict[str, torch.Tensor], prefix: str = ""):
        super().__init__((key.removeprefix(prefix), value) for key, value in tensors.items() if key.startswith(prefix))
        self.prefix = prefix

    def __missing__(self, key: str):
        raise ValueError(
            f"The checkpoint has no {self.prefix + key!r}, from which a size is inferred: expected a published one."
        )

    def count(self, name: str) -> int:
        """Number of modules in the list `name`."""
        found = [int(match[1]) for match in (re.match(rf"{re.escape(name)}\.(\d+)\.", key) for key in self) if match]
        return 1 + max(found) if found else self[f"{name}.0"]


def infer_config(tensors: dict[str, torch.Tensor], task: str) -> DeepAVFusionConfig:
    """The configuration of a published checkpoint.

    Not in the file, and therefore assumed:

    - heads of the encoder: those of the named sizes; for another width one per 64 channels, with a warning;
    - heads of plain decoders: 16, as in both releases; with a warning if the width is not the releases' 512. Those of
      swin decoders follow from their bias tables;
    - tokens of factorized fusion: 16 + 8 + 8 if there are 32; dense and token fusion use only the sum;
    - mask ratios, loss variants, activations and epsilons: the defaults.

    Args:
        tensors: Published names (without `module.`) -> tensors. The grids follow from the position tables.
        task: Task of the model; encoder names are bare for `"encoder"` and start with `encoder.` otherwise.

    Raises:
        ValueError: If a value can neither be inferred nor assumed; pass the configuration then.
    """
    tensors, encoder = _Tensors(tensors), _Tensors(tensors, "" if task == "encoder" else "encoder.")
    dim = encoder["fusion_tokens"].shape[-1]
    values = {
        "hidden_size": dim,
        "num_hidden_layers": encoder.count("audio.blocks"),
        "intermediate_size": encoder["audio.blocks.0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": _heads(dim),
        "num_fusion_attention_heads": _heads(dim),
    }
    values |= _image_sizes(encoder) | _audio_sizes(encoder) | _fusion(encoder, dim)
    if task == "pretraining":
        values |= _decoders(tensors)
    if task == "classification":
        values["num_labels"] = tensors["image_head.weight"].shape[0]
        values["classifier_input_norm"] = any("_norm.running_" in key for key in tensors)
    if task == "segmentation":
        values["num_labels"] = tensors["predictor.2.weight"].shape[0]
    return DeepAVFusionConfig(**values)


def _heads(dim: int) -> int:
    if dim == 1280:  # the huge ViT alone has heads of 80 channels
        return 16
    if dim % 64:
        raise ValueError(
            f"Cannot infer the number of attention heads from hidden_size={dim} (not a multiple of 64); pass `config`."
        )
    if dim not in (384, 768, 1024):
        logger.warning(f"Assuming {dim // 64} attention heads for hidden_size={dim}; pass `config` if it differs.")
    return dim // 64


def _ratio(width: int, dim: int) -> float:
    """The ratio that gives back `width` when it is multiplied by `dim` and rounded down."""
    ratio = width / dim
    return ratio if int(ratio * dim) == width else math.nextafter(ratio, math.inf)


def _grid(encoder: _Tensors, tower: str, axes: int) -> tuple[int, ...]:
    """The grid whose sin-cos table is the tower's stored one."""
    key = f"{tower}.pos_embed"
    if key not in encoder:
        raise ValueError(
            f"The checkpoint has no {encoder.prefix + key!r}, from which the input's size is inferred; pass `config`."
        )
    table = encoder[key][0].float()
    for grid in _factorizations(table.shape[0], axes):
        if torch.allclose(sincos_positions(grid, table.shape[1]), table, atol=2e-3):
            return grid
    name, shape = encoder.prefix + key, tuple(encoder[key].shape)
    raise ValueError(f"{name} of shape {shape} is the sin-cos table of no {axes}-D grid.")


def _factorizations(number: int, axes: int):
    """All tuples of `axes` positive integers whose product is `number`."""
    if axes == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in _factorizations(number // first, axes - 1):
                yield (first, *rest)


def _image_sizes(encoder: _Tensors) -> dict:
    _, channels, *patch = encoder["image.patch_embed.proj.weight"].shape
    grid = _grid(encoder, "image", len(patch))
    height, width = grid[-2] * patch[-2], grid[-1] * patch[-1]
    values = {
        "num_channels": channels,
        "patch_size": patch[-1],
        "image_size": height if height == width else [height, width],
    }
    if len(patch) == 3:
        divided = any(".temporal_" in key for key in encoder)
        values |= {
            "tubelet_size": patch[0],
            "num_frames": grid[0] * patch[0],
            "video_attention": "divided" if divided else "joint",
        }
    return values


def _audio_sizes(encoder: _Tensors) -> dict:
    patch = encoder["audio.patch_embed.proj.weight"].shape[-1]
    mels, steps = _grid(encoder, "audio", 2)
    return {"audio_patch_size": patch, "num_mel_bins": mels * patch, "spectrogram_length": steps * patch}


def _fusion(encoder: _Tensors, dim: int) -> dict:
    indices = sorted({int(key.split(".")[1]) for key in encoder if key.startswith("fusion_blocks.")})
    depth, total = encoder.count("audio.blocks"), encoder["fusion_tokens"].shape[1]
    counts = (16, 8, 8) if total == 32 else (total, 0, 0)
    values = {"fusion_layers": "all" if indices == list(range(depth)) else indices or "none"}
    kind = "token" if indices or total != 32 else "factorized"  # without blocks the kind has no effect
    if indices:
        block = f"fusion_blocks.{indices[0]}."
        if any(key.startswith(block + "attn.attn_") for key in encoder):
            kind = "factorized"
        elif encoder[block + "attn.kv.weight"].shape[1] == 2 * dim:
            kind = "dense"
        values["fusion_attention_ratio"] = _ratio(encoder[block + "attn.q.weight"].shape[0], dim)
        values["fusion_mlp_ratio"] = _ratio(encoder[block + "mlp.fc1.weight"].shape[0], dim)
    if kind == "factorized" and total != 32:
        raise ValueError(f"How {total} fusion tokens divide into the three kinds is not in the file; pass `config`.")
    names = ("num_fusion_tokens", "num_image_aggregation_tokens", "num_audio_aggregation_tokens")
    return values | {"fusion_type": kind} | dict(zip(names, counts, strict=True))


def _decoders(tensors: _Tensors) -> dict:
    dim = tensors["image_decoder_embed.weight"].shape[0]
    swin = {
        modality: any(key.startswith(f"{modality}_decoder_") and ".attn.relative_" in key for key in tensors)
        for modality in ("image", "audio")
    }
    return {
        "decoder_hidden_size": dim,
        "decoder_num_hidden_layers": tensors.count("image_decoder_blocks"),
        "decoder_num_attention_heads": _decoder_heads(tensors, dim, swin),
        "decoder_intermediate_size": tensors["image_decoder_blocks.0.mlp.fc1.weight"].shape[0],
        "image_decoder_type": "swin" if swin["image"] else "plain",
        "audio_decoder_type": "swin" if swin["audio"] else "plain",
    }


def _decoder_heads(tensors: _Tensors, dim: int, swin: dict[str, bool]) -> int:
    for modality in ("image", "audio"):
        if swin[modality]:
            return tensors[f"{modality}_decoder_blocks.0.attn.relative_position_bias_table"].shape[1]
    if dim % 16:
        raise ValueError(
            f"Cannot infer the number of attention heads from decoder_hidden_size={dim} (not a multiple of 16); pass "
            "`config`."
        )
    if dim != 512:
        logger.warning(f"Assuming 16 attention heads for decoder_hidden_size={dim}; pass `config` if it differs.")
    return 16


__all__ = ["infer_config"]
