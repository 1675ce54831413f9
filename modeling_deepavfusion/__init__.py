"""DeepAVFusion: early-fusion audio-visual transformers for Hugging Face transformers.

Importing this package registers its classes with the Auto classes.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForPreTraining,
    AutoModelForSemanticSegmentation,
    AutoModelForVideoClassification,
)

from .classification_deepavfusion import DeepAVFusionClassifierOutput, DeepAVFusionForAudioVisualClassification
from .configuration_deepavfusion import DeepAVFusionConfig
from .conversion_deepavfusion import export_original_state_dict, load_original_checkpoint
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionModelOutput, DeepAVFusionPreTrainedModel
from .pretraining_deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionForPreTrainingOutput
from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation, DeepAVFusionSemanticSegmentationOutput
from .separation_deepavfusion import DeepAVFusionForSourceSeparation, DeepAVFusionSourceSeparationOutput
from .unimodal_deepavfusion import load_unimodal
from .version import __version__

AutoConfig.register("deepavfusion", DeepAVFusionConfig)
AutoModel.register(DeepAVFusionConfig, DeepAVFusionModel)
AutoModelForPreTraining.register(DeepAVFusionConfig, DeepAVFusionForPreTraining)
AutoModelForVideoClassification.register(DeepAVFusionConfig, DeepAVFusionForAudioVisualClassification)
AutoModelForAudioClassification.register(DeepAVFusionConfig, DeepAVFusionForAudioVisualClassification)
AutoModelForAudioFrameClassification.register(DeepAVFusionConfig, DeepAVFusionForSourceSeparation)
AutoModelForSemanticSegmentation.register(DeepAVFusionConfig, DeepAVFusionForSemanticSegmentation)

__all__ = [
    "DeepAVFusionClassifierOutput",
    "DeepAVFusionConfig",
    "DeepAVFusionForAudioVisualClassification",
    "DeepAVFusionForPreTraining",
    "DeepAVFusionForPreTrainingOutput",
    "DeepAVFusionForSemanticSegmentation",
    "DeepAVFusionForSourceSeparation",
    "DeepAVFusionModel",
    "DeepAVFusionModelOutput",
    "DeepAVFusionPreTrainedModel",
    "DeepAVFusionSemanticSegmentationOutput",
    "DeepAVFusionSourceSeparationOutput",
    "__version__",
    "export_original_state_dict",
    "load_original_checkpoint",
    "load_unimodal",
]
