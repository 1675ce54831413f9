"""Nearest-neighbor probe against brute force, its scores against scikit-learn."""

import pytest
import torch
from sklearn import metrics

from deepavfusion.training.metrics.knn import (
    chance,
    knn_probe,
    nearest_neighbors,
    pool_streams,
)


def unit(rows, dim, seed):
    values = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=-1)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_neighbors_equal_brute_force(chunk):
    streams = [unit(23, 5, 0), unit(23, 4, 1)]
    indices, values = nearest_neighbors(streams, chunk=chunk)
    for row in range(23):
        scores = [sum(float(s[row] @ s[other]) for s in streams) if other != row else -9.0 for other in range(23)]
        assert int(indices[row]) == max(range(23), key=scores.__getitem__)
        assert float(values[row]) == pytest.approx(max(scores), abs=1e-5)


def test_a_clip_is_not_its_own_neighbor():
    features = unit(4, 3, 0)[[0, 0, 1, 1]]
    assert nearest_neighbors([features])[0].tolist() == [1, 0, 3, 2]


def test_one_clip_has_no_neighbor():
    with pytest.raises(ValueError, match="at least two"):
        nearest_neighbors([unit(1, 3, 0)])


def test_accuracy_of_every_stream():
    clustered = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=-1)
    crossed = clustered[[0, 2, 1, 3]]
    scores = knn_probe({"fusion": clustered, "image": crossed, "audio": clustered}, torch.tensor([0, 0, 1, 1]))
    assert scores == {
        "fusion": {"accuracy": 1.0},
        "image": {"accuracy": 0.0},
        "audio": {"accuracy": 1.0},
        "all": {"accuracy": 1.0},
    }


def test_multi_label_scores_are_the_neighbors_labels_times_similarity():
    features = {"fusion": unit(40, 6, 0), "image": unit(40, 6, 1), "audio": unit(40, 6, 2)}
    labels = (torch.rand(40, 5, generator=torch.Generator().manual_seed(3)) < 0.3).long()
    labels[:, 4] = 0  # a class nobody has is left out
    indices, similarity = nearest_neighbors([features["image"]])
    predicted = (labels[indices] * similarity[:, None]).numpy()[:, :4]
    scores = knn_probe(features, labels)
    expected = metrics.average_precision_score(labels[:, :4].numpy(), predicted, average="macro")
    assert scores["image"]["map"] == pytest.approx(expected, abs=1e-6)
    assert scores["image"]["auc"] == pytest.approx(metrics.roc_auc_score(labels[:, :4].numpy(), predicted), abs=1e-6)


def test_chance_is_what_random_neighbors_score():
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    others = [(labels[[j for j in range(10) if j != i]] == labels[i]).double().mean() for i in range(10)]
    assert chance(labels)["accuracy"] == pytest.approx(float(sum(others) / 10))
    assert chance(torch.tensor([[1, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]])) == {
        "map": pytest.approx((0.75 + 0.5) / 2),
        "auc": 0.5,
    }


def test_pooling_is_mean_over_tokens_at_unit_length():
    class Outputs:
        last_hidden_state = torch.arange(12.0).reshape(1, 3, 4)
        image_last_hidden_state = -torch.arange(8.0).reshape(1, 2, 4)
        audio_last_hidden_state = torch.ones(1, 5, 4)

    pooled = pool_streams(Outputs())
    mean = torch.tensor([4.0, 5.0, 6.0, 7.0])
    torch.testing.assert_close(pooled["fusion"][0], mean / mean.norm())
    torch.testing.assert_close(pooled["audio"][0], torch.full((4,), 0.5))
    assert float(pooled["image"].norm()) == pytest.approx(1.0)
