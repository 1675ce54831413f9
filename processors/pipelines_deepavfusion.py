"""Pipelines that turn media files into labels, separated audio, masks, heat maps and features.

`import deepavfusion` registers them. Checkpoints list them in `config.custom_pipelines`, so that they load with
`trust_remote_code=True` where this package is not installed.
"""

import math
import os
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
import transformers
from transformers.pipelines import PIPELINE_REGISTRY

from .fit_deepavfusion import without_margins
from .media_deepavfusion import load_clip
from .pipeline_base_deepavfusion import DeepAVFusionPipeline, check_file, read_arrays, read_image
from .recording_separation_deepavfusion import RecordingSeparation, with_frames
from .recordings_deepavfusion import Recording
from .sources_deepavfusion import as_items, is_address, is_file


class AudioVisualClassificationPipeline(DeepAVFusionPipeline):
    """Audio-visual classification of files with images, audio or both.

    ```python
    pipe = pipeline("audio-visual-classification", model="FOLDER")
    pipe("clip.mp4", top_k=3)  # [{"score": 0.93, "label": "playing cello"}, ...]
    ```

    Parameters: `top_k` (5; None for all), `multi_label` (whether each label has its own probability, as a single label
    always has; by default if the configuration's `problem_type` is multi_label_classification), `return_timestamps`
    (False; True returns `{"labels", "timestamps"}`, with the middle of each window of a file in seconds; image files
    have no timestamps), `timestamps`, `num_clips`. Logits of several windows are averaged.
    """

    model_name = "DeepAVFusionForAudioVisualClassification"
    auto_class = "AutoModelForVideoClassification"
    post_parameters = ("top_k", "multi_label", "return_timestamps")

    def postprocess(
        self,
        outputs,
        top_k: int | None = 5,
        multi_label: bool | None = None,
        return_timestamps: bool = False,
        fit: str | None = None,
    ) -> list[dict[str, Any]] | dict[str, list]:
        """Return a list of `{"score", "label"}` sorted by descending score; with timestamps, in a dictionary."""
        config = self.model.config
        if multi_label is None:
            multi_label = config.problem_type == "multi_label_classification"
        windows = self.merge_tiles(outputs)
        logits = torch.stack([window["logits"].float().mean(0) for window in windows]).mean(0, keepdim=True)
        labels = self.processor.post_process_classification({"logits": logits}, top_k, config.id2label, multi_label)[0]
        if not return_timestamps:
            return labels
        times = _timestamps(windows)
        return {"labels": labels} if None in times else {"labels": labels, "timestamps": times}


