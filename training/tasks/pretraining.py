"""Pre-training: reconstruction of masked image and audio patches (paper, section 3.4), alignment, joint embedding."""

import numpy as np

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.inference.pages.reconstructions import reconstruction_images

from ..data.loading import BrokenClips, evaluation_noise, mask_noise, on_device
from ..metrics.knn import STREAMS, neighbor_rows, neighbor_scores
from ..report.charts import training_curves
from ..report.reconstructions import draw_reconstructions, reconstruction_example
from ..wording import clip_title
from .base import Task
from .evaluation import score_clips
from .masking import draw_setting, mask_settings
from .pretraining_tables import nested_scores, not_scored, pretraining_tables
from .probing import fewer_labels, probe_features, probe_metrics
from .reconstruction import (
    NUM_CLIPS,
    bound_errors,
    cross_modal_losses,
    hidden_bounds,
    links_table,
    mean_losses,
    oracle_losses,
)
from .retrieval import retrieval_examples, retrieval_features, retrieval_metrics

# Objective -> parts of the loss.
_LOSSES = {
    "reconstruction": ("image_loss", "audio_loss"),
    "align": ("image_loss", "audio_loss", "alignment_loss"),
    "jepa": ("invariance_loss", "sigreg_loss"),
}
_CLIPS = "One frame and one window per clip, no augmentation."
_RECONSTRUCTION = (
    "Losses: mean squared error of masked patches, with the same masks at every evaluation; those by the other "
    "modality on the first 256 clips."
)
_RETRIEVAL = (
    "Retrieval: among all held-out clips, by cosine similarity of image and audio, each encoded alone as in training."
)
_PROBES = (
    "Nearest neighbors: leave-one-out, cosine similarity of each stream's mean over tokens, unmasked; `all` adds the "
    "similarities of the three streams. Linear probes, and whitening: fitted on clips of the training split without "
    "augmentation."
)
# Objective -> what the metrics mean.
_PROTOCOLS = {
    "reconstruction": f"{_CLIPS} {_RECONSTRUCTION} {_PROBES}",
    "align": f"{_CLIPS} {_RECONSTRUCTION} {_RETRIEVAL} {_PROBES}",
    "jepa": f"{_CLIPS} {_RETRIEVAL} {_PROBES}",
}


