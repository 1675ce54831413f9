"""transformers' own common tests of models, for every class of the package.

Its common tests of pipelines do not apply: they run the library's tasks on the tiny models that it lists by name. The
tasks of this package are its own, tested by tests/processors/test_pipelines.py.
"""

import copy

import pytest
import torch
from transformers import PreTrainedConfig

from deepavfusion import (
    DeepAVFusionConfig,
    DeepAVFusionForPreTraining,
    DeepAVFusionForSemanticSegmentation,
    DeepAVFusionForSourceSeparation,
    DeepAVFusionModel,
)
from tests.modeling_deepavfusion.cases import (
    CLASS_OVERRIDES,
    MODEL_CLASSES,
    idle_parameters,
    make_inputs,
    make_labels,
    make_model,
)
from tests.tiny import tiny_config

from .transformers_suite import build_tests, load_mixin, missing_source

pytestmark = pytest.mark.ecosystem

# Tests that do not apply, and why.
NOT_APPLICABLE = {
    "test_model_get_set_embeddings": "expects token embeddings; test_frozen.py has a test of those of patches",
    "test_model_weights_reload_no_missing_tied_weights": "loads a file with an integer, which is refused as no weights",
    "test_retain_grad_hidden_states_attentions": (
        "expects attention weights in the graph of the output; those of factorized fusion are products of those used"
    ),
}
_NO_LOSS = "expects a loss, which the encoder does not have"
NOT_APPLICABLE_TO = {
    DeepAVFusionModel: {
        "test_training": _NO_LOSS,
        "test_training_gradient_checkpointing": _NO_LOSS,
        "test_training_gradient_checkpointing_use_reentrant_false": _NO_LOSS,
        "test_training_gradient_checkpointing_use_reentrant_true": _NO_LOSS,
    },
    DeepAVFusionForSemanticSegmentation: {
        "test_model_is_small": "expects a million parameters at most; the U-Net has three, nowhere narrower than 128",
    },
    DeepAVFusionForSourceSeparation: {
        "test_model_main_input_name": "expects the main input as first argument, which is pixel_values in all models",
    },
}


class ModelTester:
    """What the common tests ask of a model's own ones: a configuration, inputs, and the sizes of outputs."""

    is_training = True
    num_hidden_states_types = 3  # of the fusion, image and audio streams
    batch_size = 13

    def __init__(self, parent, model_class):
        self.model_class = model_class
        config = self.get_config()
        self.num_hidden_layers, self.hidden_size = config.num_hidden_layers, config.hidden_size
        self.num_attention_heads = config.num_fusion_attention_heads
        self.encoder_seq_length = config.num_all_fusion_tokens
        # What the fusion tokens attend to: the patches of both modalities, of pre-training the visible ones.
        ratios = (config.image_mask_ratio, config.audio_mask_ratio)
        masked = ratios if model_class is DeepAVFusionForPreTraining else (0, 0)
        self.key_length = sum(int(n * (1 - ratio)) for n, ratio in zip(config.num_patches, masked, strict=True))

    def get_config(self) -> DeepAVFusionConfig:
        return tiny_config(**{"num_hidden_layers": 2, **CLASS_OVERRIDES.get(self.model_class, {})})

    def prepare_config_and_inputs_for_common(self) -> tuple[PreTrainedConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        return config, make_inputs(config, self.model_class, self.batch_size)


def common_tests(model_class: type, base: type) -> type:
    """Build the test case of a model class."""

    def set_up(self):
        self.model_tester = ModelTester(self, model_class)

    def prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        config, batch = self.model_tester.get_config(), len(inputs[model_class.main_input_name])
        if return_labels:
            inputs |= make_labels(config, model_class, batch)
        if model_class is DeepAVFusionForPreTraining:  # some tests pass the main input alone: masks would be random
            drawn = make_inputs(config, model_class, batch)
            inputs = {name: drawn[name] for name in drawn if name.endswith("noise")} | inputs
        return inputs

    reasons = NOT_APPLICABLE | NOT_APPLICABLE_TO.get(model_class, {})
    fields = {
        "all_model_classes": (model_class,),
        "test_resize_embeddings": False,
        # U-Nets read hidden states before the final norms: what leads to these alone has no gradient.
        "test_all_params_have_gradient": not idle_parameters(make_model(model_class)),
        "setUp": set_up,
        "_prepare_for_class": prepare_for_class,
    }
    return build_tests(f"Test{model_class.__name__}", base, fields, reasons)


if reason := missing_source():

    @pytest.mark.skip(reason=reason)
    def test_common_tests_of_transformers():
        """Stands for all of them."""

else:
    for _model_class in MODEL_CLASSES:
        _tests = common_tests(_model_class, load_mixin("test_modeling_common", "ModelTesterMixin"))
        globals()[_tests.__name__] = _tests
