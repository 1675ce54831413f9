"""Model cards: of models that are pushed, and of the library's own `Trainer`."""

import ast
import importlib.metadata
import re

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from deepavfusion import DeepAVFusionForAudioVisualClassification, DeepAVFusionForPreTraining, DeepAVFusionModel
from deepavfusion.card_deepavfusion import (
    at_location,
    model_card,
    multiply_accumulates,
    replace_placeholder,
    usage,
)
from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.processors.pipelines_deepavfusion import pipelines
from deepavfusion.tasks_deepavfusion import HEADS, TASKS
from deepavfusion.trainer_card_deepavfusion import last_evaluation

from .cases import MODEL_CLASSES, make_inputs, make_labels, make_model

STUBS = ("More information needed", "More Information Needed", "automatically generated", "unknown dataset")
SECTIONS = ["Use", "Details", "Intended use", "Limits", "License", "Citation"]


def code_of(text):
    """All examples of a card."""
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.mark.parametrize("cls", MODEL_CLASSES, ids=lambda cls: cls.__name__)
def test_card_of_each_model(cls):
    model = make_model(cls)
    card = model_card(model, "tiny", "me/tiny")
    task = HEADS.get(cls.__name__, TASKS["pretraining"])
    data = card.data.to_dict()
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", task.hub_task)
    assert {"deepavfusion", "audio-visual", "custom_code"} < set(data["tags"])
    assert re.findall("^## (.*)$", card.text, re.MULTILINE) == SECTIONS
    assert "\n\n\n" not in card.text
    assert not [stub for stub in STUBS if stub in card.text]
    ast.parse(code_of(card.text))
    assert '"me/tiny"' in code_of(card.text)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert f"| parameters | {millions:.1f} M, of which encoder " in card.text
    pipeline = task.pipeline or "audio-visual-feature-extraction"
    assert pipelines()[pipeline].auto_class == task.auto_class
    assert f'pipeline("{pipeline}", ' in code_of(card.text)
    assert f"from transformers import {task.auto_class}, AutoProcessor" in code_of(card.text)
    assert f"use `{pipeline}`, as above" in card.text
    assert "No license is stated" in card.text


def test_operations_are_those_of_matrix_products_and_convolutions():
    model = make_model(DeepAVFusionModel, fusion_layers="none", num_hidden_layers=1)
    config = model.config
    width, hidden = config.hidden_size, config.intermediate_size
    patches = (config.num_channels * config.patch_size**2, config.audio_patch_size**2)
    expected = 0
    for tokens, values in zip(config.num_patches, patches, strict=True):
        expected += tokens * width * (values + 4 * width + 2 * hidden) + 2 * tokens**2 * width
    assert multiply_accumulates(model) == expected


def test_operations_of_pre_training_are_those_of_its_encoder():
    encoder, whole = make_model(DeepAVFusionModel), make_model(DeepAVFusionForPreTraining)
    assert multiply_accumulates(encoder) == multiply_accumulates(whole)
    head = multiply_accumulates(make_model(DeepAVFusionForAudioVisualClassification))
    assert head > multiply_accumulates(encoder)


def test_labels_are_listed_up_to_a_number():
    names = dict(enumerate(f"class {index}" for index in range(25)))
    card = model_card(
        make_model(DeepAVFusionForAudioVisualClassification, num_labels=25, id2label=names), "tiny", "tiny"
    )
    assert "| labels | class 0, class 1, " in card.text
    assert "class 19, and 5 more (`id2label` in config.json) |" in card.text.replace("\\`", "`")
    assert "| labels |" not in model_card(make_model(DeepAVFusionModel), "tiny", "tiny").text


def test_names_add_no_markup():
    card = model_card(make_model(DeepAVFusionModel), "a\n# b <i>[c](d)", "e", details=[["f | g", "h\n## i `j`"]])
    assert re.findall("^#+ .*$", card.text, re.MULTILINE)[0] == r"# a # b &lt;i>\[c\](d)"
    assert re.findall("^## (.*)$", card.text, re.MULTILINE) == SECTIONS
    assert r"| f \| g | h ## i \`j\` |" in card.text


@pytest.mark.parametrize("objective", ["reconstruction", "align", "jepa"])
def test_card_names_the_objective(objective):
    model = make_model(DeepAVFusionForPreTraining, pretraining_objective=objective)
    card = model_card(model, "tiny", "tiny")
    assert ("joint-embedding" in card.data.get("tags")) == ("LeJEPA" in card.text) == (objective == "jepa")
    assert ("telling matching pairs" in card.text) == (objective == "align")


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
@pytest.mark.parametrize("place", ["runs/tiny", 'a "quoted" \\ name', "ä ö"])
def test_another_location(task, place):
    text = f'first model="kept"\n{usage(task, "reconstruction", place)}\nrepository = "kept"\n'
    moved = at_location(text, "me/tiny")
    assert moved.count('"me/tiny"') == 2  # by class and by pipeline
    assert moved.count('"kept"') == 2
    assert "this folder" not in moved
    ast.parse(code_of(moved))
    assert at_location(moved, "other/name") == moved


