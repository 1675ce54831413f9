"""Processor of DeepAVFusion: videos, pictures and sounds to the models' inputs, and their outputs back."""

import os
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin
from transformers.image_processing_base import ImageProcessingMixin
from transformers.processing_utils import ProcessorMixin

from .feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor, as_waveforms
from .image_processing_deepavfusion import DeepAVFusionImageProcessor, as_list
from .media_deepavfusion import dense_timestamps, is_file, load_clip, probe_clip
from .post_processing_deepavfusion import PostProcessing
from .video_processing_deepavfusion import DeepAVFusionVideoProcessor, VideoProcessorMixin, as_videos

_PARTS = {
    "feature_extractor": (DeepAVFusionFeatureExtractor, FeatureExtractionMixin),
    "image_processor": (DeepAVFusionImageProcessor, ImageProcessingMixin),
    "video_processor": (DeepAVFusionVideoProcessor, VideoProcessorMixin),
}


class DeepAVFusionNoTokenizer:
    """A tokenizer without tokens, for no text comes in."""

    eos_token_id = bos_token_id = pad_token_id = None
    init_kwargs: dict[str, Any] = {}


class DeepAVFusionProcessor(PostProcessing, ProcessorMixin):
    """
    Inputs of every DeepAVFusion model from video files, or from pictures and sounds; their outputs as labels, waveforms
    and maps.

    Args:
        feature_extractor: of the sound.
        image_processor: of the picture; for models of one frame.
        video_processor: of the frames; for models of several.

    Example:

    ```python
    >>> import numpy as np
    >>> from deepavfusion import DeepAVFusionConfig, DeepAVFusionProcessor

    >>> processor = DeepAVFusionProcessor.from_config(DeepAVFusionConfig())
    >>> picture, sound = np.zeros((360, 480, 3), np.uint8), np.zeros(48000, np.float32)
    >>> inputs = processor(images=picture, audio=sound, sampling_rate=16000)
    >>> inputs.pixel_values.shape, inputs.input_features.shape
    (torch.Size([1, 3, 224, 224]), torch.Size([1, 1, 128, 192]))
    ```
    """

    # Both are set by the module that imports processor and pipelines: how to copy their code into a folder, and its own
    # name.
    _copy_code: ClassVar[Callable[[str | os.PathLike], None]]
    _auto_module: ClassVar[str]

    def __init__(self, feature_extractor, image_processor=None, video_processor=None, **kwargs):
        super().__init__(feature_extractor, image_processor, video_processor, **kwargs)

    @classmethod
    def from_config(cls, config, **picture_settings) -> "DeepAVFusionProcessor":
        """
        The processor for the sizes of a configuration. Which part of the picture a model sees depends on its class:
        see [`from_model`].

        Args:
            config: a `DeepAVFusionConfig`. Read are image_size, num_frames, num_mel_bins and spectrogram_length.
            picture_settings: other arguments of [`DeepAVFusionImageProcessor`].
        """
        sound = DeepAVFusionFeatureExtractor(
            num_mel_bins=config.num_mel_bins, spectrogram_length=config.spectrogram_length
        )
        if config.num_frames == 1:
            return cls(sound, DeepAVFusionImageProcessor(size=config.image_size, **picture_settings))
        videos = DeepAVFusionVideoProcessor(size=config.image_size, num_frames=config.num_frames, **picture_settings)
        return cls(sound, video_processor=videos)

    @classmethod
    def from_model(cls, model, config=None) -> "DeepAVFusionProcessor":
        """
        The processor of a model's view: that of its configuration, with what its class says of its inputs.

        Args:
            model: a model, or a model class with the configuration as `config`. Read are `config` and
                `processor_options`, arguments of [`DeepAVFusionImageProcessor`] (`crop_pct=1.0` of dense predictions).
            config: a `DeepAVFusionConfig`; by default the model's own.

        Raises:
            TypeError: for a class without a configuration.
        """
        if config is None:
            if isinstance(model, type):
                raise TypeError(
                    f"Expected a model, or {model.__name__} with its configuration as config=..., got none."
                )
            config = model.config
        return cls.from_config(config, **model.processor_options)

    @property
    def visual_processor(self):
        """The image processor, or the video processor where there is none.

        Raises:
            ValueError: where there is neither.
        """
        processor = self.image_processor if self.image_processor is not None else self.video_processor
        if processor is None:
            raise ValueError("This processor has neither image_processor nor video_processor: it takes sound alone.")
        return processor

    @property
    def tokenizer(self) -> "DeepAVFusionNoTokenizer":
        """Stands in for one: transformers' `Trainer` asks every processor for its tokenizer's special tokens."""
        return DeepAVFusionNoTokenizer()

    @property
    def num_frames(self) -> int:
        """Frames that a model sees of a clip."""
        return 1 if self.video_processor is None else self.video_processor.num_frames

    def __call__(
        self,
        images=None,
        videos=None,
        audio=None,
        sampling_rate: int | None = None,
        timestamps=None,
        num_clips: int | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """
        Inputs of a model, either from files (`videos`) or from arrays (`images` or `videos`, `audio`).

        Args:
            images: a picture (PIL, numpy, torch), a list of them, or a 4-D batch. A video model sees it in all frames.
            videos: a video file as a path, its bytes or a file object, or a list of such files: both streams of each
                are taken. Or arrays, as [`DeepAVFusionVideoProcessor`] takes them; image models see the middle frame.
            audio: a sound, (N,) or (C, N), or a list of them. Not beside files.
            sampling_rate: of `audio` in Hz.
            timestamps: middle of the window in a file, in seconds; None is the middle of the part that both streams
                cover. For a list of files a list, one entry a file. An entry that is a list itself, or a list for a
                lone file, gives several windows, each a sample of the batch.
            num_clips: windows spread evenly over each file, instead of timestamps; B files give B * num_clips samples,
                the windows of the first file first.
            return_tensors: `"pt"` or `"np"`.

        In lists of arrays None stands for what a sample lacks.

        Returns:
            `pixel_values`, (B, 3, height, width) or (B, num_frames, 3, height, width), and `input_features`,
            (B, 1, mels, time steps). Where some samples lack a modality, `image_present` or `audio_present`, (B,) bool,
            says which have it, and the others' rows are 0. A modality that no sample has is left out.

        Raises:
            MediaError: for a file that cannot be read or has neither picture nor sound.
            TypeError, ValueError: for other input, or for numbers of pictures and sounds that differ.
        """
        files = [videos] if is_file(videos) else videos
        if isinstance(files, (list, tuple)) and files and all(is_file(item) for item in files):
            if images is not None or audio is not None:
                raise ValueError(
                    "Files bring their own pictures and sound: expected neither images nor audio with them."
                )
            pictures, sounds = self._from_files(files, _windows(timestamps, videos, len(files)), num_clips)
        else:
            if timestamps is not None or num_clips is not None:
                raise ValueError(
                    "timestamps and num_clips choose windows of files: expected paths, bytes or file objects."
                )
            if images is not None and videos is not None:
                raise ValueError("Expected images or videos, got both.")
            pictures = self._from_pictures(images) if videos is None else self._from_videos(videos)
            sounds = self._from_sounds(audio, sampling_rate)
        if pictures is not None and sounds is not None and len(pictures) != len(sounds):
            raise ValueError(f"Expected as many sounds as pictures, got {len(sounds)} and {len(pictures)}.")
        data = {}
        for name, mask, values in (
            ("pixel_values", "image_present", pictures),
            ("input_features", "audio_present", sounds),
        ):
            there = [value is not None for value in values or []]
            if not any(there):
                continue
            blank = torch.zeros_like(values[there.index(True)])
            data[name] = torch.stack([blank if value is None else value for value in values])
            if not all(there):
                data[mask] = torch.tensor(there)
        if not data:
            raise ValueError("Expected images, videos or audio, got none.")
        return BatchFeature(data, tensor_type=return_tensors)

    def _from_files(self, files: Sequence, windows: list[list[float | None]], num_clips: int | None):
        """Pictures and features of the windows of each file: two lists, None where a file lacks the stream."""
        extractor = self.feature_extractor
        pictures, sounds = [], []
        for file, times in zip(files, windows, strict=True):
            if num_clips is not None:
                if times != [None]:
                    raise ValueError("Expected timestamps or num_clips, got both.")
                if num_clips < 1:
                    raise ValueError(f"num_clips is {num_clips}: expected at least 1.")
                times = self._dense(file, num_clips)
            for time in times:
                clip = load_clip(file, time, num_frames=self.num_frames, seconds=extractor.seconds, require="any")
                pictures += [None] if clip.frames is None else self._from_videos([clip.frames])
                sounds += [None] if clip.waveform is None else self._from_sounds([clip.waveform], clip.sampling_rate)
        return pictures, sounds

    def _dense(self, file, num_clips: int) -> list[float]:
        return dense_timestamps(*probe_clip(file).span, num_clips, self.feature_extractor.seconds)

    def _from_pictures(self, images) -> list[torch.Tensor | None] | None:
        if images is None:
            return None
        pictures = as_list(images, ndim=3)
        if self.image_processor is None and self.video_processor is not None:
            pictures = [None if picture is None else [picture] for picture in pictures]
        return _each(pictures, lambda picture: self.visual_processor([picture]).pixel_values[0])

    def _from_videos(self, videos) -> list[torch.Tensor | None]:
        clips = as_videos(videos)
        if self.video_processor is not None:
            return _each(clips, lambda clip: self.video_processor([clip]).pixel_values[0])
        return _each(clips, lambda clip: self.visual_processor([clip[len(clip) // 2]]).pixel_values[0])

    def _from_sounds(self, audio, sampling_rate: int | None) -> list[torch.Tensor | None] | None:
        if audio is None:
            return None
        sounds = as_waveforms(audio)
        there = [sound for sound in sounds if sound is not None]
        if not there:
            return sounds
        features = iter(self.feature_extractor(there, sampling_rate=sampling_rate).input_features)
        return [None if sound is None else next(features) for sound in sounds]

    # What follows makes an image or video processor optional, and saving and loading independent of torchvision.

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
        """The base class of a part; None passes for an absent image or video processor.

        Raises:
            TypeError: for a part of another class.
        """
        # transformers looks these classes up among its names, which are placeholders where torchvision is missing.
        proper_class = _PARTS[argument_name][1]
        optional = argument is None and argument_name != "feature_extractor"
        if not optional and not isinstance(argument, proper_class):
            raise TypeError(f"Expected a {proper_class.__name__} for {argument_name}, got {type(argument).__name__}.")
        return proper_class

    def save_pretrained(self, save_directory, push_to_hub: bool = False, **kwargs):
        """Write processor_config.json, with the settings of the parts that exist, and the code, the pipelines' too."""
        present = [name for name in _PARTS if getattr(self, name) is not None]
        # transformers saves every name that it gets here, and cannot save None.
        self.get_attributes = lambda: present
        # It would copy this file, and what it imports, as the code of `AutoProcessor`.
        self._auto_class = None
        self.auto_map = {"AutoProcessor": f"{self._auto_module}.{type(self).__name__}"}
        self._copy_code(save_directory)
        try:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        finally:
            del self.get_attributes, self._auto_class

    def _get_files_timestamps(self, working_dir) -> dict[str, float]:
        """Files that are not uploaded by `push_to_hub=True` unless they change; code was copied just before."""
        timestamps = super()._get_files_timestamps(working_dir)
        return {name: time for name, time in timestamps.items() if not name.endswith("_deepavfusion.py")}

    def to_dict(self) -> dict[str, Any]:
        """Plain values; absent parts are left out."""
        output = super().to_dict()
        return {name: value for name, value in output.items() if name not in _PARTS or value is not None}

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path, processor_dict=None, **kwargs) -> list:
        """Feature extractor, image processor and video processor of processor_config.json; None where one is absent."""
        settings = processor_dict or {}
        if "feature_extractor" not in settings:
            raise OSError(
                f"Expected a processor_config.json with a feature_extractor in {pretrained_model_name_or_path}, found "
                f"{', '.join(settings) or 'none'}."
            )
        parts = []
        for name, (part, _) in _PARTS.items():
            stored = settings.get(name)
            # Settings given to `from_pretrained` go to the parts that have them.
            parts.append(None if not stored else part.from_dict({k: kwargs.get(k, v) for k, v in stored.items()}))
        return parts


def _windows(timestamps: Any, videos: Any, num_files: int) -> list[list[float | None]]:
    """For each file the middles of its windows; None is the file's own middle."""
    if timestamps is None:
        return [[None]] * num_files
    per_file = [timestamps] if is_file(videos) else timestamps
    if not isinstance(per_file, (list, tuple)) or len(per_file) != num_files:
        raise ValueError(
            f"Expected timestamps as a list with one entry for each of {num_files} files, got {timestamps!r}."
        )
    windows = [list(entry) if isinstance(entry, (list, tuple)) else [entry] for entry in per_file]
    if not all(windows):
        raise ValueError(f"Expected at least one timestamp for each file, got {timestamps!r}.")
    return windows


def _each(items: list, process) -> list:
    return [None if item is None else process(item) for item in items]


__all__ = ["DeepAVFusionProcessor"]
