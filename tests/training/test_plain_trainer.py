"""The library's own `Trainer`, without anything of ours but the models: it trains, evaluates, saves and predicts.

Gradient accumulation gives what one larger batch gives. Excepted are, by their nature: batch norms in training (the
U-Nets of separation and segmentation, linear probes' input norm), whose statistics are of the smaller batches; the
matching loss of localization, which forms its pairs within a batch; and means over what is labeled or there, where the
smaller batches differ in its number (ignored pixels, samples without sound).
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoProcessor, Trainer, TrainingArguments

from deepavfusion import (
    DeepAVFusionForAudioVisualClassification,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
)
from deepavfusion.processors import DeepAVFusionProcessor
from tests.modeling_deepavfusion.cases import HEAD_CLASSES, make_inputs, make_labels, make_model

SIZE = 8
TINY = {"num_hidden_layers": 1, "decoder_num_hidden_layers": 1}
each_head = pytest.mark.parametrize("cls", HEAD_CLASSES, ids=lambda cls: cls.__name__)


class Samples(Dataset):
    """Fixed random samples of a model: dictionaries of tensors, as a user's data set gives them."""

    def __init__(self, model, size=SIZE, labels=True):
        self.columns = make_inputs(model.config, type(model), batch=size)
        if labels:
            self.columns |= make_labels(model.config, type(model), batch=size)

    def __len__(self):
        return len(self.columns["pixel_values"])

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}


def make(cls, **overrides):
    torch.manual_seed(0)  # initial weights
    return make_model(cls, **{**TINY, **overrides})


def arguments(folder, **overrides):
    settings = {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 3,
        "learning_rate": 0.05,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "logging_steps": 1,
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
    }
    return TrainingArguments(**{**settings, **overrides})


