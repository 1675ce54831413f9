"""Processor: converts videos, images and audio to model inputs, and model outputs to results."""

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin
from transformers.image_processing_base import ImageProcessingMixin
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin, Unpack
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor
from .image_processing_deepavfusion import DeepAVFusionImageProcessor, DeepAVFusionImageProcessorKwargs
from .numbers_deepavfusion import to_tensor
from .post_processing_deepavfusion import PostProcessing
from .samples_deepavfusion import SampleReader, collate_values, files_of
from .sources_deepavfusion import is_file
from .timestamps_deepavfusion import as_timestamps
from .video_processing_deepavfusion import (
    DeepAVFusionVideoProcessor,
    DeepAVFusionVideoProcessorKwargs,
    VideoProcessorMixin,
)

_PARTS = {
    "feature_extractor": (DeepAVFusionFeatureExtractor, FeatureExtractionMixin),
    "image_processor": (DeepAVFusionImageProcessor, ImageProcessingMixin),
    "video_processor": (DeepAVFusionVideoProcessor, VideoProcessorMixin),
}


# Inputs of a model -> masks of the samples that have them.
_PRESENCE = {"pixel_values": "image_present", "input_features": "audio_present"}


class DeepAVFusionProcessorKwargs(ProcessingKwargs, total=False):
    """Options of a call of the processor, besides the options of its parts; see `DeepAVFusionProcessor.__call__`."""

    images_kwargs: DeepAVFusionImageProcessorKwargs  # ty: ignore[invalid-typed-dict-field]
    videos_kwargs: DeepAVFusionVideoProcessorKwargs  # ty: ignore[invalid-typed-dict-field]
    timestamps: Any
    num_clips: int | None
    return_presence: bool


class _PartNames:
    """`ProcessorMixin.get_attributes`: of the class, the names of all parts; of a processor, of those that it has."""

    def __get__(self, processor, owner):
        names = [name for name in _PARTS if getattr(processor, name, self) is not None]
        return lambda: names


