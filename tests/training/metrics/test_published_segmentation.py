"""Segmentation metrics of the published code: its own numbers, cases by hand, and differences from the usual ones."""

import numpy as np
import pytest

from deepavfusion.training.metrics.published_segmentation import (
    published_binary_scores,
    published_scores,
    published_summary,
)
from deepavfusion.training.metrics.segmentation import f_measure, image_iou, precision_recall
from tests.golden_files import load_golden

NAMES = {"miou": "miou", "precision": "precision", "recall": "recall", "fscore": "f"}


def _published(numbers):
    """Our names -> the published numbers."""
    found = {}
    for theirs, value in numbers.items():
        name, _, without = theirs.partition("_")
        found[NAMES[name] + ("_no_background" if without else "")] = value
    return found


def _batches(golden, kind):
    for batch in (0, 1):
        yield golden.inputs[f"{kind}.logits_{batch}"], golden.inputs[f"{kind}.target_{batch}"].numpy()


def test_published_numbers_of_binary_masks():
    golden = load_golden("segmentation_metrics")
    scores = [
        published_binary_scores(truth, probability)
        for logits, targets in _batches(golden, "binary")
        for truth, probability in zip(targets, logits[:, 0].sigmoid().numpy(), strict=True)
    ]
    assert sum(part is None for part in scores) == 1  # one of the images has no foreground
    assert published_summary(scores) == pytest.approx(_published(golden.config["binary"]), abs=1e-6)


def test_published_numbers_of_classes():
    golden = load_golden("segmentation_metrics")
    scores = [
        published_scores(truth, found, 5)
        for logits, targets in _batches(golden, "semantic")
        for truth, found in zip(targets, logits.argmax(1).numpy(), strict=True)
    ]
    assert published_summary(scores) == pytest.approx(_published(golden.config["semantic"]), abs=1e-6)


def test_classes_by_hand():
    first = published_scores(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 2]]), 3)
    np.testing.assert_allclose(first[:3, :2], [[1 / 2, 1 / 2], [1, 1 / 2], [1 / 2, 1]])
    assert np.isnan(first[:, 2]).all()  # predicted in an ignored pixel only
    second = published_scores(np.array([[2, 2, 0, 0]]), np.array([[2, 2, 0, 0]]), 3)
    summary = published_summary([first, None, second])
    # Class 0 in two images, classes 1 and 2 in one each.
    assert summary["miou"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert summary["miou_no_background"] == pytest.approx((1 / 2 + 1) / 2)
    assert summary["f"] == pytest.approx(((f_measure(1, 1 / 2) + 1) / 2 + f_measure(1 / 2, 1) + 1) / 3)
    assert published_scores(np.zeros((2, 2)), np.ones((2, 2)), 3) is None


def test_binary_by_hand():
    truth, probability = np.array([[1, 1, 0, 0]]), np.array([[0.9, 0.4, 0.3, 0.6]])
    scores = published_binary_scores(truth, probability)
    np.testing.assert_allclose(scores[:3], [[1 / 3, 1 / 3], [1 / 2, 1 / 2], [1 / 2, 1 / 2]])
    # Of the thresholds, 0.6 < t <= 0.9 is best: precision 1, recall 1/2.
    np.testing.assert_allclose(scores[3], f_measure(1, 1 / 2))


def test_what_it_leaves_out_and_what_it_takes_in():
    generator = np.random.default_rng(0)
    truth = (generator.random((6, 16, 16)) > 0.7).astype(int)
    probability = np.clip(0.4 * truth + 0.6 * generator.random(truth.shape), 0, 1)
    scores = [published_binary_scores(t, p) for t, p in zip(truth, probability, strict=True)]
    summary = published_summary(scores)
    # Without the background its mIoU is the usual one, as long as every image has foreground.
    field = np.mean([image_iou(p > 0.5, t) for t, p in zip(truth, probability, strict=True)])
    assert summary["miou_no_background"] == pytest.approx(field)
    # An empty image changes nothing, and each image's best threshold is at least as good as a common one.
    assert published_summary([*scores, published_binary_scores(0 * truth[0], probability[0])]) == summary
    curves = np.array([precision_recall(p, t) for t, p in zip(truth, probability, strict=True)])
    assert summary["f"] > f_measure(curves[:, 0], curves[:, 1]).mean(0).max()


def test_ignored_pixels_do_not_count():
    truth, probability = np.array([[1, 0, 0, 255]]), np.array([[0.9, 0.2, 0.7, 0.8]])
    cut = published_binary_scores(truth[:, :3], probability[:, :3])
    np.testing.assert_array_equal(published_binary_scores(truth, probability), cut)


def test_refusals():
    with pytest.raises(ValueError, match="none of 2 images has foreground"):
        published_summary([None, None])
    with pytest.raises(ValueError, match="none of 0 images"):
        published_summary([])
    with pytest.raises(ValueError, match="are these logits"):
        published_binary_scores(np.ones((2, 2)), np.full((2, 2), 3.0))
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        published_binary_scores(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"classes 0\.\.2"):
        published_scores(np.array([[3]]), np.array([[0]]), 3)
