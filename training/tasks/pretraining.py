"""Masked pre-training: reconstruction of masked image and audio patches (paper, section 3.4)."""

from typing import Any

import numpy as np
import torch

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel

from ..data.loading import evaluation_noise, mask_noise
from ..metrics.knn import STREAMS, chance, knn_probe, pool_streams
from ..report.charts import training_curves
from ..report.reconstructions import draw_reconstructions, reconstruction_images
from ..report.tables import Table
from ..wording import NEIGHBOR_METRICS, RANDOM_NEIGHBOR
from .base import Task, percent


class Pretraining(Task):
    """Masked reconstruction, evaluated by held-out losses and nearest neighbors."""

    NAME = "pretraining"
    MODEL = DeepAVFusionForPreTraining
    LOSSES = ("loss", "image_loss", "audio_loss")
    SELECTS = False
    EVALUATES_FIRST = True
    NEXT = (
        "deepavfusion embed CLIP.mp4 --model {folder}",
        "deepavfusion pretrain folder data.path=VIDEOS model.init_from={folder}",
    )
    PROTOCOL = (
        "One frame and one window per clip, no augmentation. Losses: mean squared error of masked patches, with the "
        "same masks at every evaluation. Nearest neighbors: leave-one-out, cosine similarity of each stream's mean "
        "over tokens, unmasked; `all` adds the similarities of the three streams."
    )

    @classmethod
    def prepare_model(cls, model, clips, recipe):
        """Load unimodal checkpoints into the towers if the recipe names any."""
        given = recipe.model
        if given.init_image is not None or given.init_audio is not None:
            try:
                encoder = DeepAVFusionModel.from_unimodal_pretrained(
                    image=given.init_image, audio=given.init_audio, config=model.config
                )
            except (OSError, ValueError) as error:
                raise ValueError(f"model.init_image / model.init_audio cannot be used: {error}") from error
            model.deepavfusion.load_state_dict(encoder.state_dict())

    @classmethod
    def training_inputs(cls, inputs, config, place, recipe):
        """Add the noise that determines the masks, a function of seed, step and position."""
        pixels = inputs["pixel_values"]
        noise = (part[: len(pixels)].to(pixels.device) for part in mask_noise(*place, config.num_patches))
        image_noise, audio_noise = noise
        names = ("pixel_values", "input_features")
        return {**{name: inputs[name] for name in names}, "image_noise": image_noise, "audio_noise": audio_noise}

    @property
    def primary(self):
        return None

    @property
    def logged_metrics(self):
        return (*self.LOSSES, *(f"{name}_{metric}" for name in (*STREAMS, "all") for metric in ("accuracy", "map")))

    def score(self, model, inputs, batch, full):
        outputs = self._outputs(model, inputs, batch)
        streams = {name: part.float().cpu() for name, part in pool_streams(model.deepavfusion(**inputs)).items()}
        rows = []
        losses = model.losses_per_sample(outputs, **inputs)
        pairs = zip(losses["image_loss"].tolist(), losses["audio_loss"].tolist(), strict=True)
        for place, losses in enumerate(pairs):
            label = batch["labels"][place] if "labels" in batch else None
            rows.append({"losses": losses, "streams": [streams[name][place] for name in STREAMS], "label": label})
        return rows

    def _outputs(self, model, inputs, batch):
        noise = evaluation_noise(self.recipe.run.seed, batch["index"], model.config.num_patches)
        image_noise, audio_noise = (part.to(inputs["pixel_values"].device) for part in noise)
        return model(**inputs, image_noise=image_noise, audio_noise=audio_noise)

    def summarize(self, rows, full):
        image, audio = np.array([row["losses"] for row in rows], dtype=np.float64).mean(axis=0).tolist()
        metrics = {"loss": image + audio, "image_loss": image, "audio_loss": audio}
        reason = _not_scored([row["label"] for row in rows])
        if reason is None:
            labels = torch.stack([torch.as_tensor(row["label"]) for row in rows])
            features = {name: torch.stack([row["streams"][k] for row in rows]) for k, name in enumerate(STREAMS)}
            scores = {**knn_probe(features, labels), "chance": chance(labels)}
            for name, values in scores.items():
                metrics.update({f"{name}_{metric}": value for metric, value in values.items()})
        return metrics, _tables(metrics, None, reason), {}

    def reconstructions(self, model, inputs, batch):
        names = batch["path"][: self.recipe.run.num_reconstructions]
        first = {name: values[: len(names)] for name, values in inputs.items()}
        outputs = self._outputs(model, first, {"index": batch["index"][: len(names)]})
        visual = self.processor.visual_processor
        mean, std = list(visual.image_mean), list(visual.image_std)
        return reconstruction_images(model, *first.values(), outputs, mean, std), names

    def draw_reconstructions(self, reconstructions, folder, title):
        draw_reconstructions(*reconstructions, folder / "reconstructions.png", title)

    def add_training(self, evaluation, metrics, folder, name):
        records = metrics.read("evaluation")
        before = {name: value for name, value in records[0].items() if name in evaluation.metrics}
        evaluation.tables = _tables(evaluation.metrics, before, evaluation.tables[0].note)
        scores = [nested_scores(record) for record in records]
        random = [found.pop("chance") for found in scores if found][-1:]
        steps = [{**record, "probe": found} for record, found in zip(records, scores, strict=True)]
        path, train = folder / "training_curves.png", metrics.read("train")
        training_curves(train, steps, random[0] if random else None, path, name)
        return {"before": before, "ceilings": self.clips.ceilings}


