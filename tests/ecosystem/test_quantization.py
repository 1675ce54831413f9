"""torchao: weights quantized in loading, saved and loaded again."""

import pytest
import torch

from deepavfusion import DeepAVFusionModel
from tests.modeling_deepavfusion.cases import MODEL_CLASSES, make_inputs, make_model

pytestmark = pytest.mark.ecosystem


def main_output(outputs):
    """Logits, or what stands for them."""
    return outputs[next(name for name in ("logits", "image_logits", "last_hidden_state") if name in outputs)]


@pytest.mark.parametrize("model_class", MODEL_CLASSES, ids=lambda cls: cls.__name__)
def test_quantized_weights(model_class, tmp_path):
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    model = make_model(model_class)
    inputs = make_inputs(model.config, model_class)
    model.save_pretrained(tmp_path / "float")
    options = {"quantization_config": TorchAoConfig(Int8WeightOnlyConfig())}
    quantized = model_class.from_pretrained(tmp_path / "float", **options)
    weight = quantized.base_model.image.layers[0].mlp.fc1.weight
    assert type(weight) is not torch.nn.Parameter
    with torch.no_grad():
        expected, found = (main_output(each(**inputs)) for each in (model, quantized))
    error = (found - expected).norm() / expected.norm()
    assert 0 < error < 0.05
    if model_class is DeepAVFusionModel:
        with pytest.raises(ValueError, match="torchao reads no file of a quantized DeepAVFusionModel"):
            quantized.save_pretrained(tmp_path / "int8")
        return
    quantized.save_pretrained(tmp_path / "int8")
    again = model_class.from_pretrained(tmp_path / "int8")
    assert type(again.base_model.image.layers[0].mlp.fc1.weight) is type(weight)
    with torch.no_grad():
        torch.testing.assert_close(main_output(again(**inputs)), found)