class AudioVisualSourceSeparationPipeline(DeepAVFusionPipeline):
    """Separation of the sounds of visible objects from the audio of a recording.

    ```python
    pipe = pipeline("audio-visual-source-separation", model="FOLDER")
    pipe("duet.mp4")  # {"audio": (N,) float32, "sampling_rate": 44100}: the source in the video's frames
    pipe("duet.mp4", frames=["cello.png", "flute.png"], consistency=True)  # a list of one such result per image
    ```

    The result is mono and has the sampling rate and the length of the file's audio. Recordings longer than the model's
    window are cut into overlapping windows, whose masks are cross-faded.

    Parameters:

    - `frames`: image of the target source: None (the frame in the middle of each window), a timestamp of the file in
      seconds, an image (PIL, numpy, torch, or a path), or a list of these, which gives a list of results. In a mapping
      with `image` and `audio`, `image` is used, and may be a list.
    - `consistency` (False): whether the masks of several frames are divided by their sum, so that the sources add up to
      the mixture, except for what the mel filters attenuate.
    - `overlap` (0.5): fraction of a window that the next one overlaps.
    """

    model_name = "DeepAVFusionForSourceSeparation"
    auto_class = "AutoModelForAudioFrameClassification"
    require = "audio"
    pre_parameters = ("frames", "overlap")
    post_parameters = ("consistency",)

    def preprocess(self, inputs, frames=None, overlap: float = 0.5, fit: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the inputs of the model for each window and frame, one sample each."""
        recording = reader = None
        if not isinstance(inputs, Mapping) or is_file(inputs):
            recording = self.recording(inputs)
            reader = recording.frames() if frames is None else None
            rates, parts = zip(*recording.audio(), strict=True)
            audio, rate = np.concatenate(parts, axis=1), rates[0]
        else:
            _, audio, rate = read_arrays({**inputs, "image": None}, "audio")
            frames = inputs.get("image") if frames is None else frames
            if frames is None:
                raise ValueError("Expected an image of the target source, in the mapping or as frames, got none.")
        items = as_items(frames)
        frames, several = frames if items is None else items, items is not None
        processor = self.processor.with_fit(fit)
        targets = self._targets(processor, inputs, frames)
        windows = self.processor.separation_windows([audio], rate, overlap)
        pairs = ((features, targets or []) for features in windows.input_features)
        if recording is not None and reader is not None:
            timed = ((x, recording.start + t) for x, t in zip(windows.input_features, windows.times, strict=True))
            pairs = ((x, [pixels]) for x, pixels in with_frames(recording, reader, processor, timed))
        for index, (features, images) in enumerate(pairs):
            for position, pixels in enumerate(images):
                audible = features.expand(len(pixels), *features.shape)
                sample = self._complete({"pixel_values": pixels, "input_features": audible})
                last = index == len(windows.starts) - 1 and position == len(images) - 1
                about = {"several": several, "count": len(images)}
                if last:
                    about |= {"audio": audio, "rate": rate, "starts": windows.starts}
                yield from self._tiles(sample, about, last)

    def recording(self, inputs) -> Recording:
        """Open a file.

        Raises:
            MediaError: If it cannot be read, or has no audio.
            TypeError: If `inputs` is not a file.
        """
        check_file(inputs)
        return Recording(inputs)

    def stream(
        self,
        path: str | os.PathLike,
        frames=None,
        overlap: float = 0.5,
        consistency: bool = False,
        batch_size: int = 8,
        fit: str | None = None,
    ) -> RecordingSeparation:
        """Separate a recording of any length in parts, in memory that does not depend on its length.

        The samples are those of a call of the pipeline. Both streams of the file are decoded once.

        Args:
            path: The file.
            frames: As in a call.
            overlap: As in a call.
            consistency: As in a call.
            batch_size: Rows per forward pass: a row for each window, frame and tile.
            fit: As in a call.

        Returns:
            [`RecordingSeparation`], whose `parts()` are the separated recording.

        Raises:
            MediaError: If the file cannot be read, or has no audio.
            TypeError: If `path` is not a path.
            ValueError: If an option has an invalid value.
        """
        if not isinstance(path, (str, os.PathLike)) or is_address(path):
            kind = "an address" if is_address(path) else type(path).__name__
            raise TypeError(f"Expected the path of a file, whose streams are read in turns, got {kind}.")

        def forward(pixel_values: torch.Tensor, input_features: torch.Tensor) -> torch.Tensor:
            present = torch.ones(len(pixel_values), dtype=torch.bool)
            batch = {"pixel_values": pixel_values, "input_features": input_features}
            batch |= {
                "image_present": present,
                "audio_present": present,
                "is_last": True,
                "about": [{"ends": True}] * len(present),
            }
            return self.forward(batch)["logits"]

        processor = self.processor.with_fit(fit)
        targets = self._targets(processor, path, frames if (items := as_items(frames)) is None else items)
        return RecordingSeparation(self.recording(path), processor, forward, targets, overlap, consistency, batch_size)

    def _targets(self, processor, inputs, frames) -> list[torch.Tensor] | None:
        """Pixel values (tiles, ...) of each of `frames`; None for the frames of the windows."""
        if frames is None:
            return None
        if isinstance(frames, list) and not frames:
            raise ValueError("Expected at least one image as frames, got none.")
        items = frames if isinstance(frames, list) else [frames]
        return [self._pixel_values(processor, inputs, frame) for frame in items]

    def _pixel_values(self, processor, inputs, frame) -> torch.Tensor:
        """Process the frame at a timestamp of the file, or an image, to its tiles."""
        if isinstance(frame, Real):
            if isinstance(inputs, Mapping) and not is_file(inputs):
                raise ValueError(f"Expected a file with a timestamp as frames ({frame} s), or an image, got a mapping.")
            extractor = self.processor.feature_extractor
            clip = load_clip(inputs, float(frame), self.processor.num_frames, extractor.seconds, "image")
            return processor(videos=[clip.frames]).pixel_values
        return processor(images=[read_image(frame)]).pixel_values

    def postprocess(self, outputs, consistency: bool = False, fit: str | None = None):
        """Return `{"audio", "sampling_rate"}`, or a list of them for a list of frames."""
        about = outputs[-1]["about"]
        logits = torch.stack([window["logits"].float().mean(0) for window in self.merge_tiles(outputs)])
        logits = logits.unflatten(0, (-1, about["count"])).transpose(0, 1)  # (sources, windows, 1, mels, time steps)
        if consistency:
            logits = self.processor.consistent_masks(logits)
        results = []
        for masks in logits:
            source = self.processor.post_process_source_separation(
                {"logits": masks}, [about["audio"]], about["rate"], [about["starts"]]
            )[0]
            results.append({"audio": source.numpy(), "sampling_rate": int(about["rate"])})
        return results if about["several"] else results[0]


class AudioVisualSegmentationPipeline(DeepAVFusionPipeline):
    """Segmentation of sounding objects over the whole frame, even for files without audio.

    The result is `{"mask", "frame", "timestamp", "labels"}`: mask (height, width) int64 of class indices (with a single
    label, 1 for sounding objects, else 0; 255 outside the model's crop, so nowhere with another `fit`), frame (height,
    width, 3) uint8, timestamp in seconds, and the names of the indices that occur. Several windows give a list.

    Parameters: `threshold` (0.5, for a single label), `timestamps`, `num_clips`.
    """

    model_name = "DeepAVFusionForSemanticSegmentation"
    auto_class = "AutoModelForSemanticSegmentation"
    require = "image"
    post_parameters = ("threshold",)

    def postprocess(self, outputs, threshold: float = 0.5, fit: str | None = None):
        """Return the result of a window, or a list for several."""
        config = self.model.config
        names = dict(config.id2label) if config.num_labels > 1 else {0: "background", 1: "sounding"}
        results, processor, windows = [], self.processor.with_fit(fit), self.merge_tiles(outputs)
        for output in windows:
            frame = output["about"]["frame"]
            masks = processor.post_process_semantic_segmentation(output, [frame.shape[:2]], threshold)
            found = [index for index in masks[0].unique().tolist() if index in names]
            labels = {index: names[index] for index in found}
            results.append({"mask": masks[0].numpy(), **_frame_and_timestamp(output), "labels": labels})
        return results if windows[0]["about"]["several"] else results[0]


class SoundSourceLocalizationPipeline(DeepAVFusionPipeline):
    """Localization of sound sources as a heat map over the whole frame.

    The result is `{"heat_map", "mask", "score", "frame", "timestamp"}`: heat map (height, width) float32, scaled to
    0..1 by its minimum and maximum; mask (height, width) bool, where the probability exceeds the configuration's
    `localization_threshold`; score in 0..1, the probability that anything in the frame sounds, from the highest quarter
    of the map (0 without audio); frame (height, width, 3) uint8; timestamp in seconds. Several windows give a list.
    Margins of the model's map (`fit="pad"`) do not count. Mask and score are not calibrated for maps of an encoder that
    was not trained for localization.

    Parameters: `normalize` (True; False keeps the model's logits), `timestamps`, `num_clips`.
    """

    model_name = "DeepAVFusionForSoundLocalization"
    auto_class = "AutoModelForMaskGeneration"
    require = "image"
    post_parameters = ("normalize",)

    def _warn_of_new_head(self, model) -> None:
        if model.config.localization_map == "head":  # the other maps are meaningful without training
            super()._warn_of_new_head(model)

    def postprocess(self, outputs, normalize: bool = True, fit: str | None = None):
        """Return the result of a window, or a list for several."""
        results, threshold, windows = [], self.model.config.localization_threshold, self.merge_tiles(outputs)
        processor = self.processor.with_fit(fit)
        for output in windows:
            size = output["about"]["frame"].shape[:2]
            parts = without_margins(output["logits"].float(), processor.visual_processor.regions(*size))
            # Outside the center crop nothing is predicted: the map has its minimum there.
            outside = 0.0 if normalize else min(part.min().item() for part in parts)
            heat = processor.post_process_sound_localization(output, [size], normalize, outside)[0].numpy()
            placed = processor.post_process_sound_localization(output, [size], False, float("-inf"))[0]
            mask = (placed > math.log(threshold / (1 - threshold))).numpy()
            score = max(self.model.pair_scores(part[None]).sigmoid().item() for part in parts)
            results.append({"heat_map": heat, "mask": mask, "score": score, **_frame_and_timestamp(output)})
        return results if windows[0]["about"]["several"] else results[0]


class AudioVisualFeatureExtractionPipeline(DeepAVFusionPipeline):
    """Features of the encoder's three streams: `{"fusion", "image", "audio"}`, without those of a missing modality.

    Each is a tensor (hidden size,), the mean over its tokens; with `tokens=True`, (tokens, hidden size), where the
    image tokens of several tiles follow each other. Several windows add a first axis.

    Parameters: `tokens` (False), `normalize` (False; True scales each vector to length 1), `return_timestamps` (False;
    True adds `timestamps`, float64, the middle of each window of a file in seconds), `timestamps`, `num_clips`.
    """

    model_name = "DeepAVFusionModel"
    auto_class = "AutoModel"
    post_parameters = ("tokens", "normalize", "return_timestamps")

    def run_model(self, inputs):
        """Return the streams of the encoder for the modalities that are present."""
        outputs = self.model.base_model(**inputs)
        fields = {"fusion": "last_hidden_state", "image": "image_last_hidden_state", "audio": "audio_last_hidden_state"}
        absent = {"image": "pixel_values" not in inputs, "audio": "input_features" not in inputs}
        return {name: outputs[field] for name, field in fields.items() if not absent.get(name)}

    def postprocess(
        self,
        outputs,
        tokens: bool = False,
        normalize: bool = False,
        return_timestamps: bool = False,
        fit: str | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the streams of a window, or of several along a first axis."""
        streams, outputs = {}, [self._merge_streams(window) for window in self.merge_tiles(outputs)]
        times = _timestamps(outputs)
        for name in ("fusion", "image", "audio"):
            mask = f"{name}_present"
            if name != "fusion" and not any(bool(output[mask].all()) for output in outputs):
                continue
            width = outputs[0]["fusion"].shape[-1]
            count = max(output[name].shape[1] for output in outputs if name in output)
            blank = torch.zeros(1, count, width)  # a window without the modality, or with fewer tiles than others
            rows = [output.get(name, blank) for output in outputs]
            values = torch.cat([row if row.shape[1] == count else blank for row in rows])
            values = values if tokens else values.mean(1)
            values = torch.nn.functional.normalize(values, dim=-1) if normalize else values
            streams[name] = values if outputs[0]["about"]["several"] else values[0]
        if return_timestamps and None not in times:
            stored = torch.tensor(times, dtype=torch.float64)
            streams["timestamps"] = stored if outputs[0]["about"]["several"] else stored[0]
        return streams

    def _merge_streams(self, window: dict[str, Any]) -> dict[str, Any]:
        """Merge the tiles of a window: their image tokens follow each other, the other streams are averaged."""
        merged = dict(window)
        for name in ("fusion", "image", "audio"):
            if name in window:
                values = window[name].float()
                merged[name] = values.flatten(0, 1)[None] if name == "image" else values.mean(0, keepdim=True)
        return merged


def _timestamps(outputs) -> list[float | None]:
    """Middle of each window in seconds; None for arrays and image files, which have no time."""
    return [output["about"]["timestamp"] for output in outputs]


def _frame_and_timestamp(output: Mapping) -> dict[str, Any]:
    return {name: output["about"][name] for name in ("frame", "timestamp")}


def pipelines() -> dict[str, type[DeepAVFusionPipeline]]:
    """Return the pipeline class of each task."""
    return {
        "audio-visual-classification": AudioVisualClassificationPipeline,
        "audio-visual-source-separation": AudioVisualSourceSeparationPipeline,
        "audio-visual-segmentation": AudioVisualSegmentationPipeline,
        "sound-source-localization": SoundSourceLocalizationPipeline,
        "audio-visual-feature-extraction": AudioVisualFeatureExtractionPipeline,
    }


def register_pipelines() -> None:
    """Register the tasks with `transformers.pipeline`."""
    for task, cls in pipelines().items():
        if task not in PIPELINE_REGISTRY.supported_tasks:
            auto = getattr(transformers, cls.auto_class)
            PIPELINE_REGISTRY.register_pipeline(task, pipeline_class=cls, pt_model=auto, type="multimodal")


__all__ = [
    "AudioVisualClassificationPipeline",
    "AudioVisualFeatureExtractionPipeline",
    "AudioVisualSegmentationPipeline",
    "AudioVisualSourceSeparationPipeline",
    "SoundSourceLocalizationPipeline",
    "pipelines",
    "register_pipelines",
]
