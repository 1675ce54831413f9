"""What turns files, pictures and sounds into the inputs of DeepAVFusion models, and their outputs back."""

from .augmentation_deepavfusion import ClipAugmentation
from .feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor
from .image_processing_deepavfusion import DeepAVFusionImageProcessor
from .processing_deepavfusion import DeepAVFusionProcessor
from .video_processing_deepavfusion import DeepAVFusionVideoProcessor

__all__ = [
    "ClipAugmentation",
    "DeepAVFusionFeatureExtractor",
    "DeepAVFusionImageProcessor",
    "DeepAVFusionProcessor",
    "DeepAVFusionVideoProcessor",
]