class Pretraining(Task):
    """Pre-training by any objective, evaluated by nearest neighbors and, where they apply, losses and retrieval."""

    NAME = "pretraining"
    MODEL = DeepAVFusionForPreTraining
    SELECTS = False
    EVALUATES_FIRST = True
    NEXT = (
        "embed {clip} --model {folder} --out streams",
        "finetune folder_recognition data.path=VIDEOS model.init_from={folder}",
    )
    PROTOCOL = _PROTOCOLS["reconstruction"]

    @classmethod
    def losses(cls, config):
        return ("loss", *_LOSSES[config.pretraining_objective])

    @classmethod
    def depends_on_batch(cls, recipe, config):
        return recipe.model.config.get("pretraining_objective", config.pretraining_objective) != "reconstruction"

    @classmethod
    def prepare_model(cls, model, clips, recipe):
        """Load unimodal checkpoints into the towers if the recipe names any."""
        given = recipe.model
        mask_settings(recipe.task.masks, model.config.num_patches)
        if given.init_image is not None or given.init_audio is not None:
            try:
                encoder = DeepAVFusionModel.from_unimodal_pretrained(
                    image=given.init_image, audio=given.init_audio, config=model.config
                )
            except (OSError, ValueError) as error:
                raise ValueError(f"model.init_image / model.init_audio cannot be used: {error}") from error
            model.deepavfusion.load_state_dict(encoder.state_dict())

    @classmethod
    def training_notes(cls, clips, held_out=None, recipe=None):
        """Say which probes the training clips are too few for."""
        return [] if recipe is None else fewer_labels(recipe.task.probe_labels, len(clips))

    @classmethod
    def training_inputs(cls, inputs, config, place, recipe):
        """Add the noise that determines the masks, a function of seed, step and position."""
        pixels = inputs["pixel_values"]
        noise = (on_device(part[: len(pixels)], pixels.device) for part in mask_noise(*place, config.num_patches))
        image_noise, audio_noise = noise
        settings = mask_settings(recipe.task.masks, config.num_patches)
        setting = draw_setting(settings, place.seed, place.step)
        return {
            **{name: inputs[name] for name in ("pixel_values", "input_features")},
            "image_noise": image_noise,
            "audio_noise": audio_noise,
            "num_visible_image_patches": setting.image,
            "num_visible_audio_patches": setting.audio,
            "return_logits": False,
        }

    @property
    def primary(self):
        return None

    @property
    def logged_metrics(self):
        return (
            "loss",
            "image_loss",
            "audio_loss",
            "image_saved_few",
            "audio_saved_few",
            "audio_to_image_r10",
            "image_to_audio_r10",
            *(f"{name}_{metric}" for name in (*STREAMS, "all") for metric in ("accuracy", "map")),
        )

    def score(self, model, inputs, batch, full):
        indices = batch["index"].tolist()
        rows = neighbor_rows(model.deepavfusion(**inputs), batch.get("labels", [None] * len(indices)))
        rows = [{"index": index, **row} for index, row in zip(indices, rows, strict=True)]
        objective = model.config.pretraining_objective
        if objective != "jepa":
            self._add_losses(rows, model, inputs, batch)
        if objective != "reconstruction":
            for row, features in zip(rows, retrieval_features(model.deepavfusion, inputs), strict=True):
                row["alone"] = features
        return rows

    def _add_losses(self, rows, model, inputs, batch):
        """Add reconstruction losses, and those of oracles, to the rows of a batch."""
        noise = self._noise(model, inputs, batch)
        outputs = model(**inputs, **noise)
        losses = {name: values.tolist() for name, values in model.losses_per_sample(outputs, **inputs).items()}
        losses |= oracle_losses(model, outputs, inputs)
        for place, row in enumerate(rows):
            row["losses"] = {name: values[place] for name, values in losses.items()}
        if len(rows) > 1 and int(batch["index"].min()) < NUM_CLIPS:
            cross_modal = cross_modal_losses(model, inputs, noise)
            for row, index, found in zip(rows, batch["index"].tolist(), cross_modal, strict=True):
                row |= {"cross_modal": found} if index < NUM_CLIPS else {}

    def _noise(self, model, inputs, batch):
        noise = evaluation_noise(self.recipe.run.seed, batch["index"], model.config.num_patches)
        image_noise, audio_noise = (on_device(part, inputs["pixel_values"].device) for part in noise)
        return {"image_noise": image_noise, "audio_noise": audio_noise}

    def summarize(self, rows, full):
        metrics = {}
        if "losses" in rows[0]:
            means = {name: float(np.mean([row["losses"][name] for row in rows])) for name in rows[0]["losses"]}
            metrics |= {"loss": means["image_loss"] + means["audio_loss"], **means}
            metrics |= mean_losses([row["cross_modal"] for row in rows if "cross_modal" in row])
        if "alone" in rows[0]:
            metrics |= retrieval_metrics([row["alone"] for row in rows])
        reason = not_scored([row["label"] for row in rows])
        if reason is None:
            scores = neighbor_scores(rows)
            for name, values in scores.items():
                metrics.update({f"{name}_{metric}": value for metric, value in values.items()})
        return metrics, pretraining_tables(metrics, None, reason), {}

    def evaluate(self, model, accelerator, full, broken=None):
        """Evaluate a model; a full evaluation fits the probes of `task.probe_labels`, too."""
        recipe, counts = self.recipe, self.recipe.task.probe_labels
        evaluation = super().evaluate(model, accelerator, full, broken)
        evaluation.protocol = f"{_PROTOCOLS[model.config.pretraining_objective]} Data: {self.clips.card}."
        if full and model.config.pretraining_objective != "jepa":
            errors = bound_errors(model, self.clips)
            evaluation.metrics |= hidden_bounds(errors)
            if errors and evaluation.predictions:
                evaluation.predictions["bounds"] = errors
        if full and counts:
            rows = []
            size = min(max(counts), recipe.data.train_size or max(counts))
            train = self.build_clips(recipe, model.config, "train", train=False, size=size)
            for clips, title in ((train, "probes, training clips"), (self.clips, "probes, held-out clips")):
                rows.append(
                    score_clips(
                        clips,
                        lambda inputs, batch: probe_features(model.deepavfusion, inputs, batch),
                        model,
                        accelerator,
                        batch_size=recipe.optim.batch_size,
                        num_workers=recipe.data.workers,
                        broken=BrokenClips.of(clips, recipe.data.max_unreadable_fraction),
                        title=title,
                    )
                )
            evaluation.metrics |= probe_metrics(*rows, counts)
            if evaluation.predictions:
                evaluation.predictions |= dict(zip(("probe_train", "probe_test"), rows, strict=True))
            evaluation.about["probe_labels"] = list(counts)
            evaluation.remarks += fewer_labels(counts, len(rows[0]))
        evaluation.tables = self._tables(evaluation.metrics, None, evaluation.tables[0].note)
        return evaluation

    def taken_as_stored(self, tables):
        losses = "reconstruction losses of each clip, also with other masks and modalities, and of the oracles"
        kept = {}
        if "losses" in tables["clips"][0]:
            kept[losses] = "reconstructed patches are not kept"
        if "bounds" in tables:
            kept["errors of each clip behind the best possible losses"] = "they follow from the data, not from a model"
        return kept

    def rederive(self, tables, about):
        metrics, left_out = super().rederive(tables, about)
        metrics |= hidden_bounds(tables.get("bounds", []))
        if "probe_train" in tables:
            metrics |= probe_metrics(tables["probe_train"], tables["probe_test"], about["probe_labels"])
        return metrics, left_out

    def _tables(self, metrics, before, note):
        links = links_table(self.clips)
        return [*pretraining_tables(metrics, before, note), *([] if links is None else [links])]

    @property
    def num_examples(self):
        return self.recipe.run.num_reconstructions

    def examples(self, model, inputs, batch):
        if model.config.pretraining_objective == "jepa":
            return []
        images, names, losses = self._reconstruct(model, inputs, batch)
        extractor = self.processor.feature_extractor
        return [
            reconstruction_example(images, k, name, {part: values[k] for part, values in losses.items()}, extractor)
            for k, name in enumerate(names)
        ]

    def ranked_examples(self, rows, places):
        if "alone" not in rows[0]:
            return []
        return retrieval_examples(self, [{"index": row["index"], **row["alone"]} for row in rows], places)

    def reconstructions(self, model, inputs, batch):
        if model.config.pretraining_objective == "jepa":
            return None
        return self._reconstruct(model, inputs, batch)[:2]

    def _reconstruct(self, model, inputs, batch):
        """`reconstruction_images` of the first clips of a batch, their names, and losses (clips,) by name."""
        names = [*map(clip_title, batch["path"][: self.recipe.run.num_reconstructions])]
        first = {name: values[: len(names)] for name, values in inputs.items()}
        noise = self._noise(model, first, {"index": batch["index"][: len(names)]})
        outputs = model(**first, **noise)
        losses = {name: values.tolist() for name, values in model.losses_per_sample(outputs, **first).items()}
        visual = self.processor.visual_processor
        mean, std = list(visual.image_mean), list(visual.image_std)
        return reconstruction_images(model, *first.values(), outputs, mean, std), names, losses

    def draw_reconstructions(self, reconstructions, folder, title):
        draw_reconstructions(*reconstructions, folder / "reconstructions.png", title)

    def add_training(self, evaluation, metrics, folder, name):
        records = metrics.read("evaluation")
        before = {name: value for name, value in records[0].items() if name in evaluation.metrics}
        evaluation.tables = self._tables(evaluation.metrics, before, evaluation.tables[0].note)
        scores = [nested_scores(record) for record in records]
        random = [found.pop("chance") for found in scores if found][-1:]
        steps = [{**record, "probe": found} for record, found in zip(records, scores, strict=True)]
        path, train = folder / "training_curves.png", metrics.read("train")
        training_curves(train, steps, random[0] if random else None, path, name)
        return {"before": before, "ceilings": self.clips.ceilings}
