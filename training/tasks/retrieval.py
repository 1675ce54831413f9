"""Cross-modal retrieval of frames by audio and audio by frames, encoded separately."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deepavfusion import DeepAVFusionModel

from ..metrics.retrieval import ranks, recall_at
from ..report.report import Example, ExampleImage, Table
from ..wording import CONDITIONS, clip_title, metric_title, percent
from .base import Task

_CUTS = (1, 5, 10)
_DIRECTIONS = ("audio_to_image", "image_to_audio")
_SHOWN = 3  # frames of an example, the best ones


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
        features = retrieval_features(model, inputs)
        return [{"index": index, **row} for index, row in zip(batch["index"].tolist(), features, strict=True)]

    def summarize(self, rows, full):
        metrics = retrieval_metrics(rows)
        return metrics, [retrieval_table({"": metrics})], {}

    def ranked_examples(self, rows, places):
        return retrieval_examples(self, rows, places)


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


def retrieval_examples(task: Task, rows: list[dict[str, Any]], places: Sequence[int]) -> list[Example]:
    """What is found for the audio and for the frame of some clips, among the clips of all rows.

    Args:
        task: Task of the clips.
        rows: `retrieval_features` of each readable clip, and `"index"`, its place in the data set.
        places: Rows of the clips that are shown.

    Returns:
        An example for each: the clip's frame, the frames most similar to its audio, the audio, and the audio most
        similar to its frame, if that is another one.
    """
    images, audio = (np.stack([row[name] for row in rows]) for name in ("image", "audio"))
    similarity, clips, examples = audio @ images.T, task.clips, []
    to_image, to_audio = ranks(similarity), ranks(similarity.T)
    for place in places:
        best = np.argsort(-similarity[place], kind="stable")[:_SHOWN].tolist()
        batch = clips.collate(clips.__getitems__([rows[k]["index"] for k in (place, *best)]))
        own, *found = task.frames(batch["pixel_values"])
        shown = [ExampleImage(own, "frame")]
        for number, (k, frame) in enumerate(zip(best, found, strict=True), 1):
            shown.append(ExampleImage(frame, f"number {number} for the audio", correct=k == place))
        media, players = clips.media(rows[place]["index"]), []
        if media is not None:
            shown = [*([] if media.frame is None else [ExampleImage(media.frame, "whole frame")]), *shown]
            players.append(("audio", media.waveform, media.sampling_rate))
        nearest = int(np.argmax(similarity[:, place]))
        other = None if nearest == place else clips.media(rows[nearest]["index"])
        if other is not None:
            players.append(("number 1 for the frame", other.waveform, other.sampling_rate))
        text = f"Of {len(rows)}, the frame is number {to_image[place]} for its audio, and the audio number "
        examples.append(Example(clip_title(batch["path"][0]), shown, players, f"{text}{to_audio[place]} for its frame"))
    return examples


def retrieval_table(columns: dict[str, dict[str, Any]]) -> Table:
    """Build the table of `retrieval_metrics`; `columns` maps the name of a model's state to its metrics."""
    rows = [
        [CONDITIONS[name] + (f", {state}" if state else ""), *(percent(metrics[f"{name}_r{k}"]) for k in _CUTS)]
        for name in _DIRECTIONS
        for state, metrics in columns.items()
    ]
    metrics = next(iter(columns.values()))
    rows.append([CONDITIONS["chance"], *(percent(metrics[f"chance_r{k}"]) for k in _CUTS)])
    most = _CUTS[-1]
    best = max(metrics[f"{name}_r{most}"] for metrics in columns.values() for name in _DIRECTIONS)
    note = None
    if best < min(2 * metrics[f"chance_r{most}"], 1.0):
        note = (
            "Hardly better than chance: images and audio are comparable in encoders that were trained for it, such as "
            "those of scenes_align and scenes_jepa; masked reconstruction alone does not align them."
        )
    return Table("Retrieval", ["", *(metric_title(f"r{k}") for k in _CUTS)], rows, note)


__all__ = ["Retrieval", "retrieval_examples", "retrieval_features", "retrieval_metrics", "retrieval_table"]
