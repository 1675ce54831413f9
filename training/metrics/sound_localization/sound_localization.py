"""Sound-source localization as a module of `evaluate`: consensus IoU, its success rate and AUC, detection scores."""

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.localization import (
    average_precision,
    centered_box,
    ciou,
    confidence,
    localization_auc,
    max_f1,
    slavc_average_precision,
    slavc_max_f1,
    success_rate,
    upper_half,
)
from deepavfusion.training.metrics.streaming import StreamingMetric

_DESCRIPTION = """\
Heat maps of sound sources against consensus maps of annotators' boxes. cIoU is the sum of the consensus within the
predicted area over the sum of the consensus plus the predicted area without consensus. ciou_50: fraction of images with
a cIoU of 0.5 or more; auc: area under that fraction over the thresholds 0, 0.05 ... 1. The predicted area is at or
above an absolute threshold or, in names starting with median_, at or above the map's own median (EZ-VSL's protocol).
All of these are over images with a sounding object. With negatives, whose consensus is 0 everywhere: ap and max_f1 over
confidences (mean of the top quarter of the map), where an image counts as correct if its cIoU at the absolute threshold
is 0.5 or more; a wrong location is both a false positive and a miss. slavc_ap and slavc_max_f1 are computed as in
SLAVC's published code, in which a wrong location is no miss, and over fewer thresholds.
Baselines: whole_ predicts the whole image, centre_ a centered box with half the height and width.
"""
_INPUTS = """
Args:
    predictions: heat maps (height, width) of each image, larger where it sounds.
    references: consensus maps (height, width) in 0..1; 0 everywhere if no visible object sounds.
    threshold: for `load`: the absolute threshold, 0.5 by default.
Returns:
    ciou_50, auc, median_ciou_50, median_auc, whole_ciou_50, whole_auc, centre_ciou_50, centre_auc: in 0..1.
    ap, max_f1, slavc_ap, slavc_max_f1: in 0..1, if there are negatives.
    num_sounding, num_negatives.
"""
_CITATION = """\
@inproceedings{senocak2018learning, title={Learning to localize sound source in visual scenes},
  author={Senocak, Arda and Oh, Tae-Hyun and Kim, Junsik and Yang, Ming-Hsuan and Kweon, In So}, booktitle={CVPR},
  year={2018}}
@inproceedings{mo2022localizing, title={Localizing visual sounds the easy way}, author={Mo, Shentong and
  Morgado, Pedro}, booktitle={ECCV}, year={2022}}
@inproceedings{mo2022closer, title={A closer look at weakly-supervised audio-visual source localization},
  author={Mo, Shentong and Morgado, Pedro}, booktitle={NeurIPS}, year={2022}}
"""


_AREAS = ("", "median_", "whole_", "centre_")


class SoundLocalization(StreamingMetric, evaluate.Metric):
    """cIoU success rates, AUC, AP and max-F1 of heat maps; see `_DESCRIPTION`."""

    def __init__(self, *args, threshold: float = 0.5, **kwargs):
        self.threshold = threshold
        super().__init__(*args, **kwargs)

    def _info(self):
        image = datasets.List(datasets.List(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": image, "references": image}),
        )

    def _row(self, index, prediction, reference):
        """Statistics: cIoU of each predicted area, confidence. Kind: whether something sounds."""
        heat, target = rectangle(prediction, f"Prediction {index}"), rectangle(reference, f"Reference {index}")
        areas = (heat >= self.threshold, upper_half(heat), np.ones(target.shape, bool), centered_box(target.shape))
        return [*(ciou(area, target) for area in areas), confidence(heat)], bool(target.any())

    def _compute(self, predictions, references):
        rows, sounding = np.array(predictions), np.array(references, bool)
        if not sounding.any():
            raise ValueError(f"Nothing to localize: none of {len(rows)} images has a sounding object.")
        result = {}
        for name, values in zip(_AREAS, rows[sounding].T, strict=False):
            result |= {f"{name}ciou_50": success_rate(values), f"{name}auc": localization_auc(values)}
        if not sounding.all():
            detections = rows[:, -1], sounding & (rows[:, 0] >= 0.5), sounding
            result |= {
                "ap": average_precision(*detections),
                "max_f1": max_f1(*detections),
                "slavc_ap": slavc_average_precision(*detections),
                "slavc_max_f1": slavc_max_f1(*detections),
            }
        return result | {"num_sounding": int(sounding.sum()), "num_negatives": int((~sounding).sum())}
