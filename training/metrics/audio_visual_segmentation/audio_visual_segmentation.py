"""Audio-visual segmentation as a module of `evaluate`: the field's mIoU and F, and the published code's beside them."""

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.published_segmentation import (
    published_binary_scores,
    published_summary,
    ratios_of_totals,
)
from deepavfusion.training.metrics.rows import KeepsRows
from deepavfusion.training.metrics.segmentation import (
    F_THRESHOLDS,
    IGNORED,
    avsbench_f,
    class_totals,
    image_iou,
    max_f,
    precision_recall,
    scores_of_totals,
)

_DESCRIPTION = """\
Masks of what sounds. binary: miou is the mean over pictures of the foreground's intersection over union at probability
0.5 (of a picture without foreground: the share of pixels that were left empty); f has beta squared 0.3, from precision
and recall averaged over pictures, the largest over 255 thresholds; f_avsbench averages F instead of precision and
recall, over pictures with foreground, as AVSBench's scorer. semantic: miou and f are means over classes, the background
among them, from pixels counted over all pictures. Names that start with published_ are those of DeepAVFusion's
published code: ratios within a picture, averaged over pictures; the background in the mean, but for names that end in
_no_background; the best threshold of every picture; pictures without foreground skipped.
"""
_INPUTS = """
Args:
    predictions: binary: probabilities (height, width) of every picture; semantic: class indices (height, width).
    references: binary: 0 or 1 (height, width); semantic: class indices, 0 the background, 255 ignored.
    num_classes: for `compute` with semantic: the number of classes, the background among them, where that is to be
        checked. Means are over the classes that occur or are found.
Returns:
    miou, f; f_avsbench (binary); published_miou, published_precision, published_recall, published_f, and each with
    the ending _no_background: in 0..1. f_avsbench and the published ones are left out where no picture has foreground.
    num_pictures, num_without_foreground.
"""
_CITATION = """\
@inproceedings{zhou2022avs, title={Audio-visual segmentation}, author={Zhou, Jinxing and Wang, Jianyuan and Zhang, Jiayi
  and Sun, Weixuan and Zhang, Jing and Birchfield, Stan and Guo, Dan and Kong, Lingpeng and Wang, Meng and
  Zhong, Yiran}, booktitle={ECCV}, year={2022}}
"""


_PUBLISHED = (4, 2)
_CURVE = (2, len(F_THRESHOLDS))


class AudioVisualSegmentation(KeepsRows, evaluate.Metric):
    def _info(self):
        if self.config_name not in ("default", "binary", "semantic"):
            raise ValueError(f"The kind is {self.config_name!r}: expected 'binary' or 'semantic'.")
        kind = "int32" if self.semantic else "float32"
        picture = datasets.List(datasets.List(datasets.Value(kind)))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": picture, "references": picture}),
        )

    @property
    def semantic(self) -> bool:
        return self.config_name == "semantic"

    def _row(self, index, prediction, reference):
        """semantic: pixel counts (3 * classes); binary: IoU, published ratios (4 * 2), curve (2 * 255); foreground."""
        kind = np.int64 if self.semantic else np.float64
        found = rectangle(prediction, f"Prediction {index}", kind)
        truth = rectangle(reference, f"Reference {index}", kind)
        if self.semantic:
            totals = class_totals(truth, found, IGNORED)
            return totals.ravel(), totals[1, 1:].any()
        if not np.isin(truth, (0, 1)).all():
            raise ValueError(f"Reference {index} holds other values than 0 and 1.")
        curve = precision_recall(found, truth)
        ratios = published_binary_scores(truth, found)
        kept = np.zeros(_PUBLISHED) if ratios is None else ratios
        return [image_iou(found > 0.5, truth), *kept.ravel(), *curve.ravel()], ratios is not None

    def _compute(self, predictions, references, num_classes=None):
        foreground = np.array(references, bool)
        result, published = (
            _semantic(predictions, num_classes) if self.semantic else _binary(np.array(predictions), foreground)
        )
        if foreground.any():
            summary = published_summary([part for part, kept in zip(published, foreground, strict=True) if kept])
            result |= {f"published_{name}": value for name, value in summary.items()}
        return result | {"num_pictures": len(foreground), "num_without_foreground": int((~foreground).sum())}


def _binary(rows, foreground):
    published, curves = rows[:, 1:9].reshape(-1, *_PUBLISHED), rows[:, 9:].reshape(-1, *_CURVE)
    result = {"miou": float(rows[:, 0].mean()), "f": max_f(curves)}
    if foreground.any():
        result["f_avsbench"] = avsbench_f(curves, foreground)
    return result, published


def _semantic(rows, num_classes):
    pictures = [np.reshape(row, (3, -1)).astype(np.int64) for row in rows]
    largest = max(totals.shape[1] for totals in pictures)
    if num_classes is not None and largest > num_classes:
        raise ValueError(f"Labels reach up to {largest - 1}: expected 0 .. {num_classes - 1}.")
    totals = np.stack([np.pad(totals, ((0, 0), (0, largest - totals.shape[1]))) for totals in pictures])
    return scores_of_totals(totals.sum(0)), [ratios_of_totals(picture) for picture in totals]
