"""Sound localization as a module of `evaluate`: consensus IoU, its success and AUC, and detection with negatives."""

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.inputs import rectangle
from deepavfusion.training.metrics.localization import (
    average_precision,
    centred_box,
    ciou,
    confidence,
    localization_auc,
    max_f1,
    slavc_average_precision,
    slavc_max_f1,
    success_rate,
    upper_half,
)
from deepavfusion.training.metrics.rows import KeepsRows

_DESCRIPTION = """\
Maps of where the sound comes from, against consensus maps of annotators' boxes. cIoU is the sum of the consensus within
the found area over the sum of the consensus plus the found area without any. ciou_50: share of pictures whose cIoU
reaches 0.5; auc: area under that share over the thresholds 0, 0.05 ... 1. The found area is at or above an absolute
threshold, or, in names that start with median_, at or above the middle of the map's own values (EZ-VSL's protocol).
These are of the pictures with something that sounds. With negatives, whose consensus is 0 everywhere: ap and max_f1
over confidences (mean of the top quarter of the map), a picture being found where its cIoU at the absolute threshold
reaches 0.5; one that is found in the wrong place is a false alarm and missed. slavc_ap and slavc_max_f1 are those of
SLAVC's published code, in which such a picture is not missed, and which looks at fewer thresholds.
Controls: whole_ finds the whole picture, centre_ a box of half its sides in the middle.
"""
_INPUTS = """
Args:
    predictions: maps (height, width) of every picture, larger where it sounds.
    references: consensus maps (height, width) in 0..1; 0 everywhere where nothing in sight sounds.
    threshold: for `load`: the absolute threshold, 0.5 by default.
Returns:
    ciou_50, auc, median_ciou_50, median_auc, whole_ciou_50, whole_auc, centre_ciou_50, centre_auc: in 0..1.
    ap, max_f1, slavc_ap, slavc_max_f1: in 0..1, where there are negatives.
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


class SoundLocalization(KeepsRows, evaluate.Metric):
    def __init__(self, *args, threshold: float = 0.5, **kwargs):
        self.threshold = threshold
        super().__init__(*args, **kwargs)

    def _info(self):
        picture = datasets.List(datasets.List(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": picture, "references": picture}),
        )

    def _row(self, index, prediction, reference):
        """cIoU of every found area, confidence; whether something sounds."""
        heat, truth = rectangle(prediction, f"Prediction {index}"), rectangle(reference, f"Reference {index}")
        areas = (heat >= self.threshold, upper_half(heat), np.ones(truth.shape, bool), centred_box(truth.shape))
        return [*(ciou(area, truth) for area in areas), confidence(heat)], bool(truth.any())

    def _compute(self, predictions, references):
        rows, sounding = np.array(predictions), np.array(references, bool)
        if not sounding.any():
            raise ValueError(f"Nothing sounds in any of the {len(rows)} pictures: there is nothing to localize.")
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
