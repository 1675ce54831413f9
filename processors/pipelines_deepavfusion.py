"""Pipelines of DeepAVFusion: from media files to labels, separated sounds, masks, heat maps and features.

`import deepavfusion` registers them. Saved checkpoints name them in `config.custom_pipelines`, so that they load with
`trust_remote_code=True` where this package is not installed.
"""

import difflib
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import transformers
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline

from .image_processing_deepavfusion import to_pixels
from .media_deepavfusion import dense_timestamps, load_clip, probe_clip
from .processing_deepavfusion import DeepAVFusionProcessor, is_file

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

    _load_processor = None
    _load_tokenizer = _load_feature_extractor = _load_image_processor = _load_video_processor = False
    # Of the subclasses: name of the model class, Auto class, what a file must have, settings of a picture processor.
    model_name: str
    auto_class: str
    require = "any"
    picture_settings: dict[str, Any] = {}
    processor: Any

    def __init__(self, model, processor=None, **kwargs):
        name = type(model).__name__
        if self.model_name != "DeepAVFusionModel" and name.startswith("DeepAVFusion") and name != self.model_name:
            raise ValueError(f"Expected a {self.model_name} for {type(self).__name__}, got a {name}.")
        self._warn_of_new_head(model)
        if processor is None:
            processor = self._make_processor(model)
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

    def _make_processor(self, model) -> DeepAVFusionProcessor:
        """The processor saved beside the model; of a model that was never saved, the one that its sizes need."""
        source = model.config.name_or_path
        if not source:
            return DeepAVFusionProcessor.from_config(model.config, **self.picture_settings)
        try:
            return DeepAVFusionProcessor.from_pretrained(source)
        except OSError as error:
            raise OSError(f"{source} holds no processor: expected processor_config.json, or processor=... .") from error

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
        config = self.model.config
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        frames = () if config.num_frames == 1 else (config.num_frames,)
        shapes = {
            "pixel_values": (1, *frames, config.num_channels, height, width),
            "input_features": (1, 1, config.num_mel_bins, config.spectrogram_length),
        }
        row = {name: inputs[name] if name in inputs else torch.zeros(shape) for name, shape in shapes.items()}
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


class AudioVisualClassificationPipeline(DeepAVFusionPipeline):
    """
    Labels of what is seen and heard; files with only one of the two will do.

    ```python
    pipe = pipeline("audio-visual-classification", model="FOLDER")
    pipe("clip.mp4", top_k=3)  # [{"score": 0.93, "label": "playing cello"}, ...]
    ```

    Parameters: `top_k` (5; None is all), `multi_label` (whether each label is scored by itself; by default as the
    model's `problem_type` says), `timestamps`, `num_clips`. The logits of several windows are averaged.
    """

    model_name = "DeepAVFusionForAudioVisualClassification"
    auto_class = "AutoModelForVideoClassification"
    post_parameters = ("top_k", "multi_label")

    def postprocess(self, outputs, top_k: int | None = 5, multi_label: bool | None = None) -> list[dict[str, Any]]:
        config = self.model.config
        if multi_label is None:
            multi_label = config.problem_type == "multi_label_classification"
        logits = torch.cat([output["logits"].float() for output in outputs]).mean(0, keepdim=True)
        return self.processor.post_process_classification({"logits": logits}, top_k, config.id2label, multi_label)[0]


class AudioVisualSegmentationPipeline(DeepAVFusionPipeline):
    """
    A mask of what sounds, over the whole frame; without sound, of what the picture alone tells.

    The result is `{"mask", "frame", "timestamp", "labels"}`: mask (height, width) int64 of class indices (with a single
    label 1 where something sounds, else 0; 255 where the model saw nothing), frame (height, width, 3) uint8, the moment
    in seconds, and the names of the indices that occur. With several moments it is a list of them.

    Parameters: `threshold` (0.5, for a single label), `timestamps`, `num_clips`.
    """

    model_name = "DeepAVFusionForSemanticSegmentation"
    auto_class = "AutoModelForSemanticSegmentation"
    require = "image"
    picture_settings = {"crop_pct": 1.0}
    post_parameters = ("threshold",)

    def postprocess(self, outputs, threshold: float = 0.5):
        names = dict(self.model.config.id2label) if self.model.config.num_labels > 1 else {0: "silent", 1: "sounding"}
        results = []
        for output in outputs:
            frame = output["about"]["frame"]
            masks = self.processor.post_process_semantic_segmentation(output, [frame.shape[:2]], threshold)
            found = [index for index in masks[0].unique().tolist() if index in names]
            results.append({"mask": masks[0].numpy(), **_moment(output), "labels": {i: names[i] for i in found}})
        return results if outputs[0]["about"]["several"] else results[0]


