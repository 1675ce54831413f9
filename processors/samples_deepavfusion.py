"""Samples of a call of the processor: from images, videos, sounds and files to views of images and spectrograms."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from .feature_extraction_deepavfusion import rates_of
from .media_deepavfusion import MediaInfo, load_clips, load_windows
from .numbers_deepavfusion import to_tensor
from .pixels_deepavfusion import as_list
from .sources_deepavfusion import as_items, is_file
from .timestamps_deepavfusion import window_times, window_timestamps
from .video_processing_deepavfusion import as_videos
from .waveforms_deepavfusion import as_waveforms, to_mono, with_own_rate


class SampleReader:
    """Converts inputs with the parts of a processor and the options of a call.

    Images become a list with the views (K, ..., 3, height, width) of each sample, sounds a list with the outputs of the
    feature extractor for each; None stands for a missing one.

    Args:
        processor: A `DeepAVFusionProcessor`.
        images_kwargs: Options of the image processor.
        videos_kwargs: Options of the video processor.
        audio_kwargs: Options of the feature extractor.
    """

    def __init__(self, processor, images_kwargs: Mapping, videos_kwargs: Mapping, audio_kwargs: Mapping):
        self.processor = processor
        self._visual = {"images": images_kwargs, "videos": videos_kwargs}
        self._audible = dict(audio_kwargs)

    def images(self, images: Any) -> list:
        """Views of images; video models repeat each in all frames."""
        items = as_list(images, ndim=3)
        if self.processor.image_processor is None and self.processor.video_processor is not None:
            items = [None if image is None else [image] for image in items]
        return [None if item is None else self._views(item, "images") for item in items]

    def image_shape(self) -> torch.Size:
        """Shape of a view with the options of the call."""
        return self.images([torch.zeros(3, 8, 8, dtype=torch.uint8)])[0][0].shape

    def videos(self, videos: Any) -> list:
        """Views of videos; image models use the middle frame."""
        clips = as_videos(videos)
        if self.processor.video_processor is None:
            clips = [None if clip is None else clip[len(clip) // 2] for clip in clips]
        return [None if clip is None else self._views(clip, "videos") for clip in clips]

    def _views(self, item: Any, kind: str) -> torch.Tensor:
        """Process an image or video with the options for its kind, and those for the other that apply, too."""
        part = self.processor.visual_processor
        other = self._visual["videos" if kind == "images" else "images"]
        shared = {name: value for name, value in other.items() if name in part.valid_kwargs.__annotations__}
        return part([item], **{**shared, **self._visual[kind]}).pixel_values

    def audio(self, audio: Any) -> list:
        """Outputs of the feature extractor for sounds, from their start."""
        sounds = as_waveforms(audio)
        rates = rates_of(self._audible.get("sampling_rate"), len(sounds))
        present = [(sound, rate) for sound, rate in zip(sounds, rates, strict=True) if sound is not None]
        if not present:
            return sounds
        waveforms, known = zip(*present, strict=True)
        rows = iter(self._features(list(waveforms), list(known)))
        return [None if sound is None else next(rows) for sound in sounds]

    def _features(self, waveforms: list, rates: list) -> list[dict[str, torch.Tensor]]:
        rates = rates if any(rate is not None for rate in rates) else None
        outputs = self.processor.feature_extractor(waveforms, **{**self._audible, "sampling_rate": rates})
        return [{name: values[i] for name, values in outputs.items()} for i in range(len(waveforms))]

    def files(self, files: Sequence, timestamps: Any, num_clips: int | None, audio: Any = None) -> tuple[list, list]:
        """Views and outputs of the feature extractor for windows of files.

        Args:
            files: Files; None for a sample without images.
            timestamps: As in a call of the processor, for each file.
            num_clips: As in a call of the processor.
            audio: Sounds of the files, instead of their own, of which the same windows are used.
        """
        sounds = None if audio is None else as_waveforms(audio)
        if sounds is not None and len(sounds) != len(files):
            raise ValueError(f"Expected as many sounds as videos, got {len(sounds)} and {len(files)}.")
        rates = rates_of(self._audible.get("sampling_rate"), len(files))
        frames, features = [], []
        for index, (file, times) in enumerate(zip(files, timestamps, strict=True)):
            sound = None if sounds is None else sounds[index]
            if file is None and sound is None:
                raise ValueError(f"Expected a file or audio in every sample, got neither in sample {index}.")
            if file is not None and not is_file(file):
                raise TypeError(f"Expected files alone, or none, in videos, got {type(file).__name__} beside a file.")
            if sounds is None:
                windows = self._windows(file, times, num_clips, "any")
            else:
                windows = self._windows_with(file, times, num_clips, sound, rates[index])
            for images, heard in windows:
                frames += [None] if images is None else self.videos([images])
                features += [None] if heard is None else self._features([heard[0]], [heard[1]])
        return frames, features

    def _windows(self, file: Any, times: Any, num_clips: int | None, require: str) -> Iterator[tuple]:
        """Yield the frames and (waveform, sampling rate) of each window of a file."""
        for clip in load_clips(file, times, num_clips, **self._options(require)):
            yield clip.frames, None if clip.waveform is None else (clip.waveform, clip.sampling_rate)

    def _windows_with(self, file: Any, times: Any, num_clips: int | None, sound: Any, rate: Any) -> Iterator[tuple]:
        """Yield the frames of each window of a file, if any, and the same window of a sound, if any."""
        if sound is None:
            yield from ((images, None) for images, _ in self._windows(file, times, num_clips, "image"))
            return
        waveform, own = with_own_rate(sound, rate)
        waveform, rate = to_mono(waveform), self.processor.feature_extractor.check_rate(own)
        length = waveform.shape[-1] / rate

        def place(info: MediaInfo | None) -> list[float]:
            start, end = (0.0, length) if info is None else info.span
            overlap = min(start, length), min(end, length)
            middles = window_timestamps(lambda: overlap, times, num_clips, self._seconds)
            return [sum(overlap) / 2 if time is None else time for time in middles]

        if file is None:
            windows = ((None, time) for time in place(None))
        else:
            clips = load_windows(file, place, **self._options("image"))
            windows = ((clip.frames, clip.timestamp) for clip in clips)
        for images, time in windows:
            if time > length + 0.05:
                raise ValueError(f"Expected audio up to the timestamp {time:.2f} s, got {length:.2f} s.")
            start = max(round(window_times(0.0, length, min(time, length), 1, self._seconds)[0] * rate), 0)
            yield images, (waveform[start : start + round(self._seconds * rate)], rate)

    def _options(self, require: str) -> dict[str, Any]:
        """Options of `load_clips` and `load_windows`."""
        num_frames = 1 if self.processor.video_processor is None else self._num_frames
        return {"num_frames": num_frames, "seconds": self._seconds, "require": require}

    @property
    def _seconds(self) -> float:
        return self.processor.feature_extractor.seconds

    @property
    def _num_frames(self) -> int:
        return self._visual["videos"].get("num_frames") or self.processor.num_frames


def files_of(videos: Any) -> list | None:
    """List the files of `videos`; None if there is no file among them."""
    items = [videos] if is_file(videos) else as_items(videos)
    return items if items and any(is_file(item) for item in items) else None


def collate_values(name: str, values: Sequence) -> torch.Tensor | list[str]:
    """Stack the values of a field of samples; text is returned as a list.

    Raises:
        ValueError: If a value is missing, or they are neither all text nor numbers of one shape.
    """
    if all(isinstance(value, str) for value in values):
        return list(values)
    if (index := next((i for i, value in enumerate(values) if value is None), None)) is not None:
        raise ValueError(f"Expected {name} in every sample, got none in sample {index}.")
    try:
        return torch.stack([to_tensor(value) for value in values])
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"Expected text, or numbers of one shape, as {name} of every sample, but: {error}.") from error


__all__ = ["SampleReader", "collate_values", "files_of"]