class DeepAVFusionProcessor(ProcessorMixin, PostProcessing):
    """Processor of all DeepAVFusion models.

    Converts video files, or images and audio, to inputs of a model, and its outputs to labels, waveforms and maps.

    Args:
        feature_extractor: A [`DeepAVFusionFeatureExtractor`].
        image_processor: A [`DeepAVFusionImageProcessor`], for models of one frame.
        video_processor: A [`DeepAVFusionVideoProcessor`], for models of several frames.
        return_presence: What a call without `return_presence` does; saved with the processor.

    Example:
    ```python
    >>> import numpy as np
    >>> from deepavfusion import DeepAVFusionConfig, DeepAVFusionProcessor

    >>> processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig())
    >>> image, audio = np.zeros((360, 480, 3), np.uint8), np.zeros(48000, np.float32)
    >>> inputs = processor(images=image, audio=audio, sampling_rate=16000)
    >>> inputs.pixel_values.shape, inputs.input_features.shape
    (torch.Size([1, 3, 224, 224]), torch.Size([1, 1, 128, 192]))
    ```
    """

    valid_processor_kwargs = DeepAVFusionProcessorKwargs
    get_attributes = _PartNames()

    # Set by the module that imports both processor and pipelines: a function that copies their code, and its name.
    _copy_code: ClassVar[Callable[[str | os.PathLike], None]]
    _auto_module: ClassVar[str]

    def __init__(
        self, feature_extractor, image_processor=None, video_processor=None, return_presence: bool = False, **kwargs
    ):
        """Check and store the parts."""
        super().__init__(feature_extractor, image_processor, video_processor, **kwargs)
        self.return_presence = return_presence

    @classmethod
    def from_config(cls, config, **image_options) -> "DeepAVFusionProcessor":
        """Create a processor for the input sizes of a configuration.

        The crop of the image depends on the model's class, see [`from_model`].

        Args:
            config: A `DeepAVFusionConfig`; its image_size, num_frames, num_mel_bins and spectrogram_length are used.
            **image_options: Other arguments of [`DeepAVFusionImageProcessor`].

        Raises:
            ValueError: If the model's images do not have 3 channels.
        """
        if config.num_channels != 3:
            raise ValueError(f"Expected a model of RGB images, num_channels=3, got num_channels={config.num_channels}.")
        extractor = DeepAVFusionFeatureExtractor(
            num_mel_bins=config.num_mel_bins, spectrogram_length=config.spectrogram_length
        )
        if config.num_frames == 1:
            return cls(extractor, DeepAVFusionImageProcessor(size=config.image_size, **image_options))
        video_processor = DeepAVFusionVideoProcessor(
            size=config.image_size, num_frames=config.num_frames, **image_options
        )
        return cls(extractor, video_processor=video_processor)

    @classmethod
    def from_model(cls, model, config=None) -> "DeepAVFusionProcessor":
        """Create a processor for a model.

        Args:
            model: A model, or a model class with `config`. Its `processor_options` are arguments of
                [`DeepAVFusionImageProcessor`], such as `crop_pct=1.0` for models of dense predictions.
            config: A `DeepAVFusionConfig`; the model's own by default.

        Raises:
            TypeError: If `model` is a class and there is no configuration.
        """
        if config is None:
            if isinstance(model, type):
                raise TypeError(f"Expected a model, or the class {model.__name__} with config=..., got no config.")
            config = model.config
        return cls.from_config(config, **model.processor_options)

    @property
    def visual_processor(self):
        """The image processor, or else the video processor.

        Raises:
            ValueError: If there is neither.
        """
        processor = self.image_processor if self.image_processor is not None else self.video_processor
        if processor is None:
            raise ValueError("Expected an image_processor or video_processor, but this processor is for audio alone.")
        return processor

    def with_fit(self, fit: str | None) -> "DeepAVFusionProcessor":
        """Return this processor with another way to fit images, see [`DeepAVFusionImageProcessor`]; itself for None.

        Raises:
            ValueError: If there is no such fit, or no image or video processor.
        """
        if fit is None or fit == self.visual_processor.fit:
            return self
        other = copy.copy(self)
        part = "image_processor" if self.image_processor is not None else "video_processor"
        setattr(other, part, self.visual_processor.with_fit(fit))
        return other

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """A tokenizer without tokens: transformers' `Trainer` reads the special tokens of every processor."""
        return PreTrainedTokenizerBase()

    @property
    def num_frames(self) -> int:
        """Number of frames per sample."""
        return 1 if self.video_processor is None else self.video_processor.num_frames

    def __call__(
        self, images=None, text=None, videos=None, audio=None, **kwargs: Unpack[DeepAVFusionProcessorKwargs]
    ) -> BatchFeature:
        """Prepare inputs of a model from images, videos and audio, which may be files.

        Files are paths, addresses (opened by fsspec), bytes, file objects, and the values of the features `Video`,
        `Audio` and `Image` of `datasets`, decoded or not. A batch is any sequence: a list, tuple or generator, a column
        of `datasets` or pandas, a numpy array. In a batch, None stands for a missing modality.

        Args:
            images: An image (PIL, numpy, torch, or a file), a sequence of images, or a 4-D batch. Video models repeat
                it in all frames.
            text: Not supported, None.
            videos: A file, or a sequence of files, of which both streams are used. Or arrays as for
                [`DeepAVFusionVideoProcessor`], of which image models use the middle frame.
            audio: A waveform, (N,) or (2, N), or a sequence of waveforms, (N,) or (C, N); sounds with their own
                sampling rates, as `datasets` returns them; or files. Their first seconds are used. With files as
                `videos`, their sounds, instead of those in the files, and the same windows are used.
            **kwargs: Options of the parts, in `images_kwargs`, `videos_kwargs`, `audio_kwargs`, `common_kwargs` or
                directly, and those of the processor:

                - `sampling_rate`: Sampling rate of `audio` in Hz, or that of each waveform; of `audio_kwargs`.
                - `timestamps`: Middle of the window in a file in seconds; by default, the middle of the part that both
                  streams cover. For several files, a sequence with one entry per file. An entry that is a sequence, or
                  one for a single file, gives several windows, each a sample of the batch.
                - `num_clips`: Number of windows spread evenly over each file, instead of timestamps; B files give
                  B * num_clips samples in the order of the files.
                - `return_tensors`: `"pt"`, the default, or `"np"`.
                - `return_presence`: Whether to return the same fields whatever the samples lack, presence masks among
                  them, as `map` of `datasets` and batches of several processes need; by default what the attribute
                  `return_presence` says, False.

        Returns:
            `pixel_values`, (B, 3, height, width) or (B, num_frames, 3, height, width), and `input_features`,
            (B, 1, mels, time steps). If some samples lack a modality, `image_present` or `audio_present`, (B,) bool,
            marks those that have it, and the rows of the others are 0. A modality that all samples lack is omitted.
            With `fit="tiles"`, a sample has one row for each tile of its image.
            With `return_presence`, no field is ever omitted (of a processor for audio alone, those of the image are).
            On request (`return_attention_mask`), `attention_mask` of [`DeepAVFusionFeatureExtractor`].

        Raises:
            ImportError: If an address needs a package that is not installed.
            MediaError: If a file cannot be read, or has neither images nor audio.
            TypeError: If an input or timestamp has an unsupported type, or for unknown options.
            ValueError: If an input has the wrong shape, or the numbers of images and waveforms differ.
        """
        if text is not None:
            raise ValueError(f"Expected images, videos or audio alone, got text={str(text)[:40]!r}.")
        options, return_tensors = self._options(kwargs)
        timestamps, num_clips = as_timestamps(options.get("timestamps")), options.get("num_clips")
        reader = SampleReader(self, *(options[f"{kind}_kwargs"] for kind in ("images", "videos", "audio")))
        if (files := files_of(videos)) is not None:
            if images is not None:
                raise ValueError("Expected no images with video files, which have their own.")
            times = _timestamps_per_file(timestamps, videos, len(files))
            frames, features = reader.files(files, times, num_clips, audio)
        else:
            if timestamps is not None or num_clips is not None:
                raise ValueError("Expected files as videos with timestamps or num_clips, got none.")
            if images is not None and videos is not None:
                raise ValueError("Expected images or videos, got both.")
            frames = reader.images(images) if images is not None else None
            frames = reader.videos(videos) if videos is not None else frames
            features = reader.audio(audio) if audio is not None else None
        if frames is not None and features is not None and len(frames) != len(features):
            raise ValueError(f"Expected as many waveforms as images or videos, got {len(features)} and {len(frames)}.")
        if frames is not None:
            tiles = [1 if views is None else len(views) for views in frames]
            frames = [view for views in frames for view in ([None] if views is None else views)]
            if features is not None:
                features = [row for row, count in zip(features, tiles, strict=True) for _ in range(count)]
        shapes, return_presence = self.input_shapes, options["return_presence"]
        if return_presence and "pixel_values" in shapes and not any(view is not None for view in frames or []):
            shapes["pixel_values"] = reader.image_shape()
        if options["audio_kwargs"].get("return_attention_mask"):
            shapes["attention_mask"] = (self.feature_extractor.spectrogram_length,)
        audible = {name: [row and row[name] for row in features or []] for name in shapes if name != "pixel_values"}
        data = self._batch({"pixel_values": frames, **audible}, shapes, return_presence)
        return BatchFeature(data, tensor_type=return_tensors)

    def _options(self, kwargs: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
        """Sort the options of a call by the parts that they are for, and separate `return_tensors`."""
        kinds = ("images_kwargs", "videos_kwargs", "audio_kwargs")
        known = self.valid_processor_kwargs.__annotations__
        names = {"common_kwargs", *known, *(name for kind in kinds for name in known[kind].__annotations__)}
        if unknown := sorted(set(kwargs) - names):
            raise TypeError(f"Unexpected arguments: {', '.join(unknown)}.")
        options = self._merge_kwargs(**kwargs)
        formats = [options[kind].pop("return_tensors") for kind in kinds if "return_tensors" in options[kind]]
        return options, formats[0] if formats else "pt"

    def _batch(self, given: Mapping, shapes: Mapping, return_presence: bool) -> dict[str, torch.Tensor]:
        """Stack the values of samples, with None or zeros for a missing modality, and mark those that have it."""
        if not any(value is not None for values in given.values() for value in values or []):
            raise ValueError("Expected images, videos or audio, got none.")
        count, data = next(len(values) for values in given.values() if values), {}
        for name, shape in shapes.items():
            values = given.get(name) or [None] * count
            present = [value is not None for value in values]
            first = next((value for value in values if value is not None), None)
            if first is not None or return_presence:
                dtype = torch.float32 if name in _PRESENCE else torch.long
                blank = torch.zeros(shape, dtype=dtype) if first is None else torch.zeros_like(first)
                data[name] = torch.stack([blank if value is None else value for value in values])
                if name in _PRESENCE and (return_presence or not all(present)):
                    data[_PRESENCE[name]] = torch.tensor(present)
        return data

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a sample: `pixel_values` (3, H, W) or (T, 3, H, W), `input_features` (1, mels, time steps)."""
        extractor = self.feature_extractor
        features = (1, extractor.num_mel_bins, extractor.spectrogram_length)
        frames = () if self.video_processor is None else (self.num_frames,)
        if self.image_processor is None and self.video_processor is None:
            return {"input_features": features}
        return {"pixel_values": (*frames, 3, *self.visual_processor.output_size), "input_features": features}

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate samples into a batch whose fields do not depend on what the samples lack; a `data_collator`.

        Args:
            samples: Inputs of the model without the batch axis, tensors, arrays or nested lists (as `datasets` returns
                them), and other fields such as `labels`. Where a modality is None or left out, or its presence mask is
                False, the sample lacks it.

        Returns:
            `pixel_values`, `input_features`, `image_present` and `audio_present` (see `__call__`), and the other fields
            stacked (text as a list), `label` as `labels`.

        Raises:
            ValueError: If a sample has neither image nor audio, or samples differ in their other fields, or lack one.
        """
        inputs = {name: [self._value(sample, name) for sample in samples] for name in _PRESENCE}
        for index, pair in enumerate(zip(*inputs.values(), strict=True)):
            if all(value is None for value in pair):
                raise ValueError(f"Expected image or audio in every sample, got neither in sample {index}.")
        batch: dict[str, Any] = self._batch(inputs, self.input_shapes, return_presence=True)
        others = [{k: v for k, v in sample.items() if k not in (*_PRESENCE, *_PRESENCE.values())} for sample in samples]
        if any(fields.keys() != others[0].keys() for fields in others):
            names = sorted(set().union(*others) - set.intersection(*map(set, others)))
            raise ValueError(f"Expected the same fields in every sample, got {', '.join(names)} in some of them.")
        for name in others[0]:
            batch["labels" if name == "label" else name] = collate_values(name, [fields[name] for fields in others])
        return batch

    @staticmethod
    def _value(sample: Mapping[str, Any], name: str) -> torch.Tensor | None:
        """A modality of a sample, or None if the sample lacks it."""
        value, present = sample.get(name), sample.get(_PRESENCE[name], True)
        return None if value is None or not bool(present) else to_tensor(value).float()

    # The methods below make image and video processor optional, and saving and loading independent of torchvision.

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
        """Return the base class of a part, after checking the part; image and video processor may be None.

        Raises:
            TypeError: If the part has the wrong class.
        """
        # transformers looks up these classes among its names, which are placeholders without torchvision.
        proper_class = _PARTS[argument_name][1]
        optional = argument is None and argument_name != "feature_extractor"
        if not optional and not isinstance(argument, proper_class):
            raise TypeError(f"Expected a {proper_class.__name__} for {argument_name}, got {type(argument).__name__}.")
        return proper_class

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoProcessor") -> None:
        """Do nothing: transformers would copy this file as the code of `AutoProcessor`, without the pipelines."""

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Write processor_config.json, and the code of processor and pipelines."""
        self._copy_code(save_directory)
        return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def _get_files_timestamps(self, working_dir) -> dict[str, float]:
        """Omit the code, so that `push_to_hub=True`, which uploads new and changed files, uploads it."""
        timestamps = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in timestamps.items() if not name.endswith("_deepavfusion.py")}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, without absent parts and defaults."""
        optional = {*_PARTS, "return_presence"}
        output = {name: value for name, value in super().to_dict().items() if value or name not in optional}
        return {**output, "auto_map": {"AutoProcessor": f"{self._auto_module}.{type(self).__name__}"}}

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs) -> list:
        """Create the parts that processor_config.json describes; None for an absent one."""
        settings = processor_dict or {}
        if "feature_extractor" not in settings:
            raise OSError(
                f"Expected a processor_config.json with a feature_extractor in {pretrained_model_name_or_path}, found "
                f"{', '.join(settings) or 'none'}."
            )
        parts = []
        for name, (part, _) in _PARTS.items():
            stored = settings.get(name)
            # Settings passed to `from_pretrained` override those of all parts that have them.
            valid = {*(stored or ()), *getattr(getattr(part, "valid_kwargs", None), "__annotations__", ())}
            given = {name: value for name, value in kwargs.items() if name in valid}
            parts.append(part.from_dict({**stored, **given}) if stored else None)
        return parts


def _timestamps_per_file(timestamps: Any, videos: Any, num_files: int) -> Sequence:
    if timestamps is None:
        return [None] * num_files
    per_file = [timestamps] if is_file(videos) else timestamps
    if not isinstance(per_file, list) or len(per_file) != num_files:
        raise ValueError(
            f"Expected timestamps as a list with one entry for each of {num_files} files, got {timestamps!r}."
        )
    return per_file


__all__ = ["DeepAVFusionProcessor"]
