"""Fine-tuning with few labels: runs, table and figure."""

import json

import pytest
from PIL import Image

from deepavfusion.training.experiments import label_efficiency
from tests.training.experiments.test_experiments import SMALL
from tests.training.test_finetune import SIZES, pretrained  # noqa: F401  (a fixture)
from tests.warm import warm  # noqa: F401  (a fixture)


@pytest.mark.usefixtures("warm")
def test_every_run_sees_as_many_clips_and_the_page_is_rewritten(pretrained, tmp_path, capsys):  # noqa: F811
    page, results, out = tmp_path / "results.md", tmp_path / "label_efficiency.json", tmp_path / "runs"
    page.write_text("# Title\n<!-- labels:begin -->\nearlier text\n<!-- labels:end -->\nrest\n")
    small = [part for part in SMALL if not part.startswith(("data.train_size", "optim.epochs", "optim.warmup"))]
    sizes = [f"model.{name}={value}" for name, value in SIZES.items() if not name.startswith("decoder")]
    arguments = [
        *("--pretrained", str(pretrained), "--out", str(out), "--labels", "8", "--samples", "32"),
        *("--results", str(results), "--page", str(page), "--jobs", "1"),
        *(*small, *sizes, "data.selection_size=4", "run.num_examples=1"),
    ]
    assert label_efficiency.main(arguments) == 0
    found = json.loads(results.read_text())["runs"]
    assert found["clips_seen"] == 32
    for start in ("pretrained", "scratch"):
        evaluation = json.loads((out / f"{start}-8-0" / "evaluation.json").read_text())
        assert found[start]["8"]["metrics"]["top1"] == [evaluation["metrics"]["top1"]]
        assert evaluation["training"]["clips_seen"] == 32
        assert evaluation["data"]["train_clips"] == 8
    origins = {json.loads(p.read_text())["training"]["initial_weights"] for p in out.glob("*/evaluation.json")}
    assert origins == {pretrained.name, "random"}
    text = page.read_text()
    assert "earlier text" not in text
    assert text.endswith("rest\n")
    assert "image alone, from random weights" in text
    assert Image.open(tmp_path / "label_efficiency.png").size[0] > 500
    capsys.readouterr()
    assert label_efficiency.main(arguments) == 0
    assert "2 runs, 2 already completed" in capsys.readouterr().out
    assert page.read_text() == text


def test_a_missing_model_is_named(tmp_path, capsys):
    assert label_efficiency.main(["--pretrained", str(tmp_path / "none")]) == 2
    assert "No pre-trained model in" in capsys.readouterr().err
