"""Audio-visual segmentation as a module of `evaluate`: the field's mIoU and F, and the published code's beside them."""

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.published_segmentation import (
    published_binary_scores,
    published_scores,
    published_summary,
)
from deepavfusion.training.metrics.segmentation import (
    IGNORED,
    avsbench_f,
    class_scores,
    confusions,
    image_iou,
    max_f,
    precision_recall,
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
    num_classes: for `compute` with semantic: the number of classes, the background among them.
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


class AudioVisualSegmentation(evaluate.Metric):
    def _info(self):
        if self.config_name not in ("default", "binary", "semantic"):
            raise ValueError(f"The kind is {self.config_name!r}: expected 'binary' or 'semantic'.")
        kind = "int32" if self.config_name == "semantic" else "float32"
        picture = datasets.List(datasets.List(datasets.Value(kind)))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": picture, "references": picture}),
        )

    def _compute(self, predictions, references, num_classes=None):
        if not len(references):
            raise ValueError("There is no picture to score.")
        semantic = self.config_name == "semantic"
        kind = np.int64 if semantic else np.float64
        found = [rectangle(rows, f"Prediction {i}", kind) for i, rows in enumerate(predictions)]
        truth = [rectangle(rows, f"Reference {i}", kind) for i, rows in enumerate(references)]
        if semantic:
            result, published = _semantic(found, truth, num_classes)
        else:
            result, published = _binary(found, truth)
        without = sum(part is None for part in published)
        if without < len(published):
            result |= {f"published_{name}": value for name, value in published_summary(published).items()}
        return result | {"num_pictures": len(truth), "num_without_foreground": without}


def _binary(found, truth):
    for index, values in enumerate(truth):
        if not np.isin(values, (0, 1)).all():
            raise ValueError(f"Reference {index} holds other values than 0 and 1.")
    curves = [precision_recall(p, t) for p, t in zip(found, truth, strict=True)]
    result = {
        "miou": float(np.mean([image_iou(p > 0.5, t) for p, t in zip(found, truth, strict=True)])),
        "f": max_f(curves),
    }
    foreground = [bool(t.any()) for t in truth]
    if any(foreground):
        result["f_avsbench"] = avsbench_f(curves, foreground)
    return result, [published_binary_scores(t, p) for p, t in zip(found, truth, strict=True)]


def _semantic(found, truth, num_classes):
    if num_classes is None:
        raise ValueError("The number of classes is not known: expected compute(num_classes=...).")
    pairs = list(zip(truth, found, strict=True))
    counts = sum(confusions(t, f, num_classes, IGNORED) for t, f in pairs)
    return class_scores(counts), [published_scores(t, f, num_classes, IGNORED) for t, f in pairs]
