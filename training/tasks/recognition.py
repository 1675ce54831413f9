"""Recognition: classification of sounding objects and events (paper, section 4.2)."""

import numpy as np
import torch
from sklearn.metrics import confusion_matrix

from deepavfusion import DeepAVFusionForAudioVisualClassification
from deepavfusion.inference.benchmarks.names import match_names
from deepavfusion_cli.terminal import printable

from ..data import FileClips
from ..data.balance import class_balanced_weights, label_frequencies
from ..data.files import DenseClips
from ..data.loading import on_device
from ..data.mixup import mixup, soft_labels
from ..data.random import Stream
from ..metrics.classification import (
    class_accuracy,
    class_average_precision,
    mean_average_precision,
    mean_roc_auc,
    most_frequent_scores,
    scored_classes,
    top_k_accuracy,
)
from ..report import charts
from ..report.report import Example, ExampleImage, Table
from ..wording import clip_title, count, listing, metric_title, percent
from .base import Task
from .evaluation import check_classes, evaluate_task

MOST_FREQUENT = "most frequent class"
_UNKNOWN_CLASSES = "clips of classes that the model does not know"  # kind of what is left out


class Recognition(Task):
    """Single- or multi-label classification, evaluated per stream and per modality."""

    NAME = "recognition"
    MODEL = DeepAVFusionForAudioVisualClassification
    NEXT = ("classify {clip} --model {folder}",)
    PROTOCOL = (
        "One centered window per clip. Joint: mean of the logits of the three streams, which have exchanged "
        "information through fusion. Image only, audio only: the other modality is missing from the input."
    )

    @property
    def multi_label(self) -> bool:
        return self.clips.multi_label

    @property
    def primary(self) -> str:
        return "map" if self.multi_label else "top1"

    @classmethod
    def head_config(cls, clips, recipe):
        check_classes(clips, 2)
        names = dict(enumerate(clips.label_names))
        kind = "multi_label_classification" if clips.multi_label else "single_label_classification"
        return {"id2label": names, "label2id": {name: i for i, name in names.items()}, "problem_type": kind}

    @classmethod
    def prepare_model(cls, model, clips, recipe):
        super().prepare_model(model, clips, recipe)
        if recipe.task.init_bias:
            model.init_bias_from_frequencies(label_frequencies(clips))

    @classmethod
    def sampling_weights(cls, clips, recipe):
        return class_balanced_weights(clips) if recipe.task.class_balanced else None

    @classmethod
    def training_notes(cls, clips, held_out=None, recipe=None):
        """Name the classes without training clips, and those without clips that are held out."""
        names = clips.label_names
        trained = label_frequencies(clips).tolist()
        absent = [name for name, frequency in zip(names, trained, strict=True) if not frequency]
        notes = []
        if absent:
            why = "all are held out, or beyond data.train_size"
            notes.append(f"{len(absent)} of {len(names)} classes have no training clips ({why}): {listing(absent)}")
        if held_out is not None and held_out.label_names == names:
            found = zip(names, trained, label_frequencies(held_out).tolist(), strict=True)
            untested = [name for name, frequency, tested in found if frequency and not tested]
            if untested:
                size = None if recipe is None else recipe.data.eval_size
                why = "a single recording cannot be split" if size is None else f"data.eval_size={size}"
                notes.append(
                    f"{len(untested)} of {len(names)} classes have no held-out clips ({why}): {listing(untested)}"
                )
        return notes

    @classmethod
    def check_split(cls, clips, held_out):
        if not isinstance(clips, FileClips) or None is clips.label_names or clips.label_names != held_out.label_names:
            return
        trained, fractions = label_frequencies(clips) > 0, label_frequencies(held_out)
        tested = fractions > 0
        if clips.multi_label and not (tested & (fractions < 1)).any():
            held = f"each class is in all of the clips that are held out or in none ({count(len(held_out), 'clip')})"
            raise ValueError(f"{held}, of which mAP is undefined: hold out more.")
        if not (trained & tested).any():
            names = [name for name, there in zip(clips.label_names, tested.tolist(), strict=True) if there]
            raise ValueError(
                f"none of the classes that are held out has training clips ({listing(names)}): at least one class "
                "needs two recordings, one to train on and one to hold out; or give the splits."
            )

    @classmethod
    def depends_on_batch(cls, recipe, config):
        return recipe.task.mixup > 0

    @classmethod
    def training_inputs(cls, inputs, config, place, recipe):
        """Apply the recipe's label smoothing, mixup and modality dropout."""
        task = recipe.task
        if (task.mixup or task.label_smoothing) and not inputs["labels"].is_floating_point():
            inputs = {**inputs, "labels": soft_labels(inputs["labels"], config.num_labels, task.label_smoothing)}
        if task.mixup:
            inputs = mixup(inputs, task.mixup, place.generator(Stream.MIXUP))
        if task.modality_dropout:
            draws = torch.rand(len(inputs["labels"]), generator=place.generator(Stream.MODALITY_DROPOUT))
            draws, half = on_device(draws, inputs["labels"].device), task.modality_dropout / 2
            present = {"image_present": draws >= half, "audio_present": (draws < half) | (draws >= 2 * half)}
            inputs = {**inputs, **present}
        return inputs

    @classmethod
    def match_clips(cls, clips, config):
        if not isinstance(clips, FileClips) or clips.label_names is None:
            return clips, [], {}  # clips without labels are refused by `check_model`
        own = [config.id2label[i] for i in range(config.num_labels)]
        places = match_names(clips.label_names, own)
        missing = [name for i, name in enumerate(own) if i not in places.values()]
        extra = [name for name in clips.label_names if name not in places]
        notes = [f"{a} of the data is {own[i]} of the model" for a, i in places.items() if a != own[i]]
        if missing:
            notes.append(f"Classes of the model without clips here ({len(missing)} of {len(own)}): {listing(missing)}")
        if not places:
            return clips, [], {}  # as different as can be, which `check_model` says
        matched = clips.with_classes(own, places)
        if extra:
            notes.append(f"Classes here that the model does not know ({len(extra)}): {listing(extra)}")
        return matched, notes, {_UNKNOWN_CLASSES: len(clips) - len(matched)} if extra else {}

    def check_model(self, model):
        check_classes(self.clips)
        names = self.clips.label_names
        own = [model.config.id2label[i] for i in range(model.config.num_labels)]
        if list(names) != own:
            different = [f"{i}: {a!r} and {b!r}" for i, (a, b) in enumerate(zip(own, names, strict=False)) if a != b]
            first = f"; the first difference is {different[0]}" if different else ""
            shown = ", ".join([*map(printable, own[:4]), *["..."] * (len(own) > 4)])
            if not match_names(names, own):
                first = f" ({listing(list(names))}), none of which it knows"
            raise ValueError(f"it has {count(len(own), 'class', 'classes')} ({shown}), the data {len(names)}{first}.")

    def evaluate(self, model, accelerator, full, broken=None):
        """Evaluate; a full evaluation also averages over several windows of each clip."""
        evaluation, recipe = super().evaluate(model, accelerator, full, broken), self.recipe
        windows = recipe.task.dense_windows
        if full and windows > 1 and isinstance(self.clips, FileClips):
            dense = evaluate_task(
                type(self)(DenseClips(self.clips, windows), self.processor),
                model,
                accelerator,
                batch_size=max(1, recipe.optim.batch_size // windows),
                num_workers=recipe.data.workers,
                max_unreadable_fraction=recipe.data.max_unreadable_fraction,
                full=True,
            )
            evaluation.metrics.update({f"dense_{name}": value for name, value in dense.metrics.items()})
            if evaluation.predictions:
                evaluation.predictions["dense"] = dense.predictions["clips"]
            table, note = dense.tables[0], None
            if unread := [name for name in dense.skipped if name not in evaluation.skipped]:
                note = f"Without {count(len(unread), 'clip')} of which a window could not be read: {listing(unread)}."
                evaluation.remarks.append(f"Mean over {windows} windows: {note[0].lower()}{note[1:]}")
            evaluation.tables.append(Table(f"Mean over {windows} windows per clip", table.columns, table.rows, note))
        return evaluation

    def rederive(self, tables, about):
        metrics, left_out = super().rederive(tables, about)
        if "dense" in tables:
            metrics |= {f"dense_{name}": value for name, value in self.summarize(tables["dense"], True)[0].items()}
        return metrics, left_out

    def score(self, model, inputs, batch, full):
        windows = getattr(self.clips, "num_windows", 1)
        if windows > 1:  # (B, K, ...): several windows of each clip, whose logits are averaged
            inputs = {name: values.flatten(0, 1) for name, values in inputs.items()}
        outputs = model(**inputs)
        logits = {
            "joint": outputs.logits,
            "image stream": outputs.image_logits,
            "audio stream": outputs.audio_logits,
            "fusion stream": outputs.fusion_logits,
        }
        if full:
            logits["image only"] = model(pixel_values=inputs["pixel_values"]).logits
            logits["audio only"] = model(input_features=inputs["input_features"]).logits
        logits = {name: part.float().unflatten(0, (-1, windows)).mean(1) for name, part in logits.items()}
        values = {name: self._scores(part).cpu().numpy() for name, part in logits.items()}
        labels = batch["labels"].numpy()
        return [{"label": labels[i], **{name: part[i] for name, part in values.items()}} for i in range(len(labels))]

    def _scores(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.float().sigmoid() if self.multi_label else logits.float().softmax(-1)

    def summarize(self, rows, full):
        labels = np.stack([row["label"] for row in rows])
        found = {
            name: self._metrics(np.stack([row[name] for row in rows]), labels) for name in rows[0] if name != "label"
        }
        metrics = dict(found["joint"])
        for name, values in found.items():
            if name != "joint":
                metrics.update({f"{name.replace(' ', '_')}_{key}": value for key, value in values.items()})
        bounds, table = self._bounds(), []
        columns = [
            "input or stream",
            *(metric_title(key) for key in found["joint"]),
            *(["upper bound"] if bounds else []),
        ]
        if full:
            most = most_frequent_scores(self._targets(labels, rows[0]["joint"].size), self.multi_label)
            found[MOST_FREQUENT] = {key: most[key] for key in found["joint"] if key in most}
        for name, values in found.items():
            bound = [bounds.get(name)] if bounds else []
            cells = [percent(values.get(key)) for key in found["joint"]]
            table.append([name, *cells, *(percent(b) for b in bound)])
        return metrics, [Table("Recognition", columns, table)], {}

    def _metrics(self, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        if self.multi_label:
            first = labels[np.arange(len(labels)), scores.argmax(1)]
            return {
                "map": mean_average_precision(scores, labels),
                "auc": mean_roc_auc(scores, labels),
                "precision_at_1": float((first > 0).mean()),
            }
        one_hot = np.eye(scores.shape[1])[labels]
        result = {"top1": top_k_accuracy(scores, labels, 1)}
        if scored_classes(one_hot).any():  # undefined if all clips are of one class
            result["map"] = mean_average_precision(scores, one_hot)
        if scores.shape[1] > 5:
            result["top5"] = top_k_accuracy(scores, labels, 5)
        return result

    def _targets(self, labels: np.ndarray, classes: int) -> np.ndarray:
        """Whether each clip is of each class, (N, C) bool."""
        return labels > 0 if self.multi_label else np.eye(classes, dtype=bool)[labels]

    def details(self, rows):
        """A table of the classes, worst first."""
        labels, scores = (np.stack([row[name] for row in rows]) for name in ("label", "joint"))
        targets = self._targets(labels, scores.shape[1])
        measure = class_average_precision if self.multi_label else class_accuracy
        found = zip(measure(scores, targets).tolist(), self.clips.label_names, targets.sum(0).tolist(), strict=True)
        found = sorted(found, key=lambda row: (np.isnan(row[0]), *row))
        table = [[name, percent(None if np.isnan(value) else value), number] for value, name, number in found]
        columns = ["class", "average precision" if self.multi_label else "accuracy", "clips"]
        return [Table("Classes", columns, table, "Joint logits; the worst classes come first.")]

    def _bounds(self) -> dict[str, float]:
        """Upper bounds of the primary metric per modality, for data sets that know them."""
        ceilings = self.clips.ceilings
        if not ceilings:
            return {}
        key = "mAP" if self.multi_label else "accuracy"
        modalities = {"joint": "both", "image only": "image", "audio only": "audio"}
        return {name: ceilings[modality][key] for name, modality in modalities.items()}

    def examples(self, model, inputs, batch):
        scores = self._scores(model(**inputs).logits).cpu()
        frames, names = self.frames(inputs["pixel_values"]), self.clips.label_names
        shown = []
        for i, (frame, row) in enumerate(zip(frames, scores, strict=True)):
            label = batch["labels"][i]
            truth = [int(label)] if label.ndim == 0 else label.nonzero().flatten().tolist()
            best = row.topk(min(3, len(names)))
            guesses = ", ".join(
                f"{names[j]} {percent(p)}" for p, j in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            )
            image = ExampleImage(frame, f"predicted: {guesses}", correct=int(best.indices[0]) in truth)
            text = "true: " + (" and ".join(names[j] for j in truth) or "none of the classes")
            shown.append(Example(clip_title(batch["path"][i]), [image], text=text))
        return shown

    def figures(self, rows):
        names = self.clips.label_names
        if self.multi_label or len(names) > charts.MAX_CLASSES:
            return []
        labels = [int(row["label"]) for row in rows]
        predictions = [int(row["joint"].argmax()) for row in rows]
        counts = confusion_matrix(labels, predictions, labels=range(len(names)))
        figure = charts.confusion_matrix(counts, names)
        accuracy = percent(float(np.trace(counts)) / max(int(counts.sum()), 1))
        alt = f"Confusion matrix of {len(names)} classes, rows the true class; accuracy {accuracy}."
        return [("Confusion matrix", figure, "Rows are normalized by the number of clips of the true class.", alt)]
