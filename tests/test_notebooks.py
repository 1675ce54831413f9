"""The notebooks run from top to bottom, as a reader runs them."""

import os
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient

from deepavfusion import DeepAVFusionConfig, DeepAVFusionForPreTraining, DeepAVFusionProcessor

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small pre-training model, as the quickstart saves it."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = DeepAVFusionConfig(
        hidden_size=64,
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
    DeepAVFusionForPreTraining(config).save_pretrained(folder)
    DeepAVFusionProcessor.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, model_folder, monkeypatch):
    monkeypatch.setenv("DEEPAVFUSION_MODEL", str(model_folder))
    monkeypatch.setenv("IPYTHONDIR", str(model_folder / "ipython"))
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"), (
        "commit it without outputs"
    )
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}})
    client.execute(env=dict(os.environ))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
