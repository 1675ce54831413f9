"""cIoU, success rates, and detection with negatives: by hand, properties, and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from deepavfusion.training.metrics.localization import (
    average_precision,
    centered_box,
    ciou,
    confidence,
    localization_auc,
    max_f1,
    slavc_average_precision,
    slavc_max_f1,
    success_rate,
    upper_half,
)


def test_ciou_by_hand():
    consensus = np.array([[1, 0.5, 0], [0, 0, 0]])
    found = np.array([[1, 0, 1], [1, 0, 0]], bool)
    assert ciou(found, consensus) == pytest.approx(1 / (1.5 + 2))
    assert ciou(consensus > 0, consensus) == 1
    assert ciou(np.zeros_like(found), consensus) == 0
    assert ciou(found, np.zeros_like(consensus)) == 0
    assert ciou(np.zeros_like(found), np.zeros_like(consensus)) == 0


def test_ciou_of_certain_maps_is_the_iou():
    found, truth = np.random.default_rng(0).random((2, 20, 20)) > 0.6
    assert ciou(found, truth) == pytest.approx(metrics.jaccard_score(truth.ravel(), found.ravel()))


def test_ciou_falls_with_every_false_pixel():
    consensus = np.zeros((10, 10))
    consensus[2:8, 2:6] = 1
    found = consensus > 0
    values = [ciou(found, consensus)]
    for pixel in np.flatnonzero(consensus == 0)[::7]:
        found.flat[pixel] = True
        values.append(ciou(found, consensus))
    assert np.all(np.diff(values) < 0)


def test_success_and_auc_by_hand():
    values = [1.0, 0.5, 0.25, 0.0]
    assert success_rate(values) == 0.5
    assert success_rate(values, 0.51) == 0.25
    # Success is 1 at 0, 3/4 for 0.05 .. 0.25, 1/2 for 0.3 .. 0.5, 1/4 for 0.55 .. 1.
    curve = [1] + 5 * [0.75] + 5 * [0.5] + 10 * [0.25]
    assert localization_auc(values) == pytest.approx(0.05 * (sum(curve) - (curve[0] + curve[-1]) / 2))
    assert localization_auc([1.0]) == 1


def test_centered_box_has_half_the_sides():
    box = centered_box((8, 12))
    assert box.sum() == 4 * 6
    assert box[2:6, 3:9].all()


def test_the_upper_half_of_a_map():
    heat = np.random.default_rng(0).permutation(24).reshape(4, 6)
    np.testing.assert_array_equal(upper_half(heat), heat >= 12)
    np.testing.assert_array_equal(upper_half(0.1 * heat - 7), heat >= 12)
    assert upper_half([[3.0, 1.0, 2.0]]).tolist() == [[True, False, True]]
    assert upper_half([[5.0, 5.0, 5.0, 9.0]]).all()  # equal values fall on one side
    with pytest.raises(ValueError, match="NaN or infinity"):
        upper_half([[1.0, np.nan]])


def test_confidence_is_the_mean_of_the_top_quarter():
    heat = np.arange(16.0).reshape(4, 4)
    assert confidence(heat) == pytest.approx((12 + 13 + 14 + 15) / 4)
    assert confidence(heat.T[::-1]) == confidence(heat)
    assert confidence([[3.0, 1.0]]) == 3


def test_detection_by_hand():
    confidences = np.array([0.9, 0.8, 0.8, 0.6, 0.3])
    correct = np.array([True, False, True, False, True])
    sounding = np.array([True, False, True, True, True])
    # At 0.9, 0.8, 0.6, 0.3: precision 1, 2/3, 1/2, 3/5, recall 1/4, 2/4, 2/4, 3/4.
    assert average_precision(confidences, correct, sounding) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert max_f1(confidences, correct, sounding) == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    for measure in (average_precision, max_f1):
        assert measure(confidences, np.zeros(5, bool), sounding) == 0


def _slavc_by_counting(thresholds, sure, correct, sounding):
    """Precision and recall, counted image by image."""
    for threshold in thresholds:
        right = wrong = silent = 0
        for confidence_, found, there in zip(sure, correct, sounding, strict=True):
            if confidence_ >= threshold:
                right, wrong = right + found, wrong + (not found)
            else:
                silent += there
        yield (right / (right + wrong) if right + wrong else 1.0), (right / (right + silent) if right + silent else 1.0)


def test_detection_as_slavc_counts_it_by_hand():
    confidences = np.array([0.9, 0.8, 0.7, 0.6, 0.3])
    correct = np.array([True, False, False, True, True])
    sounding = np.array([True, False, True, True, True])
    # At 0.8: 1/2, 1/4. At 0.7, where the wrong location is no longer missed: 1/3, 1/3. At 0.6: 1/2, 2/3.
    # At 0.3: 3/5, 1, which is the largest precision of all.
    assert slavc_average_precision(confidences, correct, sounding) == pytest.approx(0.6 * (1 - 1 / 4))
    assert slavc_max_f1(confidences, correct, sounding) == pytest.approx(2 * 0.6 / 1.6)
    # A wrong location lowers recall in the usual count only.
    assert max_f1(confidences, correct, sounding) == pytest.approx(2 * 0.6 * 0.75 / 1.35)


@pytest.mark.parametrize("count", [7, 43, 450])
def test_detection_as_slavc_counts_it_image_by_image(count):
    generator = np.random.default_rng(count)
    sure, sounding = np.round(generator.random(count), 2 if count < 400 else 9), generator.random(count) > 0.3
    correct = sounding & (generator.random(count) > 0.4)
    thresholds = sorted(sure)
    pairs = list(_slavc_by_counting(thresholds[-2 :: -max(1, count // 200)], sure, correct, sounding))
    expected = sum(
        max(precision for precision, _ in pairs[i:]) * (pairs[i + 1][1] - pairs[i][1]) for i in range(len(pairs) - 1)
    )
    assert slavc_average_precision(sure, correct, sounding) == pytest.approx(expected)
    pairs = _slavc_by_counting(thresholds[:: max(1, count // 10)], sure, correct, sounding)
    assert slavc_max_f1(sure, correct, sounding) == pytest.approx(max(2 * p * r / (p + r or 1) for p, r in pairs))


def test_order_and_rising_functions_of_the_confidence_do_not_matter():
    generator = np.random.default_rng(1)
    sure, sounding = np.round(generator.random(80), 1), generator.random(80) > 0.3
    correct = sounding & (generator.random(80) > 0.4)
    order = generator.permutation(80)
    for measure in (average_precision, max_f1, slavc_average_precision, slavc_max_f1):
        expected = measure(sure, correct, sounding)
        assert measure(sure[order], correct[order], sounding[order]) == pytest.approx(expected)
        assert measure(np.exp(3 * sure), correct, sounding) == pytest.approx(expected)


@pytest.mark.parametrize("decimals", [1, 9])
def test_same_as_scikit_learn_if_every_sounding_object_is_localized(decimals):
    generator = np.random.default_rng(2)
    sounding = generator.random(100) > 0.5
    sure = np.round(0.3 * sounding + generator.random(100), decimals)
    assert average_precision(sure, sounding, sounding) == pytest.approx(metrics.average_precision_score(sounding, sure))
    precision, recall, _ = metrics.precision_recall_curve(sounding, sure)
    expected = np.max(2 * precision * recall / (precision + recall))
    assert max_f1(sure, sounding, sounding) == pytest.approx(expected)


def test_refusals():
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(4, 5\)"):
        ciou(np.ones((4, 4)), np.ones((4, 5)))
    with pytest.raises(ValueError, match="non-empty"):
        ciou(np.ones((0, 4)), np.ones((0, 4)))
    with pytest.raises(ValueError, match="map in 0..1"):
        ciou(np.ones((4, 4)), np.full((4, 4), 2.0))
    with pytest.raises(ValueError, match="without NaN"):
        ciou(np.ones((4, 4)), np.full((4, 4), np.nan))
    for values in ([], [0.3, np.nan]):
        with pytest.raises(ValueError, match="without NaN"):
            success_rate(values)
        with pytest.raises(ValueError, match="without NaN"):
            localization_auc(values)
    with pytest.raises(ValueError, match="NaN or infinity"):
        confidence([[np.nan, 1.0]])
    yes, no = [True, True], [False, False]
    with pytest.raises(ValueError, match="one image leaves no threshold"):
        slavc_average_precision([0.3], [True], [True])
    with pytest.raises(ValueError, match="Recall is not defined"):
        max_f1([0.1, 0.2], no, no)
    with pytest.raises(ValueError, match="cannot be correct"):
        max_f1([0.1, 0.2], yes, [True, False])
    with pytest.raises(ValueError, match="confidence of image 1 is NaN"):
        max_f1([0.1, np.nan], yes, yes)
    with pytest.raises(ValueError, match=r"\(1,\), \(2,\) and \(2,\)"):
        max_f1([0.1], yes, yes)
