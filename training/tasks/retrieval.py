"""Retrieval: the frame that belongs to a sound, and the sound that belongs to a frame, each encoded alone."""

import numpy as np

from deepavfusion import DeepAVFusionModel

from ..metrics.retrieval import recall_at
from ..report.report import Table
from .base import Task, percent

_CUTS = (1, 5, 10)


class Retrieval(Task):
    NAME = "retrieval"
    MODEL = DeepAVFusionModel
    ENCODER = ""
    PROTOCOL = (
        "Frames and sounds encoded one modality at a time; every stream's mean over tokens, cosine similarity. R@k: "
        "share of clips whose own counterpart is among the k most similar of all clips."
    )

    @property
    def primary(self) -> str:
        return "audio_to_image_r10"

    def score(self, model, inputs, batch, full):
        images = model.get_image_features(inputs["pixel_values"], normalize=True).float().cpu().numpy()
        sounds = model.get_audio_features(inputs["input_features"], normalize=True).float().cpu().numpy()
        return [{"image": image, "audio": sound} for image, sound in zip(images, sounds, strict=True)]

    def summarize(self, rows, full):
        images, sounds = (np.stack([row[name] for row in rows]) for name in ("image", "audio"))
        metrics, table = {}, []
        for name, title, queries, gallery in (
            ("audio_to_image", "sound to frame", sounds, images),
            ("image_to_audio", "frame to sound", images, sounds),
        ):
            recalls = recall_at(queries @ gallery.T, _CUTS)
            metrics.update({f"{name}_r{k}": value for k, value in recalls.items()})
            table.append([title, *(percent(value) for value in recalls.values())])
        metrics.update({f"chance_r{k}": min(1.0, k / len(rows)) for k in _CUTS})
        table.append(["chance", *(percent(metrics[f"chance_r{k}"]) for k in _CUTS)])
        return metrics, [Table("Retrieval", ["", *(f"R@{k}" for k in _CUTS)], table)], {}

    def examples(self, model, inputs, batch):
        return []