def _not_scored(labels: list[Any]) -> str | None:
    """Why clips with these labels have no nearest-neighbor scores; None if they have."""
    if any(label is None for label in labels):
        reason = "the held-out clips have no labels"
    elif len(labels) < 2:
        reason = "only one held-out clip was read"
    else:
        present = torch.stack([torch.as_tensor(label) for label in labels]) > 0
        if present.ndim == 1 or bool((present.any(0) & ~present.all(0)).any()):
            return None
        reason = "the held-out clips all have the same labels"
    return f"No nearest-neighbor scores: {reason}."


def nested_scores(metrics: dict[str, Any]) -> dict[str, dict[str, float]] | None:
    """Nearest-neighbor scores as stream -> metric -> value, from flat metrics; None without such scores."""
    found = {
        stream: {name: metrics[f"{stream}_{name}"] for name in NEIGHBOR_METRICS if f"{stream}_{name}" in metrics}
        for stream in (*STREAMS, "all", "chance")
    }
    return found if found["chance"] else None


def _tables(metrics: dict[str, Any], before: dict[str, Any] | None, note: str | None) -> list[Table]:
    """Tables of losses, with a note, and of nearest-neighbor scores; `before` holds the metrics before training."""
    columns = {"before training": before, "trained": metrics}
    columns = {title: values for title, values in columns.items() if values is not None}
    losses = {"loss": "sum", "image_loss": "image", "audio_loss": "audio"}
    rows = [[title, *(f"{values[name]:.4f}" for name in losses)] for title, values in columns.items()]
    tables = [Table("Held-out losses", ["", *losses.values()], rows, note)]
    scores = {title: nested_scores(values) for title, values in columns.items()}
    trained = scores["trained"]
    if trained is not None:
        random = trained.pop("chance")
        rows = [
            [
                stream,
                NEIGHBOR_METRICS[name],
                *(percent(of[stream][name]) for of in scores.values()),
                percent(random[name]),
            ]
            for stream in trained
            for name in trained[stream]
        ]
        explained = f"{RANDOM_NEIGHBOR.capitalize()}: expected score of neighbors drawn at random from the same clips."
        columns = ["stream", "metric", *scores, RANDOM_NEIGHBOR]
        tables.append(Table("Nearest neighbors", columns, rows, explained))
    return tables
