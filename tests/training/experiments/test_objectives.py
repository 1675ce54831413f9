"""Objectives at equal time: lengths, runs and table."""

import json

import pytest

from deepavfusion.training.experiments import objectives
from tests.training.experiments.test_experiments import SMALL
from tests.training.test_finetune import SIZES
from tests.warm import warm  # noqa: F401  (a fixture)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_objectives_train_for_equal_time_and_the_page_is_rewritten(tmp_path, capsys, monkeypatch):
    seconds = {"model.pretraining_objective=jepa": 0.03}
    monkeypatch.setattr(objectives, "seconds_per_clip", lambda changes: seconds.get(changes[0], 0.01))
    page, results, out = tmp_path / "results.md", tmp_path / "objectives.json", tmp_path / "runs"
    page.write_text("<!-- objectives:begin -->\nearlier text\n<!-- objectives:end -->\n")
    small = [part for part in SMALL if not part.startswith("optim.epochs")]
    sizes = [f"model.{name}={value}" for name, value in SIZES.items()]
    chosen = ["reconstruction, cross decoder", "jepa"]
    arguments = [
        *("--objectives", *chosen, "--minutes", f"{0.48 / 60}", "--jobs", "1", "--out", str(out)),
        *("--results", str(results), "--page", str(page), *small, *sizes, "task.probe_labels=[8]", "task.masks=[]"),
    ]
    assert objectives.main(arguments) == 0
    found = json.loads(results.read_text())["objectives"]
    # 0.48 s are 48 clips at 10 ms, and 16 clips at 30 ms.
    assert [found[name]["clips_seen"] for name in chosen] == [48, 16]
    assert "image_to_audio_r1" in found["jepa"]["metrics"]
    assert "image_to_audio_r1" not in found[chosen[0]]["metrics"]
    evaluation = json.loads((out / "jepa-0" / "evaluation.json").read_text())
    assert found["jepa"]["metrics"]["fusion_whitened"] == [evaluation["metrics"]["fusion_whitened"]]
    text = page.read_text()
    assert "earlier text" not in text
    assert "| jepa | 16 |" in text
    capsys.readouterr()
    assert objectives.main([*arguments, "--collect"]) == 0
    assert page.read_text() == text


def test_time_of_a_step_is_measured_for_every_objective(monkeypatch):
    monkeypatch.setattr(objectives, "_TIMED", 4)
    sizes = tuple(f"model.{name}={value}" for name, value in SIZES.items())
    small = (*sizes, "task.masks=[]", "optim.batch_size=2")
    times = [objectives.seconds_per_clip((*changes, *small)) for changes in objectives.OBJECTIVES.values()]
    assert all(0 < seconds < 1 for seconds in times)
