"""Videos for DeepAVFusion: the picture transform with one crop for all frames of a clip."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from .image_processing_deepavfusion import IMAGENET_MEAN, IMAGENET_STD, PictureTransform, to_pixels


def spread_frames(count: int, num_frames: int) -> list[int]:
    """Indices of `num_frames` of `count` frames: the middles of as many equal parts. Too few are repeated."""
    return [min(int((i + 0.5) * count / num_frames), count - 1) for i in range(num_frames)]


class DeepAVFusionVideosKwargs(VideosKwargs, total=False):
    """Settings that `from_pretrained` can override.

    crop_pct (`float`):
        Share of the resized frame's covering side that the crop keeps.
    """

    crop_pct: float


class DeepAVFusionVideoProcessor(PictureTransform, VideoProcessorMixin):
    """
    Videos → `pixel_values`: the evaluation transform of [`DeepAVFusionImageProcessor`], the same crop for all frames.

    Args:
        size: side of the square output in pixels, or [height, width].
        num_frames: frames of a clip; of a longer or shorter one as many are taken, spread evenly.
        crop_pct: share of the resized frame's side that the crop keeps.
        image_mean, image_std: per channel, of pixels in 0..1.
    """

    model_input_names = ["pixel_values"]
    valid_kwargs = DeepAVFusionVideosKwargs

    def __init__(
        self,
        size: Any = 224,
        num_frames: int = 8,
        crop_pct: float = 0.875,
        image_mean: Sequence[float] = IMAGENET_MEAN,
        image_std: Sequence[float] = IMAGENET_STD,
        **kwargs,
    ):
        kwargs.pop("video_processor_type", None)
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}: expected at least 1.")
        ImageProcessingMixin.__init__(self, **kwargs)
        self._set(size, crop_pct, image_mean, image_std)
        self.num_frames = num_frames

    def __call__(self, videos, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        return self.preprocess(videos, return_tensors=return_tensors, channels_first=channels_first)

    def preprocess(self, videos, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        """
        Args:
            videos: a clip or a list of clips. A clip is a 4-D array or tensor (T, H, W, C) or (T, C, H, W), or a list
                of pictures (PIL, numpy, torch) of one size. A 5-D array is a batch of clips.
            return_tensors: `"pt"` or `"np"`.
            channels_first: layout of arrays; None tells by the channel count.

        Returns:
            `pixel_values` (B, num_frames, 3, height, width) float32.

        Raises:
            TypeError, ValueError: for input that is no video, or frames of different sizes.
        """
        clips = [self._clip(video, channels_first) for video in as_videos(videos)]
        return BatchFeature({"pixel_values": torch.stack(clips)}, tensor_type=return_tensors)

    def _clip(self, video, channels_first: bool | None) -> torch.Tensor:
        if len(video) == 0:
            raise ValueError("Expected a video with at least one frame, got none.")
        frames = [to_pixels(video[i], channels_first) for i in spread_frames(len(video), self.num_frames)]
        if len({(frame.shape, frame.dtype) for frame in frames}) > 1:
            found = sorted({(tuple(frame.shape), str(frame.dtype)) for frame in frames})
            raise ValueError(f"Expected frames of one size and dtype in a video, got {found}.")
        return self.transform(torch.stack(frames))


def as_videos(videos: Any) -> list:
    """A list of clips, each indexable by frame, or None for an absent one. A list of pictures is one clip."""
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim not in (4, 5):
            shape = tuple(videos.shape)
            raise ValueError(
                f"Expected a video of shape (T, H, W, C) or (T, C, H, W), or a batch of them, got {shape}."
            )
        return list(videos) if videos.ndim == 5 else [videos]
    if not isinstance(videos, (list, tuple)):
        raise TypeError(f"Expected a video as an array, a tensor or a list of frames, got {type(videos).__name__}.")
    if not videos:
        raise ValueError("Expected at least one video, got an empty list.")
    first = next((video for video in videos if video is not None), None)
    several = first is None or isinstance(first, (list, tuple)) or getattr(first, "ndim", 0) == 4
    return list(videos) if several else [videos]


DeepAVFusionVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = ["DeepAVFusionVideoProcessor"]
