"""The notebooks run from top to bottom, as a reader runs them."""

import json
import math
import os
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSoundLocalization,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionProcessor,
)

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def small_config(hidden_size: int) -> DeepAVFusionConfig:
    return DeepAVFusionConfig(
        hidden_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        num_fusion_attention_heads=4,
        image_size=64,
        patch_size=8,
        num_mel_bins=64,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=64,
    )


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small pre-training model, as the quickstart saves it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = small_config(hidden_size=64)
    DeepAVFusionForPreTraining(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def task_folders(tmp_path_factory):
    """Small models of the tasks that point at a source, as `make results` saves them."""
    folders, config = {}, small_config(hidden_size=128)
    config.id2label = {0: "sounding"}
    torch.manual_seed(0)
    for name, model_class in (
        ("SEPARATION", DeepAVFusionForSourceSeparation),
        ("LOCALIZATION", DeepAVFusionForSoundLocalization),
        ("SEGMENTATION", DeepAVFusionForSemanticSegmentation),
    ):
        folders[name] = tmp_path_factory.mktemp(name.lower())
        model_class(config).save_pretrained(folders[name])
        DeepAVFusionProcessor.from_config(config).save_pretrained(folders[name])
    return folders


def execute(path, monkeypatch, folder, probe=None):
    """Runs a notebook; returns the last expression of `probe`, a cell put after its last one, read as JSON."""
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"), (
        "commit it without outputs"
    )
    if probe is not None:
        notebook.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({probe}))"))
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute(env=dict(os.environ))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    return outputs, None if probe is None else json.loads(outputs[-1]["text"])


def test_all_notebooks_are_run_here():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03"]


def test_embed_and_reconstruct(model_folder, monkeypatch):
    monkeypatch.setenv("DEEPAVFUSION_MODEL", str(model_folder))
    _, losses = execute(NOTEBOOKS[0], monkeypatch, model_folder, "[reconstruction.loss.item(), len(pictures)]")
    assert losses[0] > 0
    assert losses[1] == 6


def test_separate_localize_segment(model_folder, task_folders, monkeypatch):
    for name, folder in task_folders.items():
        monkeypatch.setenv(f"DEEPAVFUSION_{name}", str(folder))
    probe = (
        "[[len(result['audio']) for result in results], len(mixture), place['heat_map'].shape, found['mask'].shape, "
        "place['score'], list(improvements.values())]"
    )
    outputs, (lengths, length, heat, mask, score, improvements) = execute(
        NOTEBOOKS[1], monkeypatch, model_folder, probe
    )
    assert lengths == [length, length]
    assert heat == mask == [64, 64]
    assert 0 <= score <= 1
    assert all(math.isfinite(value) for value in improvements)
    assert sum("text/html" in output.get("data", {}) for output in outputs) == 3  # sounds to hear


def test_finetune_on_your_videos(model_folder, monkeypatch):
    monkeypatch.setenv("DEEPAVFUSION_MODEL", str(model_folder))
    monkeypatch.setenv("DEEPAVFUSION_EPOCHS", "8")
    monkeypatch.delenv("DEEPAVFUSION_VIDEOS", raising=False)
    probe = (
        "[len(files), [loss for _, loss in history], [answer['label'] for answer in answers], labels, "
        "[before['eval_top1'], after['eval_top1']]]"
    )
    _, (count, losses, answers, labels, accuracies) = execute(NOTEBOOKS[2], monkeypatch, model_folder, probe)
    assert count == 24
    assert sum(losses[-3:]) < sum(losses[:3])
    assert all(0 <= accuracy <= 1 for accuracy in accuracies)
    assert sorted(answers) == labels == ["hiss zigzag", "rising triangle"]
