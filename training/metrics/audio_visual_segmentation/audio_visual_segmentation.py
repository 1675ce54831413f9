"""Audio-visual segmentation as a module of `evaluate`: the usual mIoU and F beside those of the published code."""

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.published_segmentation import (
    published_binary_scores,
    published_summary,
    ratios_of_totals,
)
from deepavfusion.training.metrics.segmentation import (
    F_THRESHOLDS,
    avsbench_f,
    class_scores,
    class_totals,
    image_iou,
    max_f,
    precision_recall,
)
from deepavfusion.training.metrics.streaming import StreamingMetric

_DESCRIPTION = """\
Masks of sounding objects. binary: miou is the mean over images of the foreground's intersection over union at
probability 0.5 (for an image without foreground: the fraction of pixels predicted as background); f is the largest F
with beta squared 0.3 over 255 thresholds, from precision and recall averaged over images; f_avsbench averages F instead
of precision and recall, over images with foreground, as AVSBench's scorer does. semantic: miou and f are means over
classes, including the background, from pixel counts over all images. The metrics named published_ are computed as in
DeepAVFusion's published code: per-image ratios, averaged over images; including the background, except for names ending
in _no_background; at each image's best threshold; skipping images without foreground.
"""
_INPUTS = """
Args:
    predictions: binary: probabilities (height, width) of each image; semantic: class indices (height, width).
    references: binary: 0 or 1 (height, width); semantic: class indices, 0 for background, 255 for ignored pixels.
    num_classes: for `compute` with semantic: number of classes, including the background, to validate the inputs
        against. Means are over the classes that are present or predicted.
Returns:
    miou, f; f_avsbench (binary); published_miou, published_precision, published_recall, published_f, and each with
    the suffix _no_background: in 0..1. f_avsbench and the published ones are omitted if no image has foreground.
    num_images, num_images_without_foreground.
"""
_CITATION = """\
@inproceedings{zhou2022avs, title={Audio-visual segmentation}, author={Zhou, Jinxing and Wang, Jianyuan and Zhang, Jiayi
  and Sun, Weixuan and Zhang, Jing and Birchfield, Stan and Guo, Dan and Kong, Lingpeng and Wang, Meng and
  Zhong, Yiran}, booktitle={ECCV}, year={2022}}
"""


_PUBLISHED = (4, 2)
_CURVE = (2, len(F_THRESHOLDS))


class AudioVisualSegmentation(StreamingMetric, evaluate.Metric):
    """mIoU and F of binary or semantic masks; see `_DESCRIPTION`."""

    def _info(self):
        if self.config_name not in ("default", "binary", "semantic"):
            raise ValueError(f"Unknown configuration {self.config_name!r}. Valid configurations: 'binary', 'semantic'.")
        kind = "int32" if self.semantic else "float32"
        image = datasets.List(datasets.List(datasets.Value(kind)))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": image, "references": image}),
        )

    @property
    def semantic(self) -> bool:
        """Whether inputs are class indices."""
        return self.config_name == "semantic"

    def _row(self, index, prediction, reference):
        """semantic: pixel counts (3 * classes); binary: IoU, published ratios (4 * 2), curve (2 * 255); foreground."""
        kind = np.int64 if self.semantic else np.float64
        predicted = rectangle(prediction, f"Prediction {index}", kind)
        target = rectangle(reference, f"Reference {index}", kind)
        if self.semantic:
            totals = class_totals(target, predicted)
            return totals.ravel(), totals[1, 1:].any()
        if not np.isin(target, (0, 1)).all():
            raise ValueError(f"Expected 0 and 1 only in reference {index}, got {np.unique(target).tolist()}.")
        curve = precision_recall(predicted, target)
        ratios = published_binary_scores(target, predicted)
        kept = np.zeros(_PUBLISHED) if ratios is None else ratios
        return [image_iou(predicted > 0.5, target), *kept.ravel(), *curve.ravel()], ratios is not None

    def _compute(self, predictions, references, num_classes=None):
        foreground = np.array(references, bool)
        result, published = (
            _semantic(predictions, num_classes) if self.semantic else _binary(np.array(predictions), foreground)
        )
        if foreground.any():
            summary = published_summary([part for part, kept in zip(published, foreground, strict=True) if kept])
            result |= {f"published_{name}": value for name, value in summary.items()}
        return result | {
            "num_images": len(foreground),
            "num_images_without_foreground": int((~foreground).sum()),
        }


def _binary(rows, foreground):
    published, curves = rows[:, 1:9].reshape(-1, *_PUBLISHED), rows[:, 9:].reshape(-1, *_CURVE)
    result = {"miou": float(rows[:, 0].mean()), "f": max_f(curves)}
    if foreground.any():
        result["f_avsbench"] = avsbench_f(curves, foreground)
    return result, published


def _semantic(rows, num_classes):
    images = [np.reshape(row, (3, -1)).astype(np.int64) for row in rows]
    largest = max(totals.shape[1] for totals in images)
    if num_classes is not None and largest > num_classes:
        raise ValueError(f"Expected classes 0..{num_classes - 1}, got up to {largest - 1}.")
    totals = np.stack([np.pad(totals, ((0, 0), (0, largest - totals.shape[1]))) for totals in images])
    return class_scores(totals.sum(0)), [ratios_of_totals(image) for image in totals]
