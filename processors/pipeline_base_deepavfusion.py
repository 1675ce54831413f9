"""Base class of the pipelines: media files and arrays to batches of model inputs."""

import difflib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers.pipelines.base import ChunkPipeline

from .image_processing_deepavfusion import to_pixels
from .media_deepavfusion import dense_timestamps, is_file, load_clip, probe_clip

_ARRAYS = ("image", "audio", "sampling_rate")


class DeepAVFusionPipeline(ChunkPipeline):
    """
    What the pipelines share: files are read in windows, each a row of a batch.

    An input is a media file (a path, its bytes or a binary file object), or a mapping with `image` (PIL, numpy, torch,
    or the path of a picture), `audio` and its `sampling_rate`, or one of the two. A list of inputs gives a list of
    results, a generator an iterator over them. `batch_size` counts windows.

    `timestamps` (s, a number or a list) says which moments of a file to look at, `num_clips` how many windows to spread
    over it; by default it is the one in its middle.
    """

    _load_processor = True
    processor: Any
    _load_tokenizer = _load_feature_extractor = _load_image_processor = _load_video_processor = False
    # Of the subclasses: name of the model class, Auto class, what a file must have.
    model_name: str
    auto_class: str
    require = "any"

    def __init__(self, model, processor, **kwargs):
        name = type(model).__name__
        if self.model_name != "DeepAVFusionModel" and name.startswith("DeepAVFusion") and name != self.model_name:
            raise ValueError(f"Expected a {self.model_name} for {type(self).__name__}, got a {name}.")
        self._warn_of_new_head(model)
        super().__init__(model, processor=processor, **kwargs)
        self.tokenizer = None  # the processor's stand-in would be asked to pad texts
        self.model.eval()

    def _warn_of_new_head(self, model) -> None:
        """Says so where the checkpoint was of another task, whose head is none of this one's."""
        stored = model.config.architectures or []
        if self.model_name != "DeepAVFusionModel" and stored and self.model_name not in stored:
            warnings.warn(
                f"{model.config.name_or_path or 'The model'} was saved as {', '.join(stored)}, not as a "
                f"{self.model_name}: unless you have trained it since, its head is random, and so are its answers.",
                stacklevel=3,
            )

    def __call__(self, inputs, **kwargs):
        """
        Args:
            inputs: one input, a list or tuple of them, a generator or a dataset.
            kwargs: parameters of this pipeline; and `batch_size` and `num_workers`.

        Raises:
            MediaError: for a file that cannot be read or lacks what the task needs; the message names it.
            TypeError, ValueError: for other inputs or parameters.
        """
        if isinstance(inputs, (list, tuple)):
            return super().__call__(list(inputs), **kwargs) if inputs else []
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **kwargs):
        preprocess = {name: kwargs.pop(name) for name in ("timestamps", "num_clips") if name in kwargs}
        postprocess = {name: kwargs.pop(name) for name in self.post_parameters if name in kwargs}
        if kwargs:
            known = ", ".join(("timestamps", "num_clips", *self.post_parameters))
            raise TypeError(f"Unexpected parameters: {', '.join(kwargs)}. {type(self).__name__} knows {known}.")
        return preprocess, {}, postprocess

    post_parameters: tuple[str, ...] = ()

    def preprocess(self, inputs, timestamps=None, num_clips: int | None = None) -> Iterator[dict[str, Any]]:
        several = num_clips is not None or isinstance(timestamps, (list, tuple))
        clips = list(self._clips(inputs, timestamps, num_clips))
        for index, (picture, sound, rate, time) in enumerate(clips):
            frame = None if picture is None else as_frame(picture)
            about = {"frame": frame, "timestamp": time, "several": several}
            yield {"is_last": index == len(clips) - 1, **self._row(picture, sound, rate), "about": about}

    def _clips(self, inputs, timestamps, num_clips: int | None) -> Iterator[tuple]:
        """(picture or frames, sound, its rate in Hz, moment in s) of each window."""
        if isinstance(inputs, Mapping):
            if timestamps is not None or num_clips is not None:
                raise ValueError("timestamps and num_clips choose windows of files: expected a file.")
            yield (*read_arrays(inputs, self.require), None)
            return
        check_file(inputs)
        seconds = self.processor.feature_extractor.seconds
        if num_clips is not None:
            if timestamps is not None:
                raise ValueError("Expected timestamps or num_clips, got both.")
            if num_clips < 1:
                raise ValueError(f"num_clips is {num_clips}: expected at least 1.")
            times = dense_timestamps(*probe_clip(inputs).span, num_clips, seconds)
        else:
            times = list(timestamps) if isinstance(timestamps, (list, tuple)) else [timestamps]
            if not times:
                raise ValueError("Expected at least one timestamp, got none.")
        for time in times:
            clip = load_clip(inputs, time, self.processor.num_frames, seconds, self.require)
            yield clip.frames, clip.waveform, clip.sampling_rate, clip.timestamp

    def _row(self, picture, sound, rate: int | None) -> dict[str, torch.Tensor]:
        """One sample with both modalities; one that is absent is 0."""
        sight = {} if picture is None else {"videos" if is_clip(picture) else "images": [picture]}
        heard = {} if sound is None else {"audio": [sound], "sampling_rate": rate}
        return self._complete(self.processor(**sight, **heard))

    def _complete(self, inputs: Mapping) -> dict[str, torch.Tensor]:
        """The same fields for every sample, so that any can lie in a batch."""
        shapes = self.model.config.input_shapes
        row = {name: inputs[name] if name in inputs else torch.zeros(1, *shape) for name, shape in shapes.items()}
        row["image_present"] = torch.tensor(["pixel_values" in inputs])
        row["audio_present"] = torch.tensor(["input_features" in inputs])
        return row

    def _forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        carried = {name: batch.pop(name) for name in ("is_last", "about")}
        inputs = {}
        for values, mask in (("pixel_values", "image_present"), ("input_features", "audio_present")):
            present = batch[mask]
            if present.any():
                inputs[values] = batch[values].to(self.model.dtype)
                if not present.all():
                    inputs[mask] = present
        presence = {name: batch[name] for name in ("image_present", "audio_present")}
        return {**self.run_model(inputs), **presence, **carried}

    def run_model(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs of the model, each with a row for each sample."""
        return {"logits": self.model(**inputs).logits}

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """Saves model and processor with their code and this pipeline's, as a folder that loads anywhere."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def is_clip(picture: Any) -> bool:
    """Whether a picture is frames (T, H, W, 3), as they are read from files."""
    return getattr(picture, "ndim", 3) == 4


def as_frame(picture: Any) -> np.ndarray:
    """(H, W, 3) uint8 of a picture, or of the middle one of frames (T, H, W, 3)."""
    pixels = to_pixels(picture[len(picture) // 2] if is_clip(picture) else picture)
    pixels = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().numpy()


def check_file(item: Any) -> None:
    """Raises `TypeError` for what is no file."""
    if not is_file(item):
        raise TypeError(
            "Expected a media file as a path, bytes or a binary file object, or a mapping with image and audio, got "
            f"{type(item).__name__}."
        )


def read_picture(picture: Any) -> Any:
    """A picture as it is, or the one in a file."""
    return load_clip(picture, require="image").frames[0] if is_file(picture) else picture


def read_arrays(inputs: Mapping, require: str) -> tuple[Any, Any, int | None]:
    """Picture, sound and its rate of a mapping; what is required has to be there."""
    unknown = set(inputs) - set(_ARRAYS)
    if unknown:
        close = {word: difflib.get_close_matches(str(word), _ARRAYS, n=1) for word in sorted(unknown, key=str)}
        hint = "".join(f" Did you mean {names[0]!r} for {word!r}?" for word, names in close.items() if names)
        raise ValueError(f"Expected a mapping with {', '.join(_ARRAYS)}, got {', '.join(map(repr, inputs))}.{hint}")
    picture, sound, rate = (inputs.get(name) for name in _ARRAYS)
    if (picture is None and sound is None) or {"image": picture, "audio": sound}.get(require, 0) is None:
        raise ValueError(f"Expected {'image or audio' if require == 'any' else require} in the mapping, got none.")
    return None if picture is None else read_picture(picture), sound, rate


__all__ = ["DeepAVFusionPipeline", "as_frame", "check_file", "is_clip", "read_arrays", "read_picture"]
