"""Recognition as a module of `evaluate`: top-k accuracy, mean average precision, area under the ROC."""

import datasets
import evaluate
import numpy as np

from deepavfusion.training.metrics.classification import (
    mean_average_precision,
    mean_roc_auc,
    scored_classes,
    top_k_accuracy,
)
from deepavfusion.training.metrics.inputs import rectangle

_DESCRIPTION = """\
Scores of classes against labels. single_label: share of samples whose class is among the k highest scores (ties count
against it), and, one class against the rest, mean average precision and area under the ROC. multi_label: mean average
precision, area under the ROC, and the share of samples whose highest score is a true class. Means over the classes that
are present in some samples and absent from others; how many those are, and how many were left out, is given.
"""
_INPUTS = """
Args:
    predictions: scores (classes,) of every sample: logits or probabilities.
    references: single_label: the class of every sample; multi_label: (classes,) 0 or 1.
    top_k: for `compute` with single_label: the cuts, (1, 5) by default; those above the number of classes are left out.
Returns:
    top1, top5 (single_label) or hit1 (multi_label); map; auc: in 0..1. map and auc are left out where no class can be
    scored with single_label.
    num_samples, num_scored_classes, num_left_out_classes.
"""


class AudioVisualClassification(evaluate.Metric):
    def _info(self):
        if self.config_name not in ("default", "single_label", "multi_label"):
            raise ValueError(f"The kind is {self.config_name!r}: expected 'single_label' or 'multi_label'.")
        scores = datasets.List(datasets.Value("float64"))
        several = datasets.List(datasets.Value("float32"))
        labels = several if self.config_name == "multi_label" else datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": scores, "references": labels}),
        )

    def _compute(self, predictions, references, top_k=(1, 5)):
        scores = rectangle(predictions, "Predictions")
        if self.config_name == "multi_label":
            labels = rectangle(references, "References")
            if scores.shape != labels.shape:
                raise ValueError(f"Predictions have shape {scores.shape}, references {labels.shape}.")
            result = {
                "hit1": float((labels[np.arange(len(labels)), scores.argmax(1)] > 0).mean()),
                "map": mean_average_precision(scores, labels),
                "auc": mean_roc_auc(scores, labels),
            }
        else:
            classes = np.asarray(references, np.int64)
            result = {f"top{k}": top_k_accuracy(scores, classes, k) for k in top_k if k <= scores.shape[1]}
            labels = np.arange(scores.shape[1]) == classes[:, None]
            if scored_classes(labels).any():
                result |= {"map": mean_average_precision(scores, labels), "auc": mean_roc_auc(scores, labels)}
        scored = int(scored_classes(labels).sum())
        return result | {
            "num_samples": len(scores),
            "num_scored_classes": scored,
            "num_left_out_classes": scores.shape[1] - scored,
        }
