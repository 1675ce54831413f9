"""Cross-modal retrieval of frames by audio and audio by frames, encoded separately."""

from typing import Any

import numpy as np
import torch

from deepavfusion import DeepAVFusionModel

from ..metrics.retrieval import recall_at
from ..report.report import Table
from ..wording import CONDITIONS, metric_title
from .base import Task, percent

_CUTS = (1, 5, 10)
_DIRECTIONS = ("audio_to_image", "image_to_audio")


class Retrieval(Task):
    """Zero-shot retrieval with the features of a pre-trained encoder."""

    NAME = "retrieval"
    MODEL = DeepAVFusionModel
    ENCODER = ""
    PROTOCOL = (
        "Image and audio are encoded separately; cosine similarity of each one's mean over its own tokens, or over the "
        "fusion tokens if the encoder was pre-trained by joint embedding. R@k: fraction of clips whose counterpart is "
        "among the k most similar of all clips."
    )

    @property
    def primary(self) -> str:
        return "audio_to_image_r10"

    def score(self, model, inputs, batch, full):
        return retrieval_features(model, inputs)

    def summarize(self, rows, full):
        metrics = retrieval_metrics(rows)
        return metrics, [retrieval_table({"": metrics})], {}

    def examples(self, model, inputs, batch):
        return []


def retrieval_features(model: DeepAVFusionModel, inputs: dict[str, torch.Tensor]) -> list[dict[str, np.ndarray]]:
    """Encode images and audio separately.

    Args:
        model: Encoder.
        inputs: `pixel_values` and `input_features`.

    Returns:
        For each clip, `"image"` and `"audio"`, (D,) of length 1: the means over their own tokens, or over the fusion
        tokens if the encoder learned by joint embedding, which compares those.
    """
    pixel_values, input_features = inputs["pixel_values"], inputs["input_features"]
    if model.config.pretraining_objective == "jepa":
        images = model.get_fusion_features(pixel_values, normalize=True)
        audio = model.get_fusion_features(input_features=input_features, normalize=True)
    else:
        images = model.get_image_features(pixel_values, normalize=True)
        audio = model.get_audio_features(input_features, normalize=True)
    images, audio = (outputs.pooler_output.float().cpu().numpy() for outputs in (images, audio))
    pairs = zip(images, audio, strict=True)
    return [{"image": image, "audio": sound} for image, sound in pairs]


def retrieval_metrics(rows: list[dict[str, np.ndarray]]) -> dict[str, float]:
    """Compute recalls in both directions, such as "audio_to_image_r10", and those of chance, such as "chance_r10"."""
    images, audio = (np.stack([row[name] for row in rows]) for name in ("image", "audio"))
    metrics = {}
    for name, similarity in zip(_DIRECTIONS, (audio @ images.T, images @ audio.T), strict=True):
        metrics.update({f"{name}_r{k}": value for k, value in recall_at(similarity, _CUTS).items()})
    return metrics | {f"chance_r{k}": min(1.0, k / len(rows)) for k in _CUTS}


def retrieval_table(columns: dict[str, dict[str, Any]]) -> Table:
    """Build the table of `retrieval_metrics`; `columns` maps the name of a model's state to its metrics."""
    rows = [
        [CONDITIONS[name] + (f", {state}" if state else ""), *(percent(metrics[f"{name}_r{k}"]) for k in _CUTS)]
        for name in _DIRECTIONS
        for state, metrics in columns.items()
    ]
    metrics = next(iter(columns.values()))
    rows.append([CONDITIONS["chance"], *(percent(metrics[f"chance_r{k}"]) for k in _CUTS)])
    return Table("Retrieval", ["", *(metric_title(f"r{k}") for k in _CUTS)], rows)


__all__ = ["Retrieval", "retrieval_features", "retrieval_metrics", "retrieval_table"]
