"""Processors and pipelines: convert files, images and audio to model inputs, and model outputs to results."""

from .auto_processing_deepavfusion import DeepAVFusionProcessor
from .feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor
from .image_processing_deepavfusion import DeepAVFusionImageProcessor
from .media_deepavfusion import Clip, MediaError, MediaInfo, dense_timestamps, load_clip, probe_clip
from .video_processing_deepavfusion import DeepAVFusionVideoProcessor

__all__ = [
    "Clip",
    "DeepAVFusionFeatureExtractor",
    "DeepAVFusionImageProcessor",
    "DeepAVFusionProcessor",
    "DeepAVFusionVideoProcessor",
    "MediaError",
    "MediaInfo",
    "dense_timestamps",
    "load_clip",
    "probe_clip",
]
