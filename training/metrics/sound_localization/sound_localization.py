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
    success_rate,
)

_DESCRIPTION = """\
Maps of where the sound comes from, against consensus maps of annotators' boxes. cIoU is the sum of the consensus within
the found area over the sum of the consensus plus the found area without any. ciou_50: share of pictures whose cIoU
reaches 0.5; auc: area under that share over the thresholds 0, 0.05 ... 1. The found area lies above an absolute
threshold, or, in names that start with median_, above the map's own median (EZ-VSL's protocol). Over pictures with
something that sounds. With negatives, whose consensus is 0 everywhere: ap and max_f1 over confidences (mean of the top
quarter of the map), a picture being found where its cIoU at the absolute threshold reaches 0.5 (SLAVC's protocol).
Controls: whole_ finds the whole picture, centre_ a box of half its sides in the middle.
"""
_INPUTS = """
Args:
    predictions: maps (height, width) of every picture, larger where it sounds.
    references: consensus maps (height, width) in 0..1; 0 everywhere where nothing in sight sounds.
    threshold: for `compute`: the absolute threshold, 0.5 by default.
Returns:
    ciou_50, auc, median_ciou_50, median_auc, whole_ciou_50, whole_auc, centre_ciou_50, centre_auc: in 0..1.
    ap, max_f1: in 0..1, where there are negatives.
    num_sounding, num_negatives.
"""
_CITATION = """\
@inproceedings{senocak2018learning, title={Learning to localize sound source in visual scenes},
  author={Senocak, Arda and Oh, Tae-Hyun and Kim, Junsik and Yang, Ming-Hsuan and Kweon, In So}, booktitle={CVPR},
  year={2018}}
@inproceedings{mo2022closer, title={A closer look at weakly-supervised audio-visual source localization},
  author={Mo, Shentong and Morgado, Pedro}, booktitle={NeurIPS}, year={2022}}
"""


class SoundLocalization(evaluate.Metric):
    def _info(self):
        picture = datasets.List(datasets.List(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": picture, "references": picture}),
        )

    def _compute(self, predictions, references, threshold=0.5):
        if not len(references):
            raise ValueError("There is no picture to score.")
        heats = [rectangle(rows, f"Prediction {i}") for i, rows in enumerate(predictions)]
        truths = [rectangle(rows, f"Reference {i}") for i, rows in enumerate(references)]
        sounding = np.array([bool(truth.any()) for truth in truths])
        if not sounding.any():
            raise ValueError(f"Nothing sounds in any of the {len(truths)} pictures: there is nothing to localize.")
        found = {
            "": [heat > threshold for heat in heats],
            "median_": [heat > np.median(heat) for heat in heats],
            "whole_": [np.ones(truth.shape, bool) for truth in truths],
            "centre_": [centred_box(truth.shape) for truth in truths],
        }
        values = {
            name: np.array([ciou(area, truth) for area, truth in zip(areas, truths, strict=True)])
            for name, areas in found.items()
        }
        result = {}
        for name, column in values.items():
            result[f"{name}ciou_50"] = success_rate(column[sounding])
            result[f"{name}auc"] = localization_auc(column[sounding])
        if not sounding.all():
            sure, correct = np.array([confidence(heat) for heat in heats]), sounding & (values[""] >= 0.5)
            result |= {"ap": average_precision(sure, correct, sounding), "max_f1": max_f1(sure, correct, sounding)}
        return result | {"num_sounding": int(sounding.sum()), "num_negatives": int((~sounding).sum())}
