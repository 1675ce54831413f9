"""Linear probes and whitened nearest neighbors."""

import numpy as np
import pytest
import torch

from deepavfusion.training.metrics.knn import knn_probe
from deepavfusion.training.metrics.probes import linear_probe, linear_probes, whitened_knn_probe

RNG = np.random.default_rng(0)
CENTERS = RNG.standard_normal((4, 8))


def features(count, nuisance=0.0, seed=0):
    """Classes around four centers, with one direction of large variance that says nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    rows = CENTERS[labels] + 0.5 * rng.standard_normal((count, 8))
    return np.concatenate([rows, nuisance * rng.standard_normal((count, 2))], axis=1).astype(np.float32), labels


def test_a_linear_probe_finds_the_classes_in_spite_of_large_nuisances():
    (train, labels), (test, test_labels) = features(400, 100.0), features(300, 100.0, seed=1)
    assert linear_probe(train, labels, test, test_labels)["accuracy"] > 0.9
    shuffled = np.random.default_rng(1).permutation(labels)
    assert linear_probe(train, shuffled, test, test_labels)["accuracy"] < 0.5


def test_whitening_uncovers_neighbors_that_nuisances_hide():
    (train, _), (test, labels) = features(400, 100.0), features(300, 100.0, seed=1)
    raw = torch.nn.functional.normalize(torch.from_numpy(test), dim=-1)
    hidden = knn_probe({"image": raw}, torch.from_numpy(labels))["image"]["accuracy"]
    found = whitened_knn_probe({"image": train}, {"image": test}, torch.from_numpy(labels))["image"]["accuracy"]
    assert hidden < 0.5
    assert found > 0.8


def test_more_labels_help_and_all_streams_are_probed_together():
    (train, labels), (test, test_labels) = features(400), features(300, seed=1)
    halves = [{"left": rows[:, :3], "right": rows[:, 3:]} for rows in (train, test)]
    found = linear_probes(halves[0], labels, halves[1], test_labels, (12, 400))
    assert set(found) == {"left", "right", "all"}
    assert found["all"][400]["accuracy"] > found["all"][12]["accuracy"]
    assert found["all"][400]["accuracy"] > max(found[name][400]["accuracy"] for name in ("left", "right"))
    assert set(linear_probes({"left": train}, labels, {"left": test}, test_labels, (12,))) == {"left"}


def test_multi_label_data_are_scored_by_average_precision():
    (train, labels), (test, test_labels) = features(400), features(300, seed=1)
    train_labels, held_out = np.eye(4)[labels], np.eye(4)[test_labels]
    assert linear_probe(train, train_labels, test, held_out)["map"] > 0.9
    found = whitened_knn_probe({"image": train}, {"image": test}, torch.from_numpy(held_out))
    assert set(found["image"]) == {"map", "auc"}


def test_constant_features_are_survived():
    train, test = np.ones((20, 4), np.float32), np.ones((10, 4), np.float32)
    labels = np.arange(20) % 2
    assert linear_probe(train, labels, test, labels[:10])["accuracy"] == pytest.approx(0.5, abs=0.5)
