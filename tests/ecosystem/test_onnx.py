"""ONNX: every head as a graph for batches of any size, run by ONNX Runtime alone."""

import json

import numpy as np
import pytest
import torch

import deepavfusion_cli as cli
from deepavfusion import DeepAVFusionForPreTraining
from deepavfusion.inference.export import onnx
from tests.modeling_deepavfusion.cases import MODEL_CLASSES, make_inputs, make_model, optional_modalities

pytestmark = pytest.mark.ecosystem

INPUT_NAMES = ("pixel_values", "input_features")


@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)
def test_every_head(model_class, tmp_path, capsys):
    import onnxruntime

    model = make_model(model_class)
    model.save_pretrained(tmp_path / "model")
    assert cli.main(["export", "onnx", str(tmp_path / "model"), str(tmp_path / "model.onnx")]) == 0
    printed = capsys.readouterr().out
    assert f"{model_class.__name__} written to" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model.onnx"]

    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    lacking = optional_modalities(model_class)
    names = [*INPUT_NAMES, *(f"{name}_present" for name in lacking)]
    if model_class is DeepAVFusionForPreTraining:
        names += ["image_noise", "audio_noise"]
    assert [entry.name for entry in session.get_inputs()] == names
    assert all(name in printed for name in names)
    assert {entry.shape[0] for entry in (*session.get_inputs(), *session.get_outputs())} == {"batch"}
    for batch in (1, 5):
        inputs = make_inputs(model.config, model_class, batch, seed=batch)
        for place, name in enumerate(lacking):
            inputs[f"{name}_present"] = torch.arange(batch) % 3 != place
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            outputs = model(**inputs)
        for entry, values in zip(session.get_outputs(), found, strict=True):
            expected = outputs[entry.name].numpy()
            np.testing.assert_allclose(values, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    config = json.loads(session.get_modelmeta().custom_metadata_map["config"])
    assert config["hidden_size"] == model.config.hidden_size


def test_what_cannot_be_exported_or_written(tmp_path, capsys, monkeypatch):
    make_model(DeepAVFusionForPreTraining, pretraining_objective="jepa").save_pretrained(tmp_path / "jepa")
    make_model(DeepAVFusionForPreTraining).save_pretrained(tmp_path / "model")
    out = tmp_path / "model.onnx"
    assert cli.main(["export", "onnx", str(tmp_path / "jepa"), str(out)]) == 1
    assert "predicts nothing: save its encoder" in capsys.readouterr().err
    out.write_text("mine")
    assert cli.main(["export", "onnx", str(tmp_path / "model"), str(out)]) != 0
    assert "already exists" in capsys.readouterr().err
    monkeypatch.setattr(onnx, "largest_difference", lambda graph, path: float("nan"))
    assert cli.main(["export", "onnx", str(tmp_path / "model"), str(out), "--overwrite"]) == 1
    assert "differ from those of PyTorch" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["jepa", "model", "model.onnx"]
