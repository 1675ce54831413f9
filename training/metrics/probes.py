"""What frozen features know of the labels: linear probes with few labels, and nearest neighbors after whitening.

Raw features are ruled by a few directions of large variance, which need not be those of the classes. Both probes here
are fitted on clips of the training split and scored on held-out ones.
"""

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.linear_model import RidgeClassifierCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .classification import mean_average_precision
from .knn import knn_probe

_STRENGTHS = np.logspace(0, 5, 11)
_SHRINKAGE = 1e-3  # of the largest variance: directions of less hold noise


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Fit a ridge classifier on standardized features; leave-one-out errors choose its strength.

    Args:
        train: (N, D) features.
        train_labels: (N,) class indices, or (N, C) 0/1 for multi-label data.
        test: (M, D) features.
        test_labels: Labels of `test`.

    Returns:
        {"accuracy"} or {"map"} on `test`, in 0..1.
    """
    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(alphas=_STRENGTHS)).fit(train, train_labels)
    if train_labels.ndim == 1:
        return {"accuracy": float((probe.predict(test) == test_labels).mean())}
    return {"map": mean_average_precision(probe.decision_function(test), test_labels)}


def linear_probes(
    train: dict[str, np.ndarray],
    train_labels: np.ndarray,
    test: dict[str, np.ndarray],
    test_labels: np.ndarray,
    num_labels: Sequence[int],
) -> dict[str, dict[int, dict[str, float]]]:
    """Fit `linear_probe` for each stream, and for all of them together ("all"), on the first labels of `train`.

    Args:
        train: Stream name -> (N, D) features.
        train_labels: Labels of `train`.
        test: Stream name -> (M, D) features.
        test_labels: Labels of `test`.
        num_labels: Numbers of labels to fit on, each at most N.

    Returns:
        Stream name -> number of labels -> metrics.
    """
    streams = {name: (train[name], test[name]) for name in train}
    if len(train) > 1:
        streams["all"] = tuple(np.concatenate([part[name] for name in train], axis=1) for part in (train, test))
    return {
        name: {count: linear_probe(given[:count], train_labels[:count], held_out, test_labels) for count in num_labels}
        for name, (given, held_out) in streams.items()
    }


def whitened_knn_probe(
    train: dict[str, np.ndarray], test: dict[str, np.ndarray], test_labels: torch.Tensor
) -> dict[str, dict[str, float]]:
    """`knn_probe` of held-out features that are whitened by the mean and covariance of the training split.

    Args:
        train: Stream name -> (N, D) features.
        test: Stream name -> (M, D) features.
        test_labels: (M,) class indices, or (M, C) 0/1 for multi-label data.
    """
    features = {}
    for name, given in train.items():
        mean = given.mean(axis=0)
        variances, directions = np.linalg.eigh(np.cov(given - mean, rowvar=False))
        scale = 1 / np.sqrt(np.maximum(variances, 0) + _SHRINKAGE * variances.max())
        whitened = torch.from_numpy((test[name] - mean) @ directions * scale)
        features[name] = torch.nn.functional.normalize(whitened, dim=-1).float()
    return knn_probe(features, test_labels)


__all__ = ["linear_probe", "linear_probes", "whitened_knn_probe"]
