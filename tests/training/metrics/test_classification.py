"""Top-k accuracy, mean average precision and area under the ROC curve: by hand, properties, and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from deepavfusion.training.metrics.classification import (
    class_accuracy,
    class_average_precision,
    mean_average_precision,
    mean_roc_auc,
    most_frequent_scores,
    scored_classes,
    top_k_accuracy,
)


@pytest.fixture
def scores():
    return np.random.default_rng(3).standard_normal((60, 7))


@pytest.fixture
def targets():
    return np.random.default_rng(4).random((60, 7)) > 0.7


def test_top_k_by_hand():
    scores = np.array([[0.1, 0.5, 0.4], [0.9, 0.2, 0.3], [0.2, 0.3, 0.5], [0.5, 0.5, 0.1]])
    labels = np.array([1, 2, 0, 0])
    # Ranks of the true classes: 1, 2, 3, and 2, for a tie counts against it.
    assert [top_k_accuracy(scores, labels, k) for k in (1, 2, 3)] == [0.25, 0.75, 1.0]


def test_a_constant_model_gets_no_credit():
    assert top_k_accuracy(np.zeros((5, 4)), np.arange(4).repeat(2)[:5], 1) == 0


def test_mean_average_precision_and_auc_by_hand():
    # Class 0, best first: right, wrong, right, wrong -> AP (1 + 2/3) / 2, three of four pairs in order.
    # Class 1: wrong, wrong, right, right -> AP (1/3 + 1/2) / 2, no pair in order. Class 2 occurs nowhere.
    scores = np.array([[4.0, 1, 0], [3, 2, 0], [2, 3, 0], [1, 4, 0]])
    targets = np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    assert scored_classes(targets).tolist() == [True, True, False]
    assert mean_average_precision(scores, targets) == pytest.approx((5 / 6 + 5 / 12) / 2)
    assert mean_roc_auc(scores, targets) == pytest.approx((3 / 4 + 0) / 2)


def test_order_of_samples_and_classes_does_not_matter(scores, targets):
    generator = np.random.default_rng(0)
    rows, columns = generator.permutation(60), generator.permutation(7)
    for measure in (mean_average_precision, mean_roc_auc):
        expected = measure(scores, targets)
        assert measure(scores[rows][:, columns], targets[rows][:, columns]) == pytest.approx(expected)
        assert measure(np.exp(scores), targets) == pytest.approx(expected)  # any rising function of the scores
    labels = generator.integers(0, 7, 60)
    expected = top_k_accuracy(scores, labels, 3)
    assert top_k_accuracy(scores[rows], labels[rows], 3) == expected
    assert top_k_accuracy(scores[:, columns], np.argsort(columns)[labels], 3) == expected


def test_top_k_rises_with_k(scores):
    values = [top_k_accuracy(scores, np.arange(60) % 7, k) for k in range(1, 8)]
    assert np.all(np.diff(values) > 0)
    assert values[-1] == 1


def test_tied_scores_form_one_threshold():
    scores, targets = np.array([[1.0], [1.0], [0.0], [1.0]]), np.array([[1], [0], [1], [0]])
    assert mean_average_precision(scores, targets) == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 4)
    assert mean_roc_auc(scores, targets) == pytest.approx(0.5 * 0.5)


def test_top_k_is_that_of_scikit_learn_without_ties(scores):
    labels = np.arange(60) % 7
    for k in (1, 2, 5):
        assert top_k_accuracy(scores, labels, k) == top_k_accuracy_score(labels, scores, k=k)


def test_refusals(scores, targets):
    labels = np.arange(60) % 7
    broken = scores.copy()
    broken[11, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 60 samples contain NaN, first sample 11"):
        top_k_accuracy(broken, labels, 1)
    for measure in (mean_average_precision, mean_roc_auc):
        with pytest.raises(ValueError, match="sample 11"):
            measure(broken, targets)
        with pytest.raises(ValueError, match=r"got shapes \(60, 7\) and \(60, 6\)"):
            measure(scores, targets[:, 1:])
        with pytest.raises(ValueError, match="Nothing to score"):
            measure(scores, np.ones_like(targets))
        with pytest.raises(ValueError, match="Nothing to score"):
            measure(scores[:0], targets[:0])
    with pytest.raises(ValueError, match="N >= 1"):
        top_k_accuracy(scores[:0], labels[:0], 1)
    with pytest.raises(ValueError, match=r"and \(59,\)"):
        top_k_accuracy(scores, labels[1:], 1)
    with pytest.raises(ValueError, match=r"labels in 0\.\.6, got 0\.\.7"):
        top_k_accuracy(scores, np.arange(60) % 8, 1)
    with pytest.raises(ValueError, match="k in 1..7 .*, got 8"):
        top_k_accuracy(scores, labels, 8)


def test_scores_of_each_class():
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    targets = np.eye(3, dtype=bool)[[0, 0, 0, 1]]
    np.testing.assert_allclose(class_accuracy(scores, targets), [2 / 3, 1, np.nan])
    np.testing.assert_allclose(class_average_precision(scores, targets), [1, 1, np.nan])
    swapped = scores[:, [1, 0, 2]]
    np.testing.assert_allclose(class_average_precision(swapped, targets)[1], 1 / 4)


def test_scores_of_the_most_frequent_classes():
    targets = np.eye(7, dtype=bool)[[0, 0, 0, 1, 1, 2, 3, 4, 5, 6]]
    assert most_frequent_scores(targets, multi_label=False) == {"top1": 0.3, "top5": pytest.approx(0.8)}
    several = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 0, 0]], bool)
    assert most_frequent_scores(several, multi_label=True) == {"precision_at_1": 0.75}
