"""Classification as a module of `evaluate`: top-k accuracy, mean average precision, area under the ROC curve."""

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
Class scores against labels. single_label: top-k accuracy (ties count against the sample) and, one class versus the
rest, mean average precision and area under the ROC curve. multi_label: mean average precision, area under the ROC
curve, and precision at 1, the fraction of samples whose highest score is a true class. Means are over the classes with
positive and negative samples; their number and that of the other classes are returned.
"""
_INPUTS = """
Args:
    predictions: scores (classes,) of each sample: logits or probabilities.
    references: single_label: the class of each sample; multi_label: (classes,) 0 or 1.
    top_k: for `compute` with single_label: values of k, (1, 5) by default; skipped above the number of classes.
Returns:
    top1, top5 (single_label) or precision_at_1 (multi_label); map; auc: in 0..1. With single_label, map and auc are
    omitted if no class can be scored.
    num_samples, num_scored_classes, num_skipped_classes.
"""


class AudioVisualClassification(evaluate.Metric):
    """Top-k accuracy or precision at 1, mean average precision and area under the ROC curve; see `_DESCRIPTION`."""

    def _info(self):
        if self.config_name not in ("default", "single_label", "multi_label"):
            raise ValueError(
                f"Unknown configuration {self.config_name!r}. Valid configurations: 'single_label', 'multi_label'."
            )
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
                raise ValueError(
                    f"Expected predictions and references of the same shape, got {scores.shape} and {labels.shape}."
                )
            result = {
                "precision_at_1": float((labels[np.arange(len(labels)), scores.argmax(1)] > 0).mean()),
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
            "num_skipped_classes": scores.shape[1] - scored,
        }
