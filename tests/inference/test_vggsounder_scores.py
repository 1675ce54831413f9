"""Scores of VGGSounder, with values computed by hand; those of the benchmark's own code: tests/ecosystem."""

import numpy as np
import pytest

from deepavfusion.inference.benchmarks.vggsounder_scores import (
    modality_confusion,
    multi_label_scores,
    read_labels,
    score,
    summary,
    top_k,
)
from deepavfusion.inference.files import UnreadableError

NAMES = ["dog", "cat, meowing", "air horn", "zebra"]
LABELS = """video_id,label,modality,background_music
one,dog,AV,False
one,"cat, meowing",A,False
two,air horn,V,True
three,zebra,AV,False
four,dog,A,False
"""
# Classes in the order of their logits, the highest first.
PREDICTIONS = {
    "one": {"a": [0, 1, 2, 3], "v": [2, 0, 1, 3], "av": [1, 0, 2, 3]},
    "two": {"a": [0, 1, 2, 3], "v": [2, 3, 0, 1], "av": [3, 2, 0, 1]},
    "three": {"a": [3, 0, 1, 2], "v": [3, 0, 1, 2], "av": [0, 1, 2, 3]},
    "four": {"a": [1, 0, 2, 3], "v": None, "av": [1, 0, 2, 3]},
    "unlabeled": {"a": [0, 1, 2, 3], "v": [0, 1, 2, 3], "av": [0, 1, 2, 3]},
}


def logits(order):
    return None if order is None else [4.0 - order.index(c) for c in range(4)]


def test_scores_are_those_computed_by_hand(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(LABELS)
    labels = read_labels(path, NAMES)
    predictions = {clip: {name: logits(order) for name, order in own.items()} for clip, own in PREDICTIONS.items()}
    found = score(predictions, labels)
    # a: "one" {dog, cat} and dog is first; "three" {zebra}, which is first; "four" {dog} and cat is first.
    assert found["a"]["clips"] == 3
    assert found["a"]["hit_rate@1"] == pytest.approx(2 / 3)
    assert found["a"]["precision@1"] == pytest.approx(2 / 3)
    assert found["a"]["recall@1"] == pytest.approx(2 / 4)
    assert found["a"]["f1@1"] == pytest.approx(2 * 2 / (3 + 4))
    assert found["a"]["jaccard@1"] == pytest.approx(2 / 5)
    assert found["a"]["accuracy@1"] == pytest.approx(1 / 3)  # "three"
    # dog: predicted once, twice a label, once right; cat: once, once, never; zebra: once, once, right; air horn: none.
    assert found["a"]["f1_macro@1"] == pytest.approx((2 / 3 + 0 + 0 + 1) / 4)
    assert found["a"]["hit_rate@3"] == 1
    assert found["a"]["f1@3"] == pytest.approx(2 * 4 / (9 + 4))
    assert "hit_rate@5" not in found["a"]  # of four classes
    # v: "one" {dog}, "two" {air horn}, "three" {zebra}; "four" has no images.
    assert (found["v"]["clips"], found["v"]["hit_rate@1"]) == (3, pytest.approx(2 / 3))
    # av: "one" {dog} and "three" {zebra}, neither of which is first.
    assert (found["av"]["clips"], found["av"]["hit_rate@1"]) == (2, 0)
    # With audio alone: "one" {cat}, which is second, and "four" {dog}, which is second.
    assert (found["a only"]["clips"], found["a only"]["hit_rate@1"]) == (2, 0)
    assert found["a only"]["f1@3"] == pytest.approx(2 * 2 / (6 + 2))
    assert (found["v only"]["clips"], found["v only"]["hit_rate@1"]) == (1, 1)
    # Of any label: "one" hits with audio and with both; "two" with images alone; "three" with each, not with both.
    assert found["mu"] == {
        "clips": 3,
        "a": pytest.approx(1 / 3),
        "v": pytest.approx(2 / 3),
        "av": pytest.approx(1 / 3),
    }
    lines = summary(found)
    assert lines[0] == "a: 3 clips, hit rate@1 66.67 %, F1@1 57.14 %"
    assert lines[-1] == "modality confusion: a 33.33 %, v 66.67 %, av 33.33 %, of 3 clips"
    assert summary(score({}, labels))[:2] == ["a: 0 clips", "v: 0 clips"]


def test_parts():
    assert top_k(np.array([[1.0, 3.0, 2.0]]), 2).tolist() == [[False, True, True]]
    assert multi_label_scores(np.zeros((1, 2)), np.ones((1, 2)))["precision"] == 0
    with pytest.raises(ValueError, match="N >= 1"):
        multi_label_scores(np.zeros((0, 2)), np.zeros((0, 2)))
    hits = {"a": np.array([True, True]), "v": np.array([False, True]), "av": np.array([False, True])}
    assert modality_confusion(hits) == {"a": 0.5, "v": 0.0, "av": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,label\n", r"expected the columns video_id, label, modality, got video_id, label\."),
        ("video_id,label,modality\n", "expected labels of VGGSounder, got none"),
        ("video_id,label,modality\na,cow,A\n", "line 2: expected a class of VGGSounder as label, got 'cow'"),
        ("video_id,label,modality\na,dog,X\n", "line 2: expected the modality A, V, AV, got 'X'"),
    ],
)
def test_other_files_are_named(tmp_path, text, message):
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UnreadableError, match=message) as caught:
        read_labels(path, NAMES)
    assert str(caught.value).startswith(str(path))
