"""The Auto class and the pipelines of each model, and the code that is saved with a checkpoint.

The `auto_map` of a checkpoint refers to this file, which imports every model. Any checkpoint therefore loads through
any of the Auto classes, and saving it again copies all of the code.
"""

import os

from transformers.dynamic_module_utils import custom_object_save

from .classification_deepavfusion import DeepAVFusionForAudioVisualClassification
from .localization_deepavfusion import DeepAVFusionForSoundLocalization
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .pretraining_deepavfusion import DeepAVFusionForPreTraining
from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation
from .separation_deepavfusion import DeepAVFusionForSourceSeparation

AUTO_MODELS = {
    "AutoModel": DeepAVFusionModel,
    "AutoModelForPreTraining": DeepAVFusionForPreTraining,
    "AutoModelForVideoClassification": DeepAVFusionForAudioVisualClassification,
    "AutoModelForAudioClassification": DeepAVFusionForAudioVisualClassification,
    "AutoModelForAudioFrameClassification": DeepAVFusionForSourceSeparation,
    "AutoModelForSemanticSegmentation": DeepAVFusionForSemanticSegmentation,
    "AutoModelForMaskGeneration": DeepAVFusionForSoundLocalization,
}

# Task -> Auto class of its model, class of its pipeline in pipelines_deepavfusion, which is saved with the processor.
_PIPELINES = {
    "audio-visual-classification": ("AutoModelForVideoClassification", "AudioVisualClassificationPipeline"),
    "audio-visual-source-separation": ("AutoModelForAudioFrameClassification", "AudioVisualSourceSeparationPipeline"),
    "audio-visual-segmentation": ("AutoModelForSemanticSegmentation", "AudioVisualSegmentationPipeline"),
    "sound-source-localization": ("AutoModelForMaskGeneration", "SoundSourceLocalizationPipeline"),
    "audio-visual-feature-extraction": ("AutoModel", "AudioVisualFeatureExtractionPipeline"),
}


def custom_pipelines(model_class: type) -> dict[str, dict]:
    """`config.custom_pipelines` of a model class: its own task, if it has one, and feature extraction."""
    return {
        task: {"impl": f"pipelines_deepavfusion.{pipeline}", "pt": [auto], "type": "multimodal"}
        for task, (auto, pipeline) in _PIPELINES.items()
        if auto == "AutoModel" or issubclass(model_class, AUTO_MODELS[auto])
    }


def prepare_to_save(model: DeepAVFusionPreTrainedModel) -> None:
    """Set `auto_map` and `custom_pipelines` in a model's configuration, which refer to the code that loads it."""
    module = __name__.split(".")[-1]
    names = {auto: f"{module}.{cls.__name__}" for auto, cls in AUTO_MODELS.items()}
    model.config.auto_map = {**(getattr(model.config, "auto_map", None) or {}), **names}
    model.config.custom_pipelines = custom_pipelines(type(model))


def copy_code(folder: str | os.PathLike) -> None:
    """Copy this file and everything it imports, directly or indirectly, into a folder."""
    os.makedirs(folder, exist_ok=True)
    custom_object_save(copy_code, folder)  # any object defined in this file will do


# Set here because the base class does the saving but must not import its subclasses.
DeepAVFusionPreTrainedModel._prepare_to_save = prepare_to_save
DeepAVFusionPreTrainedModel._copy_code = staticmethod(copy_code)

__all__ = ["AUTO_MODELS", "custom_pipelines"]
