"""DeepAVFusion: early-fusion audio-visual transformers for Hugging Face transformers.

Importing this package registers its classes with the Auto classes.
"""

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from .configuration_deepavfusion import DeepAVFusionConfig
from .modeling_deepavfusion import DeepAVFusionModel, DeepAVFusionModelOutput, DeepAVFusionPreTrainedModel
from .pretraining_deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionForPreTrainingOutput
from .version import __version__

AutoConfig.register("deepavfusion", DeepAVFusionConfig)
AutoModel.register(DeepAVFusionConfig, DeepAVFusionModel)
AutoModelForPreTraining.register(DeepAVFusionConfig, DeepAVFusionForPreTraining)

__all__ = [
    "DeepAVFusionConfig",
    "DeepAVFusionForPreTraining",
    "DeepAVFusionForPreTrainingOutput",
    "DeepAVFusionModel",
    "DeepAVFusionModelOutput",
    "DeepAVFusionPreTrainedModel",
    "__version__",
]