def freeze_batch_norms(model):
    """Keeps running statistics in use, in training too."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
            module.train = lambda mode=True, module=module: module


def train(cls, folder, batch_size, accumulation, frozen_norms=True, **overrides):
    """Losses and gradient norms of each step, and the weights after the last."""
    model = make(cls, **overrides)
    if frozen_norms:
        freeze_batch_norms(model)
    settings = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation}
    trainer = Trainer(model=model, args=arguments(folder, **settings), train_dataset=Samples(model))
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    assert len(steps) == 2
    return [(entry["loss"], entry["grad_norm"]) for entry in steps], dict(model.named_parameters())


@each_head
def test_accumulation_equals_a_larger_batch(cls, tmp_path):
    whole, weights = train(cls, tmp_path, batch_size=4, accumulation=1)
    parts, other_weights = train(cls, tmp_path, batch_size=2, accumulation=2)
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other_weights, weights, rtol=1e-4, atol=1e-5)
    start = dict(make(cls).named_parameters())
    assert any(not torch.equal(start[name], weight) for name, weight in weights.items())


def test_accumulation_of_per_stream_losses_over_four_batches(tmp_path):
    overrides = {"classifier_loss": "per_stream"}
    whole, weights = train(DeepAVFusionForAudioVisualClassification, tmp_path, 8, 1, **overrides)
    parts, other_weights = train(DeepAVFusionForAudioVisualClassification, tmp_path, 2, 4, **overrides)
    torch.testing.assert_close(torch.tensor(parts), torch.tensor(whole), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(other_weights, weights, rtol=1e-4, atol=1e-5)


def test_what_is_excepted(tmp_path):
    """Batch norms and pairs see the smaller batches: were these equal, the exceptions would not be needed."""
    for cls, overrides in (
        (DeepAVFusionForSemanticSegmentation, {}),
        (DeepAVFusionForSourceSeparation, {}),
        (DeepAVFusionForSoundLocalization, {"localization_loss": "matching"}),
    ):
        whole, _ = train(cls, tmp_path, 4, 1, frozen_norms=False, **overrides)
        parts, _ = train(cls, tmp_path, 2, 2, frozen_norms=False, **overrides)
        assert (torch.tensor(parts) - torch.tensor(whole)).abs().max() > 1e-4, cls


@each_head
def test_trains_evaluates_saves_and_predicts(cls, tmp_path):
    model = make(cls)
    data = Samples(model)
    settings = {"optim": "adamw_torch", "learning_rate": 1e-3, "max_steps": 12, "save_strategy": "steps"}
    trainer = Trainer(
        model=model,
        args=arguments(tmp_path, **settings, save_steps=12, eval_strategy="steps", eval_steps=12),
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=lambda found: {"samples": len(found.label_ids)},
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_loss"] < before
    assert after["eval_samples"] == SIZE
    predicted = trainer.predict(data)
    model.eval()
    with torch.no_grad():
        expected = model(**data.columns)
    torch.testing.assert_close(torch.from_numpy(predicted.predictions), expected.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(predicted.metrics["test_loss"], expected.loss.item(), rtol=1e-2, atol=1e-3)
    again = cls.from_pretrained(tmp_path / "checkpoint-12")
    with torch.no_grad():
        torch.testing.assert_close(again(**data.columns).loss, expected.loss, rtol=1e-4, atol=1e-5)


def test_logits_alone_are_gathered_and_those_of_streams_on_request(tmp_path):
    """As `compute_metrics` of the tutorials expects, also where whole batches lack a modality."""
    model = make(DeepAVFusionForAudioVisualClassification)
    data, inputs = Samples(model), Samples(model).columns

    def collate(samples):
        batch = torch.utils.data.default_collate(samples)
        if len(samples) < 3:  # the last batch
            batch.pop("pixel_values")
        return batch

    def accuracy(found):
        return {"accuracy": float((np.argmax(found.predictions, axis=1) == found.label_ids).mean())}

    trainer = Trainer(model, arguments(tmp_path), data_collator=collate, eval_dataset=data, compute_metrics=accuracy)
    metrics, trainer.compute_metrics = trainer.evaluate(), None
    streams = trainer.predict(data, ignore_keys=[]).predictions
    present = torch.arange(SIZE) < SIZE - SIZE % 3
    with torch.no_grad():
        expected = model.eval()(**inputs, image_present=present)
    right = expected.logits.argmax(dim=1) == inputs["labels"]
    assert metrics["eval_accuracy"] == pytest.approx(right.float().mean().item())
    names = ("logits", "image_logits", "audio_logits", "fusion_logits")
    for values, name in zip(streams, names, strict=True):
        torch.testing.assert_close(torch.from_numpy(values), expected[name], rtol=1e-4, atol=1e-4)


def test_losses_without_labels(tmp_path):
    """Pre-training and matching localization label themselves."""
    for cls, overrides in (
        (DeepAVFusionForPreTraining, {}),
        (DeepAVFusionForSoundLocalization, {"localization_loss": "matching"}),
    ):
        model = make(cls, **overrides)
        data = Samples(model, labels=False)
        trainer = Trainer(model=model, args=arguments(tmp_path), train_dataset=data, eval_dataset=data)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert len(losses) == 2
        assert all(0 < loss < 10 for loss in losses)
        assert ("eval_loss" in trainer.evaluate()) == (cls is DeepAVFusionForPreTraining)


def test_the_processor_is_saved_with_the_model_where_it_is_given(tmp_path):
    model = make(DeepAVFusionForAudioVisualClassification)
    processor = DeepAVFusionProcessor.from_model(model)
    trainer = Trainer(
        model=model,
        args=arguments(tmp_path, save_strategy="steps", save_steps=2),
        train_dataset=Samples(model),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()
    for folder in (tmp_path, tmp_path / "checkpoint-2"):
        loaded = AutoProcessor.from_pretrained(folder)
        assert loaded.feature_extractor.to_dict() == processor.feature_extractor.to_dict()
        assert loaded.visual_processor.output_size == processor.visual_processor.output_size
