"""Numbers of the published model: `../shared/golden` beside the project if it is there, or copies in `tests/golden`."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from deepavfusion import DeepAVFusionConfig

COPIES = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "golden"
FUSION_TYPES = {"factorized_mmi": "factorized", "dense_mmi": "dense", "token": "token"}


@dataclass
class Golden:
    """One file: weights under published names (float32), inputs, outputs, gradients, and what it was made with."""

    config: dict
    state: dict[str, torch.Tensor]
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]


def golden_path(name: str) -> Path:
    """Path of a golden file; skips the test where neither folder holds it."""
    for folder in (COPIES, SHARED):
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is neither in tests/golden nor in the shared folder beside the project")


def load_golden(name: str) -> Golden:
    with safe_open(golden_path(f"{name}.safetensors"), "pt") as file:
        config = json.loads(file.metadata()["config"])
        parts = {"state": {}, "in": {}, "out": {}, "grad": {}}
        for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            kind, _, rest = key.partition(".")
            tensor = file.get_tensor(key)
            parts[kind][rest] = tensor.float() if tensor.is_floating_point() else tensor
    return Golden(config, parts["state"], parts["in"], parts["out"], parts["grad"])


def golden_config(golden: Golden, **overrides) -> DeepAVFusionConfig:
    """Our configuration of a golden file's model."""
    given = golden.config
    layers = given["fusion_layers"]
    counts = dict(
        zip(
            ("num_fusion_tokens", "num_image_aggregation_tokens", "num_audio_aggregation_tokens"),
            given["fusion_tokens"],
            strict=True,
        )
    )
    values = {
        "hidden_size": given["dim"],
        "num_hidden_layers": given["depth"],
        "num_attention_heads": given["heads"],
        "intermediate_size": 4 * given["dim"],
        "image_size": given["image_size"],
        "num_mel_bins": given["audio_size"][0],
        "spectrogram_length": given["audio_size"][1],
        "fusion_type": FUSION_TYPES[given["fusion_arch"]],
        "fusion_layers": layers if layers in ("all", "none") else [int(i) for i in layers.split("-")],
        "fusion_attention_ratio": given["fusion_attn_ratio"],
        "fusion_mlp_ratio": given["fusion_mlp_ratio"],
        "num_fusion_attention_heads": given["fusion_heads"],
        **counts,
    }
    if "video_size" in given:
        values["num_frames"] = given["video_size"][0]
    if "decoder_dim" in given:
        values |= {
            "decoder_hidden_size": given["decoder_dim"],
            "decoder_num_hidden_layers": given["decoder_depth"],
            "decoder_num_attention_heads": given["decoder_heads"],
            "decoder_intermediate_size": 4 * given["decoder_dim"],
            "image_decoder_type": given["image_decoder_arch"],
            "audio_decoder_type": given["audio_decoder_arch"],
            "image_mask_ratio": given["image_mask_ratio"],
            "audio_mask_ratio": given["audio_mask_ratio"],
            "norm_patch_loss": given["norm_loss"],
        }
    if "num_classes" in given:
        values |= {"num_labels": given["num_classes"], "classifier_input_norm": given.get("linear_probe", False)}
    if "binary_mask" in given:
        values |= {
            "separation_mask": "binary" if given["binary_mask"] else "ratio",
            "separation_weighted_loss": given["weighted_loss"],
        }
    return DeepAVFusionConfig(**{**values, **overrides})
