"""Base class of the pipelines: media files and arrays to batches of model inputs."""

import difflib
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import GeneratorType
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers.pipelines.base import ChunkPipeline

from .media_deepavfusion import load_clip, load_clips
from .pixels_deepavfusion import to_pixels
from .sources_deepavfusion import as_items, is_file
from .timestamps_deepavfusion import as_timestamps
from .waveforms_deepavfusion import with_own_rate

_ARRAYS = ("image", "audio", "sampling_rate")


class DeepAVFusionPipeline(ChunkPipeline):
    """Base class of the pipelines: reads windows of files, each of which becomes a sample of a batch.

    An input is a media file, or a mapping with `image`, `audio` and `sampling_rate`, where image or audio may be
    missing: images (PIL, numpy, torch), waveforms, values of `datasets` or files. Files are what the processor takes:
    paths, addresses, bytes, binary file objects, and values of `datasets`. A sequence of inputs, such as a list or a
    column, gives a list of results, a generator an iterator over them. `batch_size` counts windows.

    `timestamps` (in seconds, a number or a sequence) selects windows of a file, `num_clips` spaces that many evenly
    over it. By default there is one window in the middle. `fit` is how frames of another shape are fitted, by default
    as the processor says: "crop", "pad", "squash", or "tiles", whose outputs are merged.

    Attributes:
        model_name: Name of the model class.
        auto_class: Name of the Auto class that loads it.
        require: What a file must have, as for `load_clip`.
        pre_parameters: Names of the parameters of `preprocess`.
        post_parameters: Names of the parameters of `postprocess`.
        progress: Function that is called with the number of windows after each forward pass, in a `stream` with the
            number of its rows; None by default.
        mixed_precision: Dtype of `torch.autocast` in forward passes, whose outputs are float32 again; None computes in
            the dtype of the model.
    """

    _load_processor = True
    processor: Any
    _load_tokenizer = _load_feature_extractor = _load_image_processor = _load_video_processor = False
    model_name: str
    auto_class: str
    require = "any"
    pre_parameters: tuple[str, ...] = ("timestamps", "num_clips")
    post_parameters: tuple[str, ...] = ()
    progress: Callable[[int], None] | None = None
    mixed_precision: torch.dtype | None = None

    def __init__(self, model, processor, **kwargs):
        """Check the model and set it to eval mode.

        Args:
            model: A model of the class `model_name`.
            processor: Its [`DeepAVFusionProcessor`].
            **kwargs: Other arguments of transformers' `Pipeline`, and parameters of the pipeline.

        Raises:
            ValueError: If the model is for another task.
        """
        name = type(model).__name__
        if self.model_name != "DeepAVFusionModel" and name.startswith("DeepAVFusion") and name != self.model_name:
            raise ValueError(f"Expected a {self.model_name} for {type(self).__name__}, got a {name}.")
        self._warn_of_new_head(model)
        super().__init__(model, processor=processor, **kwargs)
        self.tokenizer = None  # otherwise transformers pads with the processor's special tokens
        self.model.eval()

    def _warn_of_new_head(self, model) -> None:
        """Warn if the checkpoint was saved by a model for another task, so that the head is randomly initialized."""
        stored = model.config.architectures or []
        if self.model_name != "DeepAVFusionModel" and stored and self.model_name not in stored:
            warnings.warn(
                f"{model.config.name_or_path or 'The model'} was saved as {', '.join(stored)}, not as "
                f"{self.model_name}: its head is randomly initialized unless you have trained it since.",
                stacklevel=3,
            )

    def __call__(self, inputs, **kwargs):
        """Run the pipeline.

        Args:
            inputs: An input, a sequence of inputs, a generator or a dataset.
            **kwargs: Parameters of the pipeline, `batch_size` and `num_workers`.

        Raises:
            MediaError: If a file cannot be read, or lacks a stream that the task needs; the message names the file.
            TypeError: If an input has an unsupported type, or for unknown parameters.
            ValueError: If an input or parameter has an invalid value.
        """
        if not isinstance(inputs, (GeneratorType, Dataset)) and (items := as_items(inputs)) is not None:
            return super().__call__(items, **kwargs) if items else []
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(self, **kwargs):
        fit = {"fit": kwargs.pop("fit")} if "fit" in kwargs else {}
        preprocess = fit | {name: kwargs.pop(name) for name in self.pre_parameters if name in kwargs}
        if "timestamps" in preprocess:
            preprocess["timestamps"] = as_timestamps(preprocess["timestamps"])
        postprocess = fit | {name: kwargs.pop(name) for name in self.post_parameters if name in kwargs}
        if kwargs:
            known = ", ".join((*self.pre_parameters, *self.post_parameters, "fit"))
            raise TypeError(
                f"Unknown parameters of {type(self).__name__}: {', '.join(kwargs)}. Valid parameters: {known}."
            )
        return preprocess, {}, postprocess

    def preprocess(
        self, inputs, timestamps=None, num_clips: int | None = None, fit: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the inputs of the model for each tile of each window, one sample each."""
        several = num_clips is not None or isinstance(timestamps, list)
        processor, clips = self.processor.with_fit(fit), self._clips(inputs, timestamps, num_clips)
        clip = next(clips)
        while clip is not None:
            (image, audio, rate, time), clip = clip, next(clips, None)
            frame = None if image is None else as_frame(image)
            about = {"frame": frame, "timestamp": time, "several": several}
            yield from self._tiles(self._sample(processor, image, audio, rate), about, clip is None)

    def _tiles(self, sample: dict[str, torch.Tensor], about: dict[str, Any], is_last: bool) -> Iterator[dict[str, Any]]:
        """Yield each row of the inputs as a sample; only the last is followed by no other tile."""
        count = len(sample["pixel_values"])
        for tile in range(count):
            rows = {name: values[tile : tile + 1] for name, values in sample.items()}
            ends = tile == count - 1
            yield {"is_last": is_last and ends, **rows, "about": {**(about if ends else {}), "ends": ends}}

    def merge_tiles(self, outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Gather the outputs of each window's tiles: tensors (tiles, ...), and `about` as given to `_tiles`."""
        windows, rows = [], []
        for output in outputs:
            rows.append(output)
            if output["about"]["ends"]:
                names = {name for row in rows for name, value in row.items() if isinstance(value, torch.Tensor)}
                windows.append({name: torch.cat([row[name] for row in rows if name in row]) for name in names})
                windows[-1]["about"] = output["about"]
                rows = []
        return windows

    def _clips(self, inputs, timestamps, num_clips: int | None) -> Iterator[tuple]:
        """Yield (image or frames, audio, sampling rate in Hz, timestamp in s, None without a time) of each window."""
        if isinstance(inputs, Mapping) and not is_file(inputs):
            if timestamps is not None or num_clips is not None:
                raise ValueError("Expected a file with timestamps or num_clips, got a mapping.")
            yield (*read_arrays(inputs, self.require, self.processor.feature_extractor.seconds + 1.0), None)
            return
        check_file(inputs)
        seconds = self.processor.feature_extractor.seconds
        options = {"num_frames": self.processor.num_frames, "seconds": seconds, "require": self.require}
        for clip in load_clips(inputs, timestamps, num_clips, **options):
            yield clip.frames, clip.waveform, clip.sampling_rate, None if clip.is_still else clip.timestamp

    def _sample(self, processor, image, audio, rate: int | None) -> dict[str, torch.Tensor]:
        visual = {} if image is None else {"videos" if is_clip(image) else "images": [image]}
        audible = {} if audio is None else {"audio": [audio], "sampling_rate": rate}
        return self._complete(processor(**visual, **audible))

    def _complete(self, inputs: Mapping) -> dict[str, torch.Tensor]:
        """Add zeros for a missing modality and presence masks, so that samples can be batched."""
        shapes, count = self.model.config.input_shapes, len(next(iter(inputs.values())))
        sample = {
            name: inputs[name] if name in inputs else torch.zeros(count, *shape) for name, shape in shapes.items()
        }
        sample["image_present"] = torch.tensor(["pixel_values" in inputs] * count)
        sample["audio_present"] = torch.tensor(["input_features" in inputs] * count)
        return sample

    def _forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        outputs = self._outputs(batch)
        if self.progress is not None:
            about = outputs["about"]
            self.progress(sum(row["ends"] for row in (about if isinstance(about, list) else [about])))
        return outputs

    def _outputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        carried = {name: batch.pop(name) for name in ("is_last", "about")}
        inputs = {}
        for values, mask in (("pixel_values", "image_present"), ("input_features", "audio_present")):
            present = batch[mask]
            if present.any():
                inputs[values] = batch[values].to(self.model.dtype)
                if not present.all():
                    inputs[mask] = present
        presence = {name: batch[name] for name in ("image_present", "audio_present")}
        if self.mixed_precision is None:
            return {**self.run_model(inputs), **presence, **carried}
        with torch.autocast(self.model.device.type, self.mixed_precision):
            outputs = self.run_model(inputs)
        return {**{name: values.float() for name, values in outputs.items()}, **presence, **carried}

    def run_model(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the outputs of the model, each with the batch as first axis."""
        return {"logits": self.model(**inputs).logits}

    def save_pretrained(self, save_directory, **kwargs) -> None:
        """Save model and processor with their code and that of the pipelines."""
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)


def is_clip(image: Any) -> bool:
    """Check whether an image is a clip (T, H, W, 3), as read from files."""
    return getattr(image, "ndim", 3) == 4


def as_frame(image: Any) -> np.ndarray:
    """Convert an image, or the middle frame of a clip (T, H, W, 3), to (H, W, 3) uint8."""
    pixels = to_pixels(image[len(image) // 2] if is_clip(image) else image)
    pixels = pixels if pixels.dtype == torch.uint8 else (pixels * 255).round().to(torch.uint8)
    return pixels.permute(1, 2, 0).contiguous().numpy()


def check_file(item: Any) -> None:
    """Raise `TypeError` if `item` is not a file."""
    if not is_file(item):
        raise TypeError(
            "Expected a media file as a path, bytes or a binary file object, or a mapping with image and audio, got "
            f"{type(item).__name__}."
        )


def read_image(image: Any) -> Any:
    """Decode an image, or the middle frame, if `image` is a file; return anything else unchanged."""
    return load_clip(image, require="image").frames[0] if is_file(image) else image


def read_arrays(inputs: Mapping, require: str, seconds: float | None = None) -> tuple[Any, Any, int | None]:
    """Return image, audio and sampling rate of a mapping.

    Args:
        inputs: Mapping with any of `image`, `audio` and `sampling_rate`.
        require: What must be present: `"any"`, `"image"` or `"audio"`.
        seconds: Length of the beginning of files to decode, if `audio` is one; all by default.

    Raises:
        MediaError: If a file cannot be read.
        ValueError: If a key is unknown, or what is required or the sampling rate of a waveform is missing.
    """
    unknown = set(inputs) - set(_ARRAYS)
    if unknown:
        close = {word: difflib.get_close_matches(str(word), _ARRAYS, n=1) for word in sorted(unknown, key=str)}
        hint = "".join(f" Did you mean {names[0]!r} for {word!r}?" for word, names in close.items() if names)
        raise ValueError(f"Expected a mapping with {', '.join(_ARRAYS)}, got {', '.join(map(repr, inputs))}.{hint}")
    image, audio, rate = (inputs.get(name) for name in _ARRAYS)
    if (image is None and audio is None) or {"image": image, "audio": audio}.get(require, 0) is None:
        raise ValueError(f"Expected {'image or audio' if require == 'any' else require} in the mapping, got none.")
    audio, rate = with_own_rate(audio, rate, seconds)
    if audio is not None and rate is None:
        raise ValueError("Expected sampling_rate, in Hz, beside audio in the mapping, got none.")
    return None if image is None else read_image(image), audio, rate


__all__ = ["DeepAVFusionPipeline", "as_frame", "check_file", "is_clip", "read_arrays", "read_image"]
