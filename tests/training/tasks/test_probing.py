"""Probes of a pre-trained encoder in evaluations."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deepavfusion import DeepAVFusionModel
from deepavfusion.training.tasks.pretraining import Pretraining
from deepavfusion.training.tasks.probing import fewer_labels, probe_features, probe_metrics, probe_tables
from tests.modeling_deepavfusion.cases import make_inputs, make_model


def rows(count, seed, labels=True):
    """Features that tell the class in the audio stream alone, and the shape in the frame alone."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        label, shape = rng.integers(4), rng.integers(3)
        noise = {name: rng.standard_normal(6) for name in ("fusion", "image", "audio", "image_alone", "audio_alone")}
        noise["audio"][label] += 8
        noise["image_alone"][shape] += 8
        found.append({"features": noise, "labels": {"labels": label, "shape_label": shape} if labels else {}})
    return found


def test_features_are_means_of_passes_with_both_modalities_and_with_one():
    model = make_model(DeepAVFusionModel)
    inputs = make_inputs(model.config)
    batch = {"labels": torch.arange(len(inputs["pixel_values"])), "path": ["a"] * len(inputs["pixel_values"])}
    found = probe_features(model, inputs, batch)
    with torch.no_grad():
        both, alone = model(**inputs), model(pixel_values=inputs["pixel_values"])
    width = model.config.hidden_size
    np.testing.assert_allclose(
        found[1]["features"]["audio"], both.audio_last_hidden_state[1].mean(0).numpy(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        found[1]["features"]["image_alone"][:width], alone.last_hidden_state[1].mean(0).numpy(), rtol=1e-4, atol=1e-5
    )
    assert found[1]["features"]["image_alone"].shape == (2 * width,)
    assert found[1]["labels"] == {"labels": 1}


def test_metrics_say_which_stream_knows_what():
    metrics = probe_metrics(rows(300, 0), rows(200, 1), [50, 300, 10_000])
    assert metrics["audio_linear_300"] > 0.95
    assert metrics["all_linear_300"] > 0.95
    assert metrics["image_linear_300"] < 0.5
    assert metrics["audio_whitened"] > 0.9
    assert metrics["shape_image_alone_linear"] > 0.95
    assert not [name for name in metrics if "10000" in name or "timbre" in name]  # more labels than there are clips


def test_numbers_of_labels_for_which_there_are_no_clips_are_told():
    assert fewer_labels([100, 500], 500) == fewer_labels([], 3) == []
    (note,) = fewer_labels([100, 500, 2000], 64)
    expected = "Linear probes are fitted on 64 labels, not on 100, 500 and 2,000, as task.probe_labels says: "
    assert note == f"{expected}there are 64 training clips (data.train_size)."
    recipe = SimpleNamespace(task=SimpleNamespace(probe_labels=[100, 500]))
    (note,) = Pretraining.training_notes(range(1200)[:200], None, recipe)  # at the start of a run
    assert "fitted on 100 labels, not on 500" in note


def test_clips_without_labels_are_refused():
    with pytest.raises(ValueError, match=r"task\.probe_labels needs data with labels"):
        probe_metrics(rows(10, 0, labels=False), rows(10, 1), [5])


def test_the_table_shows_each_number_of_labels_before_and_after():
    metrics = probe_metrics(rows(60, 0), rows(50, 1), [20, 60])
    (table,) = probe_tables(metrics, dict.fromkeys(metrics, 0.0))
    assert table.columns == [
        *("features", "20 labels, before training", "20 labels"),
        *("60 labels, before training", "60 labels"),
    ]
    assert [row[0] for row in table.rows] == [
        *("fusion", "image", "audio", "all", "frame alone", "sound alone", "shape, frame alone"),
    ]
    assert table.rows[2][1] == "0.0 %"
    assert table.rows[-1][1:3] == ["-", "-"]
    assert probe_tables({"loss": 1.0}, None) == []
