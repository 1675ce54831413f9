"""Segmentation metrics: by hand, properties, and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from deepavfusion.training.metrics.segmentation import (
    F_THRESHOLDS,
    avsbench_f,
    class_scores,
    class_totals,
    f_measure,
    image_iou,
    max_f,
    precision_recall,
    scores_per_class,
)


@pytest.fixture
def maps():
    """Probabilities (6, 12, 10) that know something of the truth (6, 12, 10)."""
    generator = np.random.default_rng(8)
    truth = generator.random((6, 12, 10)) > 0.6
    return np.clip(0.3 * truth + 0.7 * generator.random(truth.shape), 0, 1), truth


def test_iou_by_hand():
    found = np.array([[1, 1, 0], [0, 0, 0]], bool)
    truth = np.array([[0, 1, 1], [0, 0, 0]], bool)
    assert image_iou(found, truth) == pytest.approx(1 / 3)
    assert image_iou(truth, truth) == 1
    # Without foreground: the fraction of pixels predicted as background.
    assert image_iou(found, np.zeros_like(truth)) == pytest.approx(4 / 6)


def test_f_by_hand():
    assert f_measure(0.5, 1.0) == pytest.approx(1.3 * 0.5 / (0.15 + 1))
    assert f_measure(0.0, 0.0) == 0
    probability = np.array([[0.9, 0.6], [0.3, 0.1]])
    curve = precision_recall(probability, np.array([[True, False], [True, False]]))
    at = {threshold: curve[:, np.searchsorted(F_THRESHOLDS, threshold)] for threshold in (0.0, 0.2, 0.5, 0.8, 0.95)}
    expected = {0.0: (1 / 2, 1), 0.2: (2 / 3, 1), 0.5: (1 / 2, 1 / 2), 0.8: (1, 1 / 2), 0.95: (0, 0)}
    for threshold, values in expected.items():
        np.testing.assert_allclose(at[threshold], values, err_msg=str(threshold))
    assert max_f([curve]) == pytest.approx(1.3 * 0.5 / (0.3 + 0.5))


def test_the_two_means_of_f_by_hand():
    # Precision 1, recall 1/2, and precision 1/2, recall 1, at all thresholds; the third image has no foreground.
    curves = [np.repeat([[1.0], [0.5]], 255, 1), np.repeat([[0.5], [1.0]], 255, 1), np.zeros((2, 255))]
    assert max_f(curves[:2]) == pytest.approx(1.3 * 0.75**2 / (1.3 * 0.75))
    mean = (1.3 * 0.5 / (0.3 + 0.5) + 1.3 * 0.5 / (0.15 + 1)) / 2
    assert avsbench_f(curves, [True, True, False]) == pytest.approx(mean)
    assert avsbench_f(curves, [True, True, True]) == pytest.approx(mean * 2 / 3)


def test_pixels_may_be_in_any_order(maps):
    probability, truth = maps[0][0], maps[1][0]
    order = np.random.default_rng(0).permutation(truth.size)
    moved = [values.ravel()[order].reshape(truth.shape) for values in (probability, truth)]
    np.testing.assert_array_equal(precision_recall(*moved), precision_recall(probability, truth))
    assert image_iou(moved[0] > 0.5, moved[1]) == image_iou(probability > 0.5, truth)


def test_recall_falls_with_the_threshold_and_iou_with_errors(maps):
    probability, truth = maps[0][0], maps[1][0]
    assert np.all(np.diff(precision_recall(probability, truth)[1]) <= 0)
    found = truth.copy()
    values = [image_iou(found, truth)]
    for pixel in np.random.default_rng(0).permutation(truth.size)[:20]:
        found.flat[pixel] = ~truth.flat[pixel]
        values.append(image_iou(found, truth))
    assert np.all(np.diff(values) < 0)


def test_classes_by_hand():
    truth = np.array([[0, 0, 1, 1], [2, 2, 255, 255]])
    found = np.array([[0, 1, 1, 1], [2, 0, 2, 3]])
    totals = class_totals(truth, found, 4)
    np.testing.assert_array_equal(totals, [[1, 2, 1, 0], [2, 2, 2, 0], [2, 3, 1, 0]])
    np.testing.assert_array_equal(class_totals(truth, found), totals[:, :3])
    scores = class_scores(totals)
    # Class 3 is predicted in an ignored pixel only.
    assert scores["miou"] == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)
    assert scores["f"] == pytest.approx(np.mean([f_measure(1 / 2, 1 / 2), f_measure(2 / 3, 1), f_measure(1, 1 / 2)]))


def test_names_of_classes_do_not_matter():
    generator = np.random.default_rng(2)
    truth, found = generator.integers(0, 5, (2, 20, 20))
    order = generator.permutation(5)
    assert class_scores(class_totals(order[truth], order[found])) == pytest.approx(
        class_scores(class_totals(truth, found))
    )


def test_totals_are_the_margins_of_the_confusion_matrix():
    generator = np.random.default_rng(4)
    truth, found = generator.integers(0, 6, (2, 15, 15))
    truth[:3] = 255
    counts = metrics.confusion_matrix(truth[3:].ravel(), found[3:].ravel(), labels=range(8))
    expected = np.stack([np.diag(counts), counts.sum(1), counts.sum(0)])
    np.testing.assert_array_equal(class_totals(truth, found, 8), expected)
    assert class_totals(np.full((2, 2), 255), np.ones((2, 2))).shape == (3, 0)


def test_same_as_scikit_learn(maps):
    for probability, truth in zip(*maps, strict=True):
        found = probability > 0.5
        assert image_iou(found, truth) == pytest.approx(metrics.jaccard_score(truth.ravel(), found.ravel()))
        curve = precision_recall(probability, truth)
        for index in (20, 100, 180):
            precision, recall, f, _ = metrics.precision_recall_fscore_support(
                truth.ravel(), probability.ravel() >= F_THRESHOLDS[index], beta=0.3**0.5, average="binary"
            )
            np.testing.assert_allclose(curve[:, index], (precision, recall))
            assert f_measure(*curve[:, index]) == pytest.approx(f)
    truth, found = np.random.default_rng(3).integers(0, 5, (2, 900))
    expected = (
        metrics.jaccard_score(truth, found, average="macro"),
        metrics.fbeta_score(truth, found, beta=0.3**0.5, average="macro"),
    )
    assert tuple(class_scores(class_totals(truth, found)).values()) == pytest.approx(expected)


def test_refusals(maps):
    probability, truth = maps[0][0], maps[1][0]
    with pytest.raises(ValueError, match=r"\(10, 12\) and \(12, 10\)"):
        image_iou(truth.T, truth)
    with pytest.raises(ValueError, match="non-empty"):
        image_iou(truth[:0], truth[:0])
    with pytest.raises(ValueError, match=r"\(10, 12\) and \(12, 10\)"):
        precision_recall(probability.T, truth)
    with pytest.raises(ValueError, match="are these logits"):
        precision_recall(10 * probability - 5, truth)
    with pytest.raises(ValueError, match="without NaN"):
        precision_recall(np.where(truth, np.nan, probability), truth)
    with pytest.raises(ValueError, match="at least one image"):
        max_f([])
    with pytest.raises(ValueError, match="none of 1 images has foreground"):
        avsbench_f([np.zeros((2, 255))], [False])
    with pytest.raises(ValueError, match="got 1 curves"):
        avsbench_f([np.zeros((2, 255))], [True, True])
    labels = truth.astype(int)
    with pytest.raises(ValueError, match=r"classes 0\.\.1, .* predictions in 0\.\.7"):
        class_totals(labels, 7 * labels, 2)
    with pytest.raises(ValueError, match=r"\(120,\) and \(12, 10\)"):
        class_totals(labels, labels.ravel(), 2)
    with pytest.raises(ValueError, match=r"predictions in -1\.\.0"):
        class_totals(labels, -labels)
    with pytest.raises(ValueError, match=r"\(3, classes\), got shape \(2, 4\)"):
        class_scores(np.ones((2, 4)))
    with pytest.raises(ValueError, match="every pixel is ignored"):
        class_scores(class_totals(np.full((4, 4), 255), np.zeros((4, 4)), 3))


def test_scores_of_each_class():
    target = np.array([[0, 0, 1, 1], [0, 0, 1, 3]])
    predicted = np.array([[0, 0, 1, 0], [0, 0, 1, 1]])
    totals = class_totals(target, predicted, 5)
    found = scores_per_class(totals)
    np.testing.assert_allclose(found["iou"], [4 / 5, 2 / 4, np.nan, 0, np.nan])
    assert np.isnan(found["f"]).tolist() == [False, False, True, False, True]
    assert class_scores(totals) == pytest.approx({"miou": np.nanmean(found["iou"]), "f": np.nanmean(found["f"])})