class SoundSourceLocalizationPipeline(DeepAVFusionPipeline):
    """
    A heat map of where the sound comes from, over the whole frame.

    The result is `{"heat_map", "mask", "score", "frame", "timestamp"}`: heat map (height, width) float32 in 0..1
    between its own least and greatest value, mask (height, width) bool of where the probability exceeds the
    configuration's `localization_threshold`, score how likely anything sounds at all (0..1, of the hottest quarter of
    the map; 0 without sound), frame (height, width, 3) uint8, the moment in seconds. With several moments it is a list
    of them.

    Parameters: `normalize` (True; False keeps the model's logits), `timestamps`, `num_clips`.
    """

    model_name = "DeepAVFusionForSoundLocalization"
    auto_class = "AutoModelForMaskGeneration"
    require = "image"
    post_parameters = ("normalize",)

    def _warn_of_new_head(self, model) -> None:
        if model.config.localization_map == "head":  # the other maps mean something from the start
            super()._warn_of_new_head(model)

    def postprocess(self, outputs, normalize: bool = True):
        results, share = [], self.model.config.localization_threshold
        for output in outputs:
            logits = output["logits"].float()
            # Beyond the centre crop nothing is known: as cold as the coldest place that the model saw.
            outside = 0.0 if normalize else logits.min().item()
            size = output["about"]["frame"].shape[:2]
            heat = self.processor.post_process_sound_localization(output, [size], normalize, outside)[0].numpy()
            placed = self.processor.post_process_sound_localization(output, [size], False, float("-inf"))[0]
            mask = (placed > math.log(share / (1 - share))).numpy()
            strongest = logits.flatten().topk(max(logits.numel() // 4, 1)).values
            results.append(
                {"heat_map": heat, "mask": mask, "score": strongest.mean().sigmoid().item(), **_moment(output)}
            )
        return results if outputs[0]["about"]["several"] else results[0]


class AudioVisualFeatureExtractionPipeline(DeepAVFusionPipeline):
    """
    The three streams of the encoder: `{"fusion", "image", "audio"}`, without the stream of a modality that is absent.

    Each is a tensor (hidden size,), the mean over its tokens; with `tokens=True` (tokens, hidden size). With several
    moments it has a row for each.

    Parameters: `tokens` (False), `normalize` (False; True scales each vector to length 1), `timestamps`, `num_clips`.
    """

    model_name = "DeepAVFusionModel"
    auto_class = "AutoModel"
    post_parameters = ("tokens", "normalize")

    def run_model(self, inputs):
        outputs = self.model.base_model(**inputs)
        fields = {"fusion": "last_hidden_state", "image": "image_last_hidden_state", "audio": "audio_last_hidden_state"}
        return {name: outputs[field] for name, field in fields.items() if outputs.get(field) is not None}

    def postprocess(self, outputs, tokens: bool = False, normalize: bool = False) -> dict[str, torch.Tensor]:
        streams = {}
        for name in ("fusion", "image", "audio"):
            mask = f"{name}_present"
            if name != "fusion" and not any(bool(output[mask]) for output in outputs):
                continue
            width = outputs[0]["fusion"].shape[-1]
            count = next(output[name].shape[1] for output in outputs if name in output)
            rows = [output[name] if name in output else torch.zeros(1, count, width) for output in outputs]
            values = torch.cat([row.float() for row in rows])
            values = values if tokens else values.mean(1)
            values = torch.nn.functional.normalize(values, dim=-1) if normalize else values
            streams[name] = values if outputs[0]["about"]["several"] else values[0]
        return streams


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


def _moment(output: Mapping) -> dict[str, Any]:
    return {name: output["about"][name] for name in ("frame", "timestamp")}


def pipelines() -> dict[str, type[DeepAVFusionPipeline]]:
    """Task -> class of every pipeline."""
    from .separation_pipeline_deepavfusion import AudioVisualSourceSeparationPipeline

    return {
        "audio-visual-classification": AudioVisualClassificationPipeline,
        "audio-visual-source-separation": AudioVisualSourceSeparationPipeline,
        "audio-visual-segmentation": AudioVisualSegmentationPipeline,
        "sound-source-localization": SoundSourceLocalizationPipeline,
        "audio-visual-feature-extraction": AudioVisualFeatureExtractionPipeline,
    }


def register_pipelines() -> None:
    """Makes `transformers.pipeline` know the tasks."""
    for task, cls in pipelines().items():
        if task not in PIPELINE_REGISTRY.supported_tasks:
            auto = getattr(transformers, cls.auto_class)
            PIPELINE_REGISTRY.register_pipeline(task, pipeline_class=cls, pt_model=auto, type="multimodal")


__all__ = [
    "AudioVisualClassificationPipeline",
    "AudioVisualFeatureExtractionPipeline",
    "AudioVisualSegmentationPipeline",
    "SoundSourceLocalizationPipeline",
    "pipelines",
    "register_pipelines",
]
