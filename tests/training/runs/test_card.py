"""Model cards: their metadata, their facts, and that the templates are shipped."""

import configparser
import importlib.metadata
import platform
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from deepavfusion.training.config.recipe import load_recipe
from deepavfusion.training.report.tables import Table
from deepavfusion.training.runs.card import PIPELINES, TEMPLATE, write_card
from deepavfusion.training.runs.records import device_name, package_versions
from deepavfusion.training.tasks import Evaluation

ROOT = Path(__file__).parents[3]
VERSIONS = {"python": "3.11.7", "torch": "2.9"}


def record(task, **changes):
    """Content of an evaluation.json."""
    return {
        "task": task, "date": "2024-05-06", "split": "test", "protocol": "How it was measured.",
        "metrics": {"top1": 0.51234}, "versions": VERSIONS,
        "training": {
            "initial_weights": "random", "steps": 10, "effective_batch": 8, "clips_seen": 1280, "seconds": 3661.0,
            "samples_per_second": 12.34, "device": "1 x cpu (2 threads)", "mixed_precision": "no",
            "skipped_clips": {"a.mp4": "broken"},
        },
        "data": {"name": "scenes", "description": "built-in <scenes>"},
        "architecture": {
            "parameters": 5_250_000, "encoder_parameters": 4_100_000, "hidden_size": 128, "num_hidden_layers": 4,
            "num_attention_heads": 2, "fusion_type": "factorized", "fusion_layers": "all", "fusion_tokens": 32,
            "frame": "64 x 64", "spectrogram": "64 mels x 96 steps", "image_patches": 64, "audio_patches": 24,
            "norm_patch_loss": True, "pretraining_objective": "reconstruction",
        },
        **changes,
    }  # fmt: skip


DETAILS = (
    "| parameters | 5.2 M, of which encoder 4.1 M |",
    "| training data | built-in &lt;scenes> |",
    "| clips seen | 1,280 in 10 steps of 8 |",
    "1:01:01 (12.3 clips per second), 1 x cpu (2 threads)",
    "How it was measured.\n\n### First\n\n| from | top-1 |",
    "A note.\n\n### Second",
    "12 clips of the test split; 1 could not be read.",
    "- 1 clips could not be read and were skipped",
    "- The data are synthetic scenes",
    "Versions: python 3.11.7, torch 2.9.\n",
    "@inproceedings{mo2024deepavfusion,",
)


def written(folder, content, recipe):
    tables = [Table("First", ["from", "top-1"], [["joint", "50 %"]], "A note."), Table("Second", ["n"], [[1]])]
    task, protocol = content["task"], content["protocol"]
    evaluation = Evaluation(task, protocol, content["metrics"], 12, tables, {"b.mp4": "broken"})
    write_card(folder, "tiny", content, evaluation, recipe, ["Trained long."])
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "\n\n\n" not in text
    assert text.endswith("```\n")
    assert recipe.to_yaml(public=True).strip() in text
    assert text.count("\n## ") == 6  # Use, Details, Results, Limits, Recipe, Citation
    return ModelCard.load(folder / "README.md"), text


def test_card_of_a_pretrained_model(tmp_path):
    scores = {f"{name}_accuracy": 0.378 for name in ("fusion", "image", "audio", "all")}
    ceilings = {"audio": {"accuracy": 0.5}}
    content = record("pretraining", metrics={"loss": 0.5, **scores, "chance_accuracy": 0.0625}, ceilings=ceilings)
    card, text = written(tmp_path, content, load_recipe("pretrain", "scenes_tiny", []))
    assert card.data.to_dict()["library_name"] == "transformers"
    assert card.data.pipeline_tag == "feature-extraction"
    assert card.data.metrics == ["accuracy"]
    assert [(result.metric_name, result.metric_value) for result in card.data.eval_results] == [
        (f"1-NN accuracy, {name} stream", 0.378) for name in ("fusion", "image", "audio", "all")
    ]
    more = (
        'repository = "tiny"',
        "| audio | 50.0 % |",
        "taken from the original.",
        "`deepavfusion pretrain`, 2024-05-06",
    )
    for fact in (*DETAILS, *more):
        assert fact in text, fact


def test_card_of_a_model_pretrained_without_labels(tmp_path):
    content = record("pretraining", metrics={"loss": 0.5}, data={"name": "folder", "description": "videos"})
    card, text = written(tmp_path, content, load_recipe("pretrain", "folder", ["data.path=videos"]))
    assert card.data.eval_results is None
    assert "no labels for a nearest-neighbour score" in text
    assert "synthetic" not in text


@pytest.mark.parametrize("task", PIPELINES)
def test_card_of_a_finetuned_model(tmp_path, task):
    card, text = written(tmp_path, record(task), load_recipe("finetune", f"scenes_{task}", []))
    (result,) = card.data.eval_results
    assert (result.task_name, result.metric_type, result.metric_value) == (PIPELINES[task], "top1", 0.5123)
    assert PIPELINES[task] in card.data.tags
    use = f'pipeline("{PIPELINES[task]}", model="tiny", trust_remote_code=True)'
    for fact in (*DETAILS, use, "`deepavfusion finetune`, 2024-05-06. Trained long."):
        assert fact in text, fact


def test_templates_are_shipped():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    shipped = set()
    for package, patterns in setup["options.package_data"].items():
        folder = ROOT / package.replace("deepavfusion.", "").replace(".", "/")
        for pattern in patterns.split():
            shipped |= set(folder.glob(pattern))
    templates = {path for path in (ROOT / "training").glob("**/templates/*") if path.is_file()}
    assert TEMPLATE in templates
    assert templates <= shipped


def test_device_names(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cuda", 1)) == "GPU 1"
    assert device_name(torch.device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"
    assert device_name(torch.device("mps")) == "mps"


def test_versions_name_absent_packages(monkeypatch):
    monkeypatch.setattr("deepavfusion.training.runs.records._PACKAGES", ("jinja2", "no-such-package"))
    assert package_versions() == {
        "python": platform.python_version(),
        "jinja2": importlib.metadata.version("jinja2"),
        "no-such-package": "absent",
    }
