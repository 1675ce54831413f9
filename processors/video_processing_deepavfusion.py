"""Video processor: the image transform, the same for all frames of a clip."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin
from transformers.video_utils import VideoMetadata

from .image_processing_deepavfusion import ImageTransform
from .media_deepavfusion import load_clip
from .numbers_deepavfusion import MAX_FRAMES, is_count
from .sources_deepavfusion import as_items, is_file
from .threads_deepavfusion import use_one_thread_after_fork


def spread_frames(count: int, num_frames: int) -> list[int]:
    """Choose `num_frames` of `count` frames: the middles of as many equal parts. Frames repeat if there are too few."""
    return [min(int((i + 0.5) * count / num_frames), count - 1) for i in range(num_frames)]


class DeepAVFusionVideoProcessorKwargs(VideosKwargs, total=False):
    """Options of the video processor besides those of transformers.

    crop_pct (`float`):
        Fraction of the resized frame's side that the crop keeps.
    fit (`str`):
        How frames of another shape are fitted: crop, pad, squash or tiles.
    """

    crop_pct: float | int | None
    fit: str | None


class DeepAVFusionVideoProcessor(ImageTransform, VideoProcessorMixin):
    """Evaluation transform of videos to `pixel_values`.

    Frames are processed as by [`DeepAVFusionImageProcessor`], all alike.

    Args:
        num_frames: Number of frames of a clip, 8 by default. They are spread evenly over the frames that are given.
        do_sample_frames: False to use all frames that are given; of files, `num_frames` are.
        **kwargs: Options of [`DeepAVFusionImageProcessor`].
    """

    model_input_names = ["pixel_values"]
    valid_kwargs = DeepAVFusionVideoProcessorKwargs
    num_frames = 8
    do_sample_frames = True

    def __init__(self, **kwargs: Unpack[DeepAVFusionVideoProcessorKwargs]):
        """Check and store the options."""
        super().__init__(**kwargs)

    def _standardize_kwargs(self, **kwargs) -> dict:
        if not is_count(kwargs["num_frames"], MAX_FRAMES):
            raise ValueError(
                f"Expected num_frames of at least 1 and at most {MAX_FRAMES}, got {kwargs['num_frames']!r}."
            )
        return super()._standardize_kwargs(**kwargs)

    def preprocess(self, videos, **kwargs: Unpack[DeepAVFusionVideoProcessorKwargs]) -> BatchFeature:
        """Select, resize, fit and normalize the frames of videos.

        Args:
            videos: A video or a sequence of videos. A video is a 4-D array or tensor, (T, H, W, C) or (T, C, H, W), a
                sequence of images (PIL, numpy, torch) of one size, or a file, see `is_file`. A 5-D array is a batch.
            **kwargs: Options of this call, instead of the processor's own; and `return_tensors` (`"pt"` or `"np"`),
                `input_data_format` ("channels_first" or "channels_last", for arrays), `device` and `return_metadata`.

        Returns:
            `pixel_values` (B, num_frames, 3, height, width) float32. With `fit="tiles"`, each video has as many rows as
            tiles. On request, `video_metadata`, one for each video.

        Raises:
            MediaError: If a file cannot be read.
            TypeError: If an item is not a video.
            ValueError: If a video has no frames, or frames of different sizes.
        """
        use_one_thread_after_fork()
        count = kwargs.get("num_frames")
        processor = self if count is None else self.with_options(num_frames=count)
        return super(DeepAVFusionVideoProcessor, processor).preprocess(videos, **kwargs)

    def sample_frames(self, metadata: VideoMetadata, num_frames: int | None = None, fps=None, **kwargs) -> list[int]:
        """Choose the frames of a video, see `spread_frames`.

        Raises:
            ValueError: If a frame rate is given.
        """
        if fps is not None:
            raise ValueError(f"Expected num_frames, which the model needs, and no fps, got {fps}.")
        return spread_frames(metadata.total_num_frames, self.num_frames if num_frames is None else num_frames)

    def _decode_and_sample_videos(self, videos, video_metadata=None, do_sample_frames=None, sample_indices_fn=None):
        clips, metadata = [], []
        for video in as_videos(videos):
            if video is None:
                raise _no_video(video)
            if is_file(video):
                video = load_clip(video, None, self.num_frames, seconds=None, require="image").frames
            about = VideoMetadata(total_num_frames=len(video), frames_indices=list(range(len(video))))
            if do_sample_frames:
                about.frames_indices = sample_indices_fn(metadata=about)
            clips.append([video[i] for i in about.frames_indices])
            metadata.append(about)
        return clips, metadata

    def _prepare_input_videos(self, videos, do_convert_rgb=None, input_data_format=None, device=None):
        return [(video, input_data_format, device) for video in videos]

    def _preprocess(self, videos, return_tensors=None, **options) -> BatchFeature:
        transform = self.with_options(**options)
        clips = []
        for video, input_data_format, device in videos:
            frames = [transform.pixels(frame, input_data_format, device) for frame in video]
            if len({(frame.shape, frame.dtype) for frame in frames}) > 1:
                found = sorted({(tuple(frame.shape), str(frame.dtype)) for frame in frames})
                raise ValueError(f"Expected frames of one size and dtype in a video, got {found}.")
            clips.append(transform.views(torch.stack(frames)))
        return BatchFeature({"pixel_values": torch.cat(clips)}, tensor_type=return_tensors)


def as_videos(videos: Any) -> list:
    """List the videos of a batch, each a file or indexable by frame, or None if absent.

    A sequence of images is one video.

    Raises:
        TypeError: If `videos`, or one of them, is neither a file, an array nor a sequence.
        ValueError: If an array has the wrong number of axes, or a sequence or a video is empty.
    """
    if is_file(videos):
        return [videos]
    items = as_items(videos)
    if items is None:
        shape = getattr(videos, "shape", None)
        if shape is None:
            raise _no_video(videos)
        if len(shape) not in (4, 5):
            raise ValueError(
                "Expected a video of shape (T, H, W, C) or (T, C, H, W), or a batch of videos, got shape "
                f"{tuple(shape)}."
            )
        items = list(videos) if len(shape) == 5 else [videos]
    else:
        first = next((video for video in items if video is not None), None)
        several = first is None or is_file(first) or isinstance(first, (list, tuple)) or getattr(first, "ndim", 0) == 4
        items = items if several else [items]
    if not items:
        raise ValueError("Expected at least one video, got an empty list.")
    for video in items:
        if video is None or is_file(video):
            continue
        if isinstance(video, Mapping) or not hasattr(video, "__getitem__") or getattr(video, "ndim", 1) == 0:
            raise _no_video(video)
        if len(video) == 0:
            raise ValueError("Expected a video with at least one frame, got none.")
    return items


def _no_video(value: Any) -> TypeError:
    return TypeError(f"Expected a video as a file, an array, a tensor or a list of frames, got {type(value).__name__}.")


DeepAVFusionVideoProcessor.register_for_auto_class("AutoVideoProcessor")

__all__ = ["DeepAVFusionVideoProcessor"]
