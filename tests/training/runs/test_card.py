"""Model cards: their metadata, their facts, and that the templates are shipped."""

import configparser
import importlib.metadata
import platform
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from deepavfusion.training.config.arguments import load_arguments
from deepavfusion.training.config.finetune_arguments import load_finetune_arguments
from deepavfusion.training.report.tables import Table
from deepavfusion.training.runs.card import PIPELINES, TEMPLATE, score_table, write_card
from deepavfusion.training.runs.record import device_name, package_versions
from deepavfusion.training.tasks import Evaluation

ROOT = Path(__file__).parents[3]
VERSIONS = {"python": "3.11.7", "torch": "2.9"}


def scores(value):
    return {name: {"accuracy": value} for name in ("fusion", "image", "audio", "all")}


def pretraining(**changes):
    """Content of a results.json."""
    return {
        "date": "2024-05-06",
        "initial_weights": "random",
        "before": {"loss": 2.0, "image_loss": 1.1, "audio_loss": 0.9, "probe": scores(0.1)},
        "after": {"loss": 0.5, "image_loss": 0.3, "audio_loss": 0.2, "probe": scores(0.378)},
        "chance": {"accuracy": 0.0625},
        "ceilings": {"audio": {"accuracy": 0.5}},
        "run": {
            "steps": 10, "effective_batch": 8, "clips_seen": 1280, "seconds": 3661.0, "samples_per_second": 12.34,
            "device": "1 x cpu (2 threads)", "mixed_precision": "no", "skipped": {"a.mp4": "broken"},
        },
        "data": {"name": "scenes", "description": "built-in <scenes>", "eval_clips": 1000, "eval_split": "test"},
        "model": {
            "parameters": 5_250_000, "encoder_parameters": 4_100_000, "hidden_size": 128, "num_hidden_layers": 4,
            "num_attention_heads": 2, "fusion_type": "factorized", "fusion_layers": "all", "fusion_tokens": 32,
            "frame": "64 x 64", "spectrogram": "64 mels x 96 steps", "image_patches": 64, "audio_patches": 24,
            "norm_patch_loss": True,
        },
        "versions": VERSIONS,
        **changes,
    }  # fmt: skip


def written(folder, *arguments, **options) -> tuple[ModelCard, str]:
    folder.mkdir()
    write_card(folder, *arguments, **options)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "\n\n\n" not in text
    assert text.endswith("```\n")
    return ModelCard.load(folder / "README.md"), text


def test_card_of_a_pretrained_model(tmp_path):
    recipe = load_arguments("scenes_tiny", [])
    card, text = written(tmp_path / "tiny", pretraining(), recipe)
    assert card.data.to_dict()["library_name"] == "transformers"
    assert card.data.pipeline_tag == "feature-extraction"
    assert card.data.metrics == ["accuracy"]
    (fusion, *_) = card.data.eval_results
    assert (fusion.metric_name, fusion.metric_value) == ("1-NN accuracy, fusion stream", 0.378)
    for fact in (
        'repository = "tiny"',
        "| parameters | 5.2 M, of which encoder 4.1 M |",
        "| training data | built-in &lt;scenes> |",
        "| clips seen | 1,280 in 10 steps of 8 |",
        "1:01:01 (12.3 clips per second), 1 x cpu (2 threads)",
        "| sum | 2.0000 | 0.5000 |",
        "| fusion | 1-NN accuracy | 10.0 % | 37.8 % | 6.2 % |",
        "| audio | 50.0 % |",
        "taken from the original.",
        "- 1 clips could not be read and were skipped",
        "- The data are synthetic scenes",
        "Trained by `deepavfusion pretrain`, 2024-05-06.",
        "Versions: python 3.11.7, torch 2.9.\n",
        "@inproceedings{mo2024deepavfusion,",
        recipe.to_yaml(public=True).strip(),
    ):
        assert fact in text, fact
    assert text.count("\n## ") == 6  # Use, Details, Results, Limits, Recipe, Citation


def test_card_of_a_model_pretrained_without_labels(tmp_path):
    record = {"loss": 1.0, "image_loss": 0.5, "audio_loss": 0.5, "probe": None}
    content = pretraining(before=record, after=record, chance=None, ceilings=None)
    card, text = written(tmp_path / "model", content, load_arguments("folder", ["data.path=videos"]))
    assert card.data.eval_results is None
    assert "no labels for a nearest-neighbour score" in text
    assert "synthetic" not in text
    assert score_table(content) == []


def test_scores_before_training_are_named_after_the_initial_weights():
    assert score_table(pretraining())[0][2] == "untrained"
    assert score_table(pretraining(initial_weights="runs/earlier"))[0][2] == "before training"


@pytest.mark.parametrize("task", PIPELINES)
def test_card_of_a_finetuned_model(tmp_path, task):
    recipe = load_finetune_arguments(f"scenes_{task}", [])
    tables = [Table("First", ["from", "top-1"], [["joint", "50 %"]], "A note."), Table("Second", ["n"], [[1]])]
    evaluation = Evaluation(task, "How it was measured.", {"top1": 0.51234}, 12, tables, {"b.mp4": "broken"})
    content = {"date": "2024-05-06", "split": "test", "protocol": evaluation.protocol, "versions": VERSIONS}
    card, text = written(tmp_path / "model", content, recipe, evaluation, ["5.0 M parameters.", "Trained long."])
    (result,) = card.data.eval_results
    assert (result.task_name, result.metric_type, result.metric_value) == (PIPELINES[task], "top1", 0.5123)
    assert PIPELINES[task] in card.data.tags
    for fact in (
        f'pipeline("{PIPELINES[task]}", model="model", trust_remote_code=True)',
        "How it was measured.\n\n### First\n\n| from | top-1 |",
        "A note.\n\n### Second",
        "12 clips of the test split; 1 could not be read and were skipped.",
        "`deepavfusion finetune`, 2024-05-06. 5.0 M parameters. Trained long.",
        "Versions: python 3.11.7, torch 2.9.",
        "@inproceedings{mo2024deepavfusion,",
    ):
        assert fact in text, fact
    assert text.count("\n## ") == 5


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
    monkeypatch.setattr("deepavfusion.training.runs.record._PACKAGES", ("jinja2", "no-such-package"))
    assert package_versions() == {
        "python": platform.python_version(),
        "jinja2": importlib.metadata.version("jinja2"),
        "no-such-package": "absent",
    }
