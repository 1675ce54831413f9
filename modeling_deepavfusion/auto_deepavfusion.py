"""The Auto class and the pipelines of each model, and the code that is saved with a checkpoint.

The `auto_map` of a checkpoint refers to this file, which imports every model. Any checkpoint therefore loads through
any of the Auto classes, and saving it again copies all of the code.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from transformers.dynamic_module_utils import custom_object_save

from .classification_deepavfusion import DeepAVFusionForAudioVisualClassification
from .localization_deepavfusion import DeepAVFusionForSoundLocalization
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionPreTrainedModel
from .pretraining_deepavfusion import DeepAVFusionForPreTraining
from .segmentation_deepavfusion import DeepAVFusionForSemanticSegmentation
from .separation_deepavfusion import DeepAVFusionForSourceSeparation

if TYPE_CHECKING:  # named here to be saved with this file; only sentence-transformers, which takes seconds, imports it
    from .sentence_transformers_deepavfusion import DeepAVFusionEmbedder  # noqa: F401

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


def save_code(model: DeepAVFusionPreTrainedModel, folder: str | os.PathLike) -> None:
    """Copy this file and everything it names into a folder; beside encoders, say how sentence-transformers loads them.

    Args:
        model: Model that is saved.
        folder: Folder, which may be absent.
    """
    os.makedirs(folder, exist_ok=True)
    custom_object_save(save_code, folder)  # any object defined in this file will do
    if isinstance(model, (DeepAVFusionModel, DeepAVFusionForPreTraining)):
        for name, content in sentence_transformers_files(model.config).items():
            Path(folder, name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def sentence_transformers_files(config) -> dict[str, list | dict]:
    """Files by which `SentenceTransformer` loads an encoder, with the pooling that fits its pre-training."""
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers_deepavfusion.DeepAVFusionEmbedder"}
    # Joint embedding compares fusion tokens; see `DeepAVFusionEmbedder`.
    pooling = "fusion" if config.pretraining_objective == "jepa" else "own"
    forward = {"method": "forward", "method_output_name": "sentence_embedding"}
    modalities = dict.fromkeys(("image", "audio", "video"), forward)
    return {
        "modules.json": [module],
        "sentence_bert_config.json": {"pooling": pooling, "modality_config": modalities},
    }


# Set here because the base class does the saving but must not import its subclasses.
DeepAVFusionPreTrainedModel._prepare_to_save = prepare_to_save
DeepAVFusionPreTrainedModel._save_code = save_code

__all__ = ["AUTO_MODELS", "custom_pipelines", "sentence_transformers_files"]
