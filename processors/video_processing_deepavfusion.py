"""Video processor: the image transform, the same for all frames of a clip."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from .image_processing_deepavfusion import IMAGENET_MEAN, IMAGENET_STD, ImageTransform, to_pixels
from .numbers_deepavfusion import MAX_FRAMES, is_count


def spread_frames(count: int, num_frames: int) -> list[int]:
    """Choose `num_frames` of `count` frames: the middles of as many equal parts. Frames repeat if there are too few."""
    return [min(int((i + 0.5) * count / num_frames), count - 1) for i in range(num_frames)]


class DeepAVFusionVideosKwargs(VideosKwargs, total=False):
    """Settings that `from_pretrained` can override.

    crop_pct (`float`):
        Fraction of the resized frame's side that the crop keeps.
    fit (`str`):
        How frames of another shape are fitted: crop, pad, squash or tiles.
    """

    crop_pct: float
    fit: str


class DeepAVFusionVideoProcessor(ImageTransform, VideoProcessorMixin):
    """Evaluation transform of videos to `pixel_values`.

    Frames are processed as by [`DeepAVFusionImageProcessor`], all alike.

    Args:
        size: Side of the square output in pixels, or [height, width].
        num_frames: Number of frames of a clip. They are spread evenly over the frames that are given.
        crop_pct: Fraction of the resized side that the crop keeps.
        image_mean: Mean of each channel, of pixels in 0..1.
        image_std: Standard deviation of each channel.
        fit: How frames of another shape are fitted, see [`DeepAVFusionImageProcessor`].
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
        fit: str = "crop",
        **kwargs,
    ):
        """Check and store the settings."""
        kwargs.pop("video_processor_type", None)
        if not is_count(num_frames, MAX_FRAMES):
            raise ValueError(f"Expected num_frames of at least 1 and at most {MAX_FRAMES}, got {num_frames!r}.")
        ImageProcessingMixin.__init__(self, **kwargs)
        self._set(size, crop_pct, image_mean, image_std, fit)
        self.num_frames = num_frames

    def __call__(self, videos, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        """Call `preprocess`."""
        return self.preprocess(videos, return_tensors=return_tensors, channels_first=channels_first)

    def preprocess(self, videos, return_tensors: str | None = "pt", channels_first: bool | None = None) -> BatchFeature:
        """Select, resize, fit and normalize the frames of videos.

        Args:
            videos: A video or a list of videos. A video is a 4-D array or tensor, (T, H, W, C) or (T, C, H, W), or a
                list of images (PIL, numpy, torch) of one size. A 5-D array is a batch of videos.
            return_tensors: `"pt"` or `"np"`.
            channels_first: Layout of arrays; inferred from the number of channels by default.

        Returns:
            `pixel_values` (B, num_frames, 3, height, width) float32. With `fit="tiles"`, each video has as many rows as
            tiles.

        Raises:
            TypeError: If an item is not a video.
            ValueError: If a video has no frames, or frames of different sizes.
        """
        clips = [self._clip(video, channels_first) for video in as_videos(videos)]
        return BatchFeature({"pixel_values": torch.cat(clips)}, tensor_type=return_tensors)

    def _clip(self, video, channels_first: bool | None) -> torch.Tensor:
        if len(video) == 0:
            raise ValueError("Expected a video with at least one frame, got none.")
        frames = [to_pixels(video[i], channels_first) for i in spread_frames(len(video), self.num_frames)]
        if len({(frame.shape, frame.dtype) for frame in frames}) > 1:
            found = sorted({(tuple(frame.shape), str(frame.dtype)) for frame in frames})
            raise ValueError(f"Expected frames of one size and dtype in a video, got {found}.")
        return self.views(torch.stack(frames))


def as_videos(videos: Any) -> list:
    """List the videos of a batch, each indexable by frame, or None if absent. A list of images is one video.

    Raises:
        TypeError: If `videos` is neither an array nor a list.
        ValueError: If an array has the wrong number of axes, or a list is empty.
    """
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim not in (4, 5):
            raise ValueError(
                "Expected a video of shape (T, H, W, C) or (T, C, H, W), or a batch of videos, got shape "
                f"{tuple(videos.shape)}."
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
