"""Audio-visual segmentation: masks of sounding objects (paper, section 4.4)."""

from typing import Any

import numpy as np
import torch

from deepavfusion import DeepAVFusionForSemanticSegmentation
from deepavfusion.inference.drawing import class_colors, mask_overlay

from ..metrics.segmentation import (
    F_THRESHOLDS,
    class_scores,
    class_totals,
    f_measure,
    image_iou,
    precision_recall,
    probability_map,
    scores_per_class,
)
from ..report.predictions import pack, unpack
from ..report.report import Example, ExampleImage, Table
from ..wording import CONDITIONS, clip_title, count, metric_title, percent
from .base import Task

_CONTROLS = {name: CONDITIONS[name] for name in ("shuffled", "silent")}
# Everything that is measured depends on which of these a probability reaches: the thresholds of F, and "above 0.5".
_EDGES = np.sort(np.append(F_THRESHOLDS, np.nextafter(0.5, 1)))
_MOST_PIXELS = 2**28


class Segmentation(Task):
    """Binary or semantic masks of sounding objects."""

    NAME = "segmentation"
    MODEL = DeepAVFusionForSemanticSegmentation
    UNITS = "frames"
    NEXT = ("segment {clip} --model {folder} --out OUT",)
    PROTOCOL = (
        "Frame at the middle of the audio window. Sounding objects are foreground, silent objects background. mIoU: "
        "mean over frames of the foreground's intersection over union at probability 0.5 (semantic: mean over classes "
        "of the intersection over union, accumulated over frames). F: beta squared 0.3, from precision and recall "
        "averaged over frames, at the best of 255 thresholds (semantic: mean over classes). Coverage: fraction of an "
        "object's pixels above probability 0.5, mean over frames with both sounding and silent objects."
    )

    @property
    def primary(self) -> str:
        return "miou"

    @property
    def semantic(self) -> bool:
        return self.clips.label_names is not None

    @classmethod
    def data_options(cls, recipe, config, train):
        return {"semantic": recipe.task.semantic}

    @classmethod
    def head_config(cls, clips, recipe):
        names = dict(enumerate(segmentation_names(clips))) if recipe.task.semantic else {0: "sounding"}
        labels = {"id2label": names, "label2id": {name: i for i, name in names.items()}}
        return super().head_config(clips, recipe) | labels

    def score(self, model, inputs, batch, full):
        maps = {"own": model(**inputs).logits}
        if full:
            other = self.mismatched_audio(inputs, batch)
            if other is not None:
                maps["shuffled"] = model(pixel_values=inputs["pixel_values"], input_features=other).logits
            maps["silent"] = model(pixel_values=inputs["pixel_values"]).logits
        truth = batch["labels"].numpy()
        silent = batch["silent_objects"].numpy() if full and "silent_objects" in batch else [None] * len(truth)
        kept, rows = full and self._keeps_maps(truth[0].size), []
        predicted = {name: self._predictions(logits) for name, logits in maps.items()}
        for i, (labels, others) in enumerate(zip(truth, silent, strict=True)):
            found = {name: values[i] for name, values in predicted.items()}
            row = {"classes": maps["own"].shape[1]}
            if kept:
                row |= {"maps": {name: pack(values) for name, values in found.items()}, "target": pack(labels)}
                row |= {} if others is None else {"silent_objects": pack(others)}
            rows.append(row | self._row_scores(found, labels, others, row["classes"]))
        return rows

    def _keeps_maps(self, pixels: int) -> bool:
        """Whether rows hold the predicted maps; not for so many pixels that they would fill memory and disk."""
        return len(self.clips) * pixels <= _MOST_PIXELS

    def _predictions(self, logits: torch.Tensor) -> np.ndarray:
        """Predictions (B, H, W): the class, or the position of the probability among `_EDGES`."""
        if self.semantic:
            return logits.argmax(1).to(torch.int16).cpu().numpy()
        probabilities = logits[:, 0].float().sigmoid().cpu().numpy()
        values = probability_map(probabilities).astype(np.float64)
        return (np.searchsorted(_EDGES, values, side="right") - 1).astype(np.uint8)

    def _row_scores(self, maps: dict[str, np.ndarray], labels: np.ndarray, others, classes: int) -> dict[str, Any]:
        """Scores of a frame from its `_predictions`, its target and the mask of its silent objects."""
        if self.semantic:
            return {name: class_totals(labels, found, classes) for name, found in maps.items()}
        row: dict[str, Any] = {}
        for name, levels in maps.items():
            probability = _EDGES[levels]
            row[name] = image_iou(probability > 0.5, labels > 0.5)
            if name == "own":
                if others is not None:
                    covered = (coverage(probability > 0.5, objects) for objects in (labels > 0.5, others))
                    row["coverage"] = np.array(list(covered))
                row["curve"] = precision_recall(probability, labels > 0.5)
                row["area"] = float((labels > 0.5).mean())
        return row

    def rescore(self, row):
        if "maps" not in row:
            return {}
        maps = {name: unpack(packed) for name, packed in row["maps"].items()}
        others = unpack(row["silent_objects"]) if "silent_objects" in row else None
        return self._row_scores(maps, unpack(row["target"]), others, row["classes"])

    def taken_as_stored(self, tables):
        if any("maps" not in row for row in tables["clips"]):
            return {"scores of frames": f"their maps would have more than {_MOST_PIXELS:,} pixels, and are not kept"}
        return {}

    def summarize(self, rows, full):
        names = [name for name in ("own", *_CONTROLS) if name in rows[0]]
        if self.semantic:
            scores = {name: class_scores(sum(row[name] for row in rows)) for name in names}
        else:
            scores = {name: {"miou": float(np.mean([row[name] for row in rows]))} for name in names}
            precision, recall = np.mean([row["curve"] for row in rows], axis=0)
            scores["own"]["f"] = float(f_measure(precision, recall).max())
        metrics = dict(scores["own"])
        metrics.update({f"{name}_miou": scores[name]["miou"] for name in names if name != "own"})
        if not full:
            return metrics, [], {}
        table = [["own audio", percent(metrics["miou"]), percent(metrics["f"])]]
        table += [
            [_CONTROLS[name], percent(scores[name]["miou"]), percent(scores[name].get("f"))] for name in names[1:]
        ]
        if not self.semantic:
            metrics["all_foreground_miou"] = float(np.mean([row["area"] for row in rows]))
            table.append([CONDITIONS["all_foreground"], percent(metrics["all_foreground_miou"]), "-"])
        note = None
        coverages = np.array([row["coverage"] for row in rows if "coverage" in row], float)
        # Only frames with both kinds, in which the model can confuse them.
        coverages = coverages[~np.isnan(coverages).any(axis=1)] if len(coverages) else coverages
        if len(coverages):
            metrics["sounding_coverage"], metrics["silent_coverage"] = coverages.mean(axis=0).tolist()
            note = (
                f"In frames with both sounding and silent objects ({count(len(coverages), 'frame')}), the mask covers "
                f"{percent(metrics['sounding_coverage'])} of the pixels of sounding objects and "
                f"{percent(metrics['silent_coverage'])} of those of silent ones."
            )
        return metrics, [Table("Segmentation", ["with", metric_title("miou"), metric_title("f")], table, note)], {}

    def details(self, rows):
        """A table of the classes, worst first, where there are classes."""
        if not self.semantic:
            return []
        totals, names = sum(row["own"] for row in rows), segmentation_names(self.clips)
        frames = sum((row["own"][1] > 0).astype(int) for row in rows)
        each = zip(*scores_per_class(totals).values(), names, frames.tolist(), strict=True)
        found = sorted(each, key=lambda row: (np.isnan(row[0]), *row))
        shown = [(name, None if np.isnan(iou) else iou, None if np.isnan(f) else f, n) for iou, f, name, n in found]
        table = [[name, percent(iou), percent(f), number] for name, iou, f, number in shown]
        note = "Of all pixels together; the worst classes come first, those neither there nor predicted last."
        return [Table("Classes", ["class", "IoU", "F", "frames"], table, note)]

    def examples(self, model, inputs, batch):
        logits = model(**inputs).logits.float().cpu()
        colors = class_colors(logits.shape[1]) if self.semantic else None
        shown = []
        for i, frame in enumerate(self.frames(inputs["pixel_values"])):
            truth = batch["labels"][i].numpy()
            if self.semantic:
                found, text = logits[i].argmax(0).numpy(), ""
            else:
                found = (logits[i, 0] > 0).numpy()
                text = f"IoU {percent(image_iou(found, truth > 0.5))}"
                truth = truth > 0.5
            images = [
                ExampleImage(frame, "frame"),
                ExampleImage(mask_overlay(frame, found, colors), "prediction"),
                ExampleImage(mask_overlay(frame, truth, colors), "target"),
            ]
            shown.append(Example(clip_title(batch["path"][i]), images, text=text))
        return shown


def coverage(predicted: np.ndarray, objects: np.ndarray) -> float:
    """Fraction of the objects' pixels that are predicted as sounding, from masks (H, W) bool; NaN without objects."""
    return float(predicted[objects].mean()) if objects.any() else float("nan")


def segmentation_names(clips) -> list[str]:
    """Class names of semantic segmentation; class 0 is the background."""
    names = clips.label_names
    if names is None:
        raise ValueError(f"Semantic segmentation needs classes, but {clips.card} has none.")
    return list(names)
