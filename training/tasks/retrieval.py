"""Cross-modal retrieval of frames by audio and audio by frames, encoded separately."""

import numpy as np

from deepavfusion import DeepAVFusionModel

from ..metrics.retrieval import recall_at
from ..report.report import Table
from ..wording import CONDITIONS, metric_title
from .base import Task, percent

_CUTS = (1, 5, 10)


class Retrieval(Task):
    """Zero-shot retrieval with the features of a pre-trained encoder."""

    NAME = "retrieval"
    MODEL = DeepAVFusionModel
    ENCODER = ""
    PROTOCOL = (
        "Image and audio are encoded separately; cosine similarity of each stream's mean over tokens. R@k: fraction "
        "of clips whose counterpart is among the k most similar of all clips."
    )

    @property
    def primary(self) -> str:
        return "audio_to_image_r10"

    def score(self, model, inputs, batch, full):
        images = model.get_image_features(inputs["pixel_values"], normalize=True).float().cpu().numpy()
        audio = model.get_audio_features(inputs["input_features"], normalize=True).float().cpu().numpy()
        return [{"image": images[i], "audio": audio[i]} for i in range(len(images))]

    def summarize(self, rows, full):
        images, audio = (np.stack([row[name] for row in rows]) for name in ("image", "audio"))
        metrics, table = {}, []
        for name, queries, gallery in (("audio_to_image", audio, images), ("image_to_audio", images, audio)):
            recalls = recall_at(queries @ gallery.T, _CUTS)
            metrics.update({f"{name}_r{k}": value for k, value in recalls.items()})
            table.append([CONDITIONS[name], *(percent(value) for value in recalls.values())])
        metrics.update({f"chance_r{k}": min(1.0, k / len(rows)) for k in _CUTS})
        table.append([CONDITIONS["chance"], *(percent(metrics[f"chance_r{k}"]) for k in _CUTS)])
        return metrics, [Table("Retrieval", ["", *(metric_title(f"r{k}") for k in _CUTS)], table)], {}

    def examples(self, model, inputs, batch):
        return []
