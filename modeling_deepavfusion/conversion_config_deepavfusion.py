"""What a published checkpoint's names, shapes and position tables tell about its configuration."""

import re

import torch

from .configuration_deepavfusion import DeepAVFusionConfig
from .vit_deepavfusion import sincos_positions


def infer_config(tensors: dict[str, torch.Tensor], task: str) -> DeepAVFusionConfig:
    """
    The configuration of a published checkpoint.

    Not in the file, and therefore assumed: one attention head per 64 channels in the encoder and per 32 in plain
    decoders; 16 + 8 + 8 fusion tokens where there are 32; mask ratios, loss variants and activations as in the
    defaults.

    Args:
        tensors: published names (without `module.`) -> tensors. The position tables tell the grids.
        task: what the model is for; encoder names are bare for `"encoder"` and start with `encoder.` otherwise.

    Raises:
        ValueError: where the file does not tell and nothing can be assumed; pass the configuration then.
    """
    prefix = "" if task == "encoder" else "encoder."
    encoder = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    for key in ("fusion_tokens", "image.patch_embed.proj.weight", "audio.patch_embed.proj.weight"):
        if key not in encoder:
            raise ValueError(f"The checkpoint has no {prefix + key!r}: it is not a DeepAVFusion model for {task!r}.")
    dim = encoder["fusion_tokens"].shape[-1]
    values = {
        "hidden_size": dim,
        "num_hidden_layers": _count(encoder, r"audio\.blocks\.(\d+)\."),
        "intermediate_size": encoder["audio.blocks.0.mlp.fc1.weight"].shape[0],
        "num_attention_heads": _heads(dim),
        "num_fusion_attention_heads": _heads(dim),
    }
    values |= _image_sizes(encoder) | _audio_sizes(encoder) | _fusion(encoder, dim)
    if task == "pretraining":
        values |= _decoders(tensors)
    if task == "classification":
        values["num_labels"] = tensors["image_head.weight"].shape[0]
        values["classifier_input_norm"] = "image_norm.running_mean" in tensors
    if task == "segmentation":
        values["num_labels"] = tensors["predictor.2.weight"].shape[0]
    return DeepAVFusionConfig(**values)


def _count(tensors: dict, pattern: str) -> int:
    return 1 + max(int(match[1]) for match in (re.match(pattern, key) for key in tensors) if match)


def _heads(dim: int) -> int:
    if dim % 64:
        raise ValueError(f"Heads cannot be told from a width of {dim}, no multiple of 64: pass a configuration.")
    return dim // 64


def _grid(encoder: dict, tower: str, axes: int) -> tuple[int, ...]:
    """The grid whose sin-cos table is the tower's stored one."""
    key = f"{tower}.pos_embed"
    if key not in encoder:
        raise ValueError(f"The checkpoint has no {key!r}, which tells the input's size: pass a configuration.")
    table = encoder[key][0].float()
    for grid in _factorizations(table.shape[0], axes):
        if torch.allclose(sincos_positions(grid, table.shape[1]), table, atol=2e-3):
            return grid
    raise ValueError(f"{key} of shape {tuple(encoder[key].shape)} is the sin-cos table of no {axes}-D grid.")


def _factorizations(number: int, axes: int):
    """All tuples of `axes` positive integers whose product is `number`."""
    if axes == 1:
        yield (number,)
        return
    for first in range(1, number + 1):
        if number % first == 0:
            for rest in _factorizations(number // first, axes - 1):
                yield (first, *rest)


def _image_sizes(encoder: dict) -> dict:
    _, channels, *patch = encoder["image.patch_embed.proj.weight"].shape
    grid = _grid(encoder, "image", len(patch))
    height, width = grid[-2] * patch[-2], grid[-1] * patch[-1]
    values = {
        "num_channels": channels,
        "patch_size": patch[-1],
        "image_size": height if height == width else [height, width],
    }
    if len(patch) == 3:
        divided = "image.blocks.0.temporal_fc.weight" in encoder
        values |= {
            "tubelet_size": patch[0],
            "num_frames": grid[0] * patch[0],
            "video_attention": "divided" if divided else "joint",
        }
    return values


def _audio_sizes(encoder: dict) -> dict:
    patch = encoder["audio.patch_embed.proj.weight"].shape[-1]
    mels, steps = _grid(encoder, "audio", 2)
    return {"audio_patch_size": patch, "num_mel_bins": mels * patch, "spectrogram_length": steps * patch}


def _fusion(encoder: dict, dim: int) -> dict:
    indices = sorted({int(key.split(".")[1]) for key in encoder if key.startswith("fusion_blocks.")})
    depth, total = _count(encoder, r"audio\.blocks\.(\d+)\."), encoder["fusion_tokens"].shape[1]
    counts = (16, 8, 8) if total == 32 else (total, 0, 0)
    values = {"fusion_layers": "all" if indices == list(range(depth)) else indices or "none"}
    kind = "token"
    if indices:
        block = f"fusion_blocks.{indices[0]}."
        if block + "attn.attn_v.q.weight" in encoder:
            kind = "factorized"
        elif encoder[block + "attn.kv.weight"].shape[1] == 2 * dim:
            kind = "dense"
        values["fusion_attention_ratio"] = encoder[block + "attn.q.weight"].shape[0] / dim
        values["fusion_mlp_ratio"] = encoder[block + "mlp.fc1.weight"].shape[0] / dim
    if kind == "factorized" and total != 32:
        raise ValueError(
            f"How {total} fusion tokens divide into the three kinds is not in the file: pass a configuration."
        )
    names = ("num_fusion_tokens", "num_image_aggregation_tokens", "num_audio_aggregation_tokens")
    return values | {"fusion_type": kind} | dict(zip(names, counts, strict=True))


def _decoders(tensors: dict) -> dict:
    dim = tensors["image_decoder_embed.weight"].shape[0]
    table = "{}_decoder_blocks.0.attn.relative_position_bias_table"
    tables = [tensors.get(table.format(modality)) for modality in ("image", "audio")]
    heads = next((t.shape[1] for t in tables if t is not None), dim // 32)
    if heads < 1 or dim % heads:
        raise ValueError(f"Heads cannot be told from a decoder width of {dim}: pass a configuration.")
    return {
        "decoder_hidden_size": dim,
        "decoder_num_hidden_layers": _count(tensors, r"image_decoder_blocks\.(\d+)\."),
        "decoder_num_attention_heads": heads,
        "decoder_intermediate_size": tensors["image_decoder_blocks.0.mlp.fc1.weight"].shape[0],
        "image_decoder_type": "plain" if tables[0] is None else "swin",
        "audio_decoder_type": "plain" if tables[1] is None else "swin",
    }


__all__ = ["infer_config"]
