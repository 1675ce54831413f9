"""Baselines on the scenes: reports, scores and the small network."""

import json

import numpy as np
import pytest

from deepavfusion.training.experiments import baselines

pytest.importorskip("sklearn", reason="the baselines need scikit-learn")


def test_report_of_a_small_run(tmp_path, capsys):
    out = tmp_path / "report.json"
    arguments = ["--difficulty", "easy", "--train-size", "96", "--test-size", "64", "--model", "untrained"]
    baselines.main([*arguments, "--out", str(out)])
    result = json.loads(out.read_text())["difficulties"]["easy"]
    assert result["ceilings"]["audio"] == pytest.approx(0.5)
    assert result["ceilings"]["both"] == pytest.approx(1)
    names = {"raw pixels", "mean log-mel", "log-mel"}
    names |= {f"untrained: {stream}" for stream in ("fusion", "image", "audio", "all")}
    assert result["baselines"].keys() == names
    for scores in result["baselines"].values():
        assert scores.keys() == baselines.TARGETS.keys()
        assert all(0 <= value <= 1 for score in scores.values() for value in score.values())
    assert result["baselines"]["mean log-mel"]["timbre"]["linear"] > 0.25  # far from chance when families are easy
    assert "upper bounds for the class: audio 50.0, image 50.0, both 100.0" in capsys.readouterr().out


def test_scores_of_separable_and_of_random_features():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 200)
    clear = np.eye(4)[targets] + 0.01 * rng.standard_normal((200, 4))
    perfect = baselines.score(clear[:100], clear[100:], targets[:100], targets[100:])
    assert perfect == {"nearest_neighbour": 1.0, "linear": 1.0}
    noise = rng.standard_normal((200, 4))
    blind = baselines.score(noise[:100], noise[100:], targets[:100], targets[100:])
    assert max(blind.values()) < 0.45


def test_network_learns_a_difference_at_one_position():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 8, 400)
    inputs = rng.standard_normal((400, 1, 16, 16)).astype(np.float32)
    inputs[np.arange(400), 0, :, 0] += targets[:, None]
    accuracy = baselines.train_network(inputs[:320], inputs[320:], (targets[:320], targets[320:]), epochs=6)
    assert accuracy > 0.3


def test_mean_spectrum_does_not_separate_timbres_on_standard():
    model = baselines.tiny_config()
    config = baselines.ScenesConfig(seconds=1.5, max_objects=1, max_sounding=1)
    train, test = (baselines.read_scenes(config, model, split, size) for split, size in (("train", 800), ("test", 400)))
    features = [baselines.representations(scenes)["mean log-mel"] for scenes in (train, test)]
    scores = baselines.score(*features, train["timbre"], test["timbre"])
    assert 0.125 < max(scores.values()) < 0.5
