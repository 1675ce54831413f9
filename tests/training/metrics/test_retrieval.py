"""Recall and ranks: by hand, under permutations, and from scikit-learn's top-k accuracy."""

import numpy as np
import pytest

from deepavfusion.training.metrics.retrieval import cosine_similarity, median_rank, ranks, recall_at


@pytest.fixture
def similarity():
    generator = np.random.default_rng(5)
    return generator.standard_normal((30, 30)) + 1.5 * np.eye(30)


def test_by_hand():
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.3, 0.5], [0.1, 0.7, 0.7]])
    # The tie of the last row counts against it.
    assert ranks(similarity).tolist() == [1, 3, 2]
    assert recall_at(similarity, (1, 2, 3)) == {1: pytest.approx(1 / 3), 2: pytest.approx(2 / 3), 3: 1.0}
    assert median_rank(similarity) == 2


def test_equal_embeddings_are_no_luck():
    assert recall_at(np.ones((20, 20)))[10] == 0


def test_order_of_samples_does_not_matter(similarity):
    order = np.random.default_rng(0).permutation(30)
    assert ranks(similarity[order][:, order]).tolist() == ranks(similarity)[order].tolist()
    assert recall_at(similarity[order][:, order]) == recall_at(similarity)


def test_shuffled_counterparts_are_at_chance():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((400, 16))
    assert recall_at(cosine_similarity(rows, rows))[1] == 1
    shuffled = recall_at(cosine_similarity(rows, generator.permutation(rows)))
    assert shuffled[10] == pytest.approx(10 / 400, abs=0.02)


def test_cosine_by_hand_and_length_does_not_matter():
    queries, items = np.array([[3.0, 4.0], [0.0, 2.0]]), np.array([[4.0, 3.0], [0.0, 0.5]])
    np.testing.assert_allclose(cosine_similarity(queries, items), [[24 / 25, 4 / 5], [3 / 5, 1]])
    np.testing.assert_allclose(cosine_similarity(queries * [[7], [0.1]], items), cosine_similarity(queries, items))


def test_same_as_scikit_learn(similarity):
    metrics = pytest.importorskip("sklearn.metrics")
    for k, share in recall_at(similarity, (1, 5, 10)).items():
        assert share == pytest.approx(metrics.top_k_accuracy_score(np.arange(30), similarity, k=k))


def test_refusals(similarity):
    with pytest.raises(ValueError, match=r"\(30, 29\)"):
        ranks(similarity[:, 1:])
    with pytest.raises(ValueError, match="N >= 1"):
        ranks(np.zeros((0, 0)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        ranks(np.where(similarity > 2, np.nan, similarity))
    with pytest.raises(ValueError, match="1 or more"):
        recall_at(similarity, (0, 5))
    rows = np.ones((4, 3))
    with pytest.raises(ValueError, match=r"\(4, 3\) and \(3, 3\)"):
        cosine_similarity(rows, rows[1:])
    with pytest.raises(ValueError, match="query 2 is not defined"):
        cosine_similarity(rows * [[1], [1], [0], [1]], rows)
    with pytest.raises(ValueError, match="item 1 .* not finite"):
        cosine_similarity(rows, rows * [[1], [np.nan], [1], [1]])