def test_a_placeholder_is_replaced_and_a_card_is_kept(tmp_path):
    model, path = make_model(DeepAVFusionModel), tmp_path / "README.md"
    replace_placeholder(model, tmp_path, "me/tiny")
    assert not path.exists()
    path.write_text("---\ntags: [own]\n---\n# My card\n")
    replace_placeholder(model, tmp_path, "me/tiny")
    assert path.read_text() == "---\ntags: [own]\n---\n# My card\n"
    path.write_text("---\ntags: [own]\n---\nThis model card has been automatically generated.\n")
    replace_placeholder(model, tmp_path, "me/tiny")
    card = ModelCard.load(path)
    assert "own" in card.data.tags
    assert "\n# tiny\n" in path.read_text()
    assert 'repository = "me/tiny"' in card.text


class Samples(torch.utils.data.Dataset):
    def __init__(self, columns):
        self.columns = columns

    def __len__(self):
        return len(self.columns["labels"])

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}


def arguments(folder, **overrides):
    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "use_cpu": True}
    settings |= {"save_strategy": "no", "disable_tqdm": True, "report_to": "none", "learning_rate": 1e-3}
    return TrainingArguments(output_dir=str(folder), **(settings | overrides))


@pytest.fixture
def trainer(tmp_path):
    model = make_model(DeepAVFusionForAudioVisualClassification, num_hidden_layers=1)
    data = Samples(make_inputs(model.config, batch=4) | make_labels(model.config, type(model), batch=4))
    return Trainer(
        model=model,
        args=arguments(tmp_path / "mine"),
        train_dataset=data,
        eval_dataset=data,
        processing_class=DeepAVFusionProcessor.from_model(model),
        compute_metrics=lambda found: {"top_1": 0.51234},
    )


def test_card_of_a_plain_trainer(trainer, tmp_path):
    trainer.train()
    loss = trainer.evaluate()["eval_loss"]
    trainer.create_model_card(license="mit", dataset="My | clips", dataset_tags="my_clips", tags="own", language="en")
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    data, text = card.data.to_dict(), card.text
    assert (data["license"], data["language"], data["datasets"]) == ("mit", ["en"], ["my_clips"])
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "video-classification")
    assert {"own", "generated_from_trainer", "custom_code", "audio-visual-classification"} <= set(data["tags"])
    results = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {"loss": round(loss, 4), "top_1": 0.5123}
    assert (results["loss"].dataset_type, results["loss"].dataset_name) == ("my_clips", "My | clips")
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [*SECTIONS[:2], "Results", "Training", *SECTIONS[2:]]
    for fact in (
        "# mine\n",
        'pipeline("audio-visual-classification", model="mine", trust_remote_code=True)',
        "| training data | My \\| clips (4 samples) |",
        "| training | 2 steps of 4 samples |",
        "| initial weights | random |",
        "On the evaluation set (4 samples), after training:",
        f"| loss | {loss:.4g} |",
        "| top 1 | 0.5123 |",
        "learning_rate: 0.001",
        f"transformers {importlib.metadata.version('transformers')}",
    ):
        assert fact in text, fact
    assert not [stub for stub in STUBS if stub in text]


def test_card_of_a_trainer_without_names_and_results(trainer, tmp_path):
    trainer.create_model_card()
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert card.data.eval_results is None
    for fact in ("The model was not evaluated.", "The training data are not described here.", "not described (4 samp"):
        assert fact in card.text


def test_cards_of_other_models_stay_as_they_are(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=16, **sizes))
    trainer = Trainer(model=model, args=arguments(tmp_path))
    trainer.create_model_card()
    text = (tmp_path / "README.md").read_text()
    assert "More information needed" in text
    assert "deepavfusion" not in text.lower()


def test_the_last_evaluation_of_a_log():
    assert last_evaluation([]) == {}
    assert last_evaluation([{"loss": 1.0, "step": 1}]) == {}
    log = [
        {"eval_loss": 3.0, "eval_top1": 0.1, "step": 1},
        {"eval_loss": float("nan"), "eval_top1": 1, "eval_runtime": 2.0, "eval_samples_per_second": 3.0, "step": 2},
        {"train_loss": 1.0, "train_runtime": 2.0},
    ]
    assert last_evaluation(log) == {"top1": 1.0}
