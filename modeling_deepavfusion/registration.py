"""All public names, and what importing them registers with transformers: Auto classes, pipelines, model cards.

Importing this module takes seconds, of which nearly all are those of torch and transformers; see `watch`.
"""

import transformers
from transformers import AutoConfig

# Imported from their modules: `transformers` exports placeholders for some of them without torchvision or PIL.
from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from deepavfusion.processors import (
    DeepAVFusionFeatureExtractor,
    DeepAVFusionImageProcessor,
    DeepAVFusionProcessor,
    DeepAVFusionVideoProcessor,
    MediaError,
    load_clip,
)
from deepavfusion.processors.auto_processing_deepavfusion import register_pipelines

from .auto_deepavfusion import AUTO_MODELS
from .classification_deepavfusion import DeepAVFusionClassifierOutput, DeepAVFusionForAudioVisualClassification
from .configuration_deepavfusion import DeepAVFusionConfig
from .conversion_deepavfusion import export_original_state_dict, load_original_checkpoint
from .localization_deepavfusion import DeepAVFusionForSoundLocalization, DeepAVFusionSoundLocalizationOutput
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .outputs_deepavfusion import DeepAVFusionModelOutput
from .pretraining_deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionForPreTrainingOutput
from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation, DeepAVFusionSemanticSegmentationOutput
from .separation_deepavfusion import DeepAVFusionForSourceSeparation, DeepAVFusionSourceSeparationOutput
from .trainer_card_deepavfusion import register_trainer_card
from .unimodal_deepavfusion import load_unimodal

AutoConfig.register("deepavfusion", DeepAVFusionConfig)
for _auto_class, _model_class in AUTO_MODELS.items():
    getattr(transformers, _auto_class).register(DeepAVFusionConfig, _model_class)
AutoProcessor.register(DeepAVFusionConfig, DeepAVFusionProcessor)
AutoFeatureExtractor.register(DeepAVFusionConfig, DeepAVFusionFeatureExtractor)
AutoVideoProcessor.register(DeepAVFusionConfig, DeepAVFusionVideoProcessor)
# One class for both backends: it needs neither.
AutoImageProcessor.register(
    DeepAVFusionConfig,
    image_processor_classes={"torchvision": DeepAVFusionImageProcessor, "pil": DeepAVFusionImageProcessor},
)
register_pipelines()
register_trainer_card()


class _RegisteredPipelines:
    """Hide `config.custom_pipelines` from `pipeline`, which would otherwise ask to trust the code of a checkpoint.

    The tasks are already registered here; the entries of a checkpoint are kept for saving.
    """

    def __get__(self, config, owner=None) -> dict:
        return {}

    def __set__(self, config, value: dict) -> None:
        config.__dict__["custom_pipelines"] = value


DeepAVFusionConfig.custom_pipelines = _RegisteredPipelines()  # ty: ignore[missing-attribute]

__all__ = [
    "DeepAVFusionClassifierOutput",
    "DeepAVFusionConfig",
    "DeepAVFusionFeatureExtractor",
    "DeepAVFusionForAudioVisualClassification",
    "DeepAVFusionForPreTraining",
    "DeepAVFusionForPreTrainingOutput",
    "DeepAVFusionForSemanticSegmentation",
    "DeepAVFusionForSoundLocalization",
    "DeepAVFusionForSourceSeparation",
    "DeepAVFusionImageProcessor",
    "DeepAVFusionModel",
    "DeepAVFusionModelOutput",
    "DeepAVFusionPreTrainedModel",
    "DeepAVFusionProcessor",
    "DeepAVFusionSemanticSegmentationOutput",
    "DeepAVFusionSoundLocalizationOutput",
    "DeepAVFusionSourceSeparationOutput",
    "DeepAVFusionVideoProcessor",
    "MediaError",
    "export_original_state_dict",
    "load_clip",
    "load_original_checkpoint",
    "load_unimodal",
]
