"""Pipelines of DeepAVFusion: from media files to labels, separated sounds, masks, heat maps and features.

`import deepavfusion` registers them. Saved checkpoints name them in `config.custom_pipelines`, so that they load with
`trust_remote_code=True` where this package is not installed.
"""

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import torch
import transformers
from transformers.pipelines import PIPELINE_REGISTRY

from .image_processing_deepavfusion import as_list
from .media_deepavfusion import load_clip, probe_clip
from .pipeline_base_deepavfusion import DeepAVFusionPipeline, check_file, read_arrays, read_picture


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


class AudioVisualSourceSeparationPipeline(DeepAVFusionPipeline):
    """
    From the sound of a file, what the picture shows; or for each of several pictures what it shows.

    ```python
    pipe = pipeline("audio-visual-source-separation", model="FOLDER")
    pipe("duet.mp4")  # {"audio": (N,) float32, "sampling_rate": 44100}: what the frames show
    pipe("duet.mp4", frames=["cello.png", "flute.png"], consistency=True)  # one such result for each
    ```

    The sound is mono, at the file's rate and exactly as long as the file's. A recording longer than what the model
    hears is cut into windows, whose masks are cross-faded.

    Parameters: `frames`, what says which source is wanted: None (each window goes with the frame of its middle), a
    moment of the file in seconds, a picture (PIL, numpy, torch, or a path), or a list of such, which gives a list of
    results. `consistency` (False): whether the masks of several frames are divided by their sum, so that the sources
    add up to the mixture, but for what no mel filter lets through. `overlap` (0.5): share of a window that it has in
    common with the next.

    In a mapping with `image` and `audio` the picture stands for `frames` and may be a list.
    """

    model_name = "DeepAVFusionForSourceSeparation"
    auto_class = "AutoModelForAudioFrameClassification"
    require = "audio"

    def _sanitize_parameters(self, **kwargs):
        preprocess = {name: kwargs.pop(name) for name in ("frames", "overlap") if name in kwargs}
        postprocess = {name: kwargs.pop(name) for name in ("consistency",) if name in kwargs}
        if kwargs:
            raise TypeError(
                f"Unexpected parameters: {', '.join(kwargs)}. {type(self).__name__} knows frames, consistency, overlap."
            )
        return preprocess, {}, postprocess

    def preprocess(self, inputs, frames=None, overlap: float = 0.5) -> Iterator[dict[str, Any]]:
        sound, rate, start = self.recording(inputs)
        if frames is None and isinstance(inputs, Mapping):
            frames = inputs.get("image")
            if frames is None:
                raise ValueError(
                    "Expected the picture of what to keep, as image in the mapping or as frames, got none."
                )
        several = isinstance(frames, (list, tuple))
        wanted = [self._picture(inputs, frame) for frame in (as_list(frames, 3) if several else [frames])]
        windows = self.processor.separation_windows([sound], rate, overlap)
        for index, (features, time) in enumerate(zip(windows.input_features, windows.times, strict=True)):
            for position, pixels in enumerate(wanted):
                if pixels is None:
                    pixels = self._picture(inputs, start + time)
                row = self._complete({"pixel_values": pixels, "input_features": features[None]})
                last = index == len(windows.starts) - 1 and position == len(wanted) - 1
                about = {"several": several, "count": len(wanted)}
                if last:
                    about |= {"sound": sound, "rate": rate, "starts": windows.starts}
                yield {"is_last": last, **row, "about": about}

    def recording(self, inputs) -> tuple[Any, int | None, float]:
        """All of the sound of an input, its rate in Hz, and when it starts in the file (s).

        Raises:
            MediaError: for a file without sound.
        """
        if isinstance(inputs, Mapping):
            _, sound, rate = read_arrays({**inputs, "image": None}, "audio")
            return sound, rate, 0.0
        check_file(inputs)
        info = probe_clip(inputs)
        # A second more than the headers promise: what is there beyond is kept, what is not is not made up.
        clip = load_clip(inputs, seconds=info.end - info.start + 1.0, require="audio")
        return clip.waveform, clip.sampling_rate, info.audio_span[0]

    def _picture(self, inputs, frame) -> torch.Tensor | None:
        """`pixel_values` of a moment of the file or of a picture; None for None."""
        if frame is None:
            return None
        if isinstance(frame, Real):
            if isinstance(inputs, Mapping):
                raise ValueError(f"A moment ({frame} s) was asked for: expected a file, or a picture as frames.")
            extractor = self.processor.feature_extractor
            clip = load_clip(inputs, float(frame), self.processor.num_frames, extractor.seconds, "image")
            return self.processor(videos=[clip.frames]).pixel_values
        return self.processor(images=[read_picture(frame)]).pixel_values

    def postprocess(self, outputs, consistency: bool = False):
        about = outputs[-1]["about"]
        logits = torch.cat([output["logits"] for output in outputs]).float()
        logits = logits.unflatten(0, (-1, about["count"])).transpose(0, 1)  # (sources, windows, 1, mels, time steps)
        if consistency:
            logits = self.processor.consistent_masks(logits)
        rate = self.processor.feature_extractor.sampling_rate if about["rate"] is None else int(about["rate"])
        results = []
        for masks in logits:
            source = self.processor.post_process_source_separation(
                {"logits": masks}, [about["sound"]], about["rate"], [about["starts"]]
            )[0]
            results.append({"audio": source.numpy(), "sampling_rate": rate})
        return results if about["several"] else results[0]


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
            score = self.model.pair_scores(logits).sigmoid().item()
            results.append({"heat_map": heat, "mask": mask, "score": score, **_moment(output)})
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


def _moment(output: Mapping) -> dict[str, Any]:
    return {name: output["about"][name] for name in ("frame", "timestamp")}


def pipelines() -> dict[str, type[DeepAVFusionPipeline]]:
    """Task -> class of every pipeline."""
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
    "AudioVisualSourceSeparationPipeline",
    "SoundSourceLocalizationPipeline",
    "pipelines",
    "register_pipelines",
]
