"""What DeepAVFusion models put out, in the terms of their inputs: labels, waveforms, maps over the pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .chunking_deepavfusion import SeparationWindows, consistent_masks, cut_windows, separate_windows, window_starts
from .feature_extraction_deepavfusion import as_waveforms, resample, to_mono
from .image_processing_deepavfusion import ImageTransform


def _logits(outputs: Any, ndims: Sequence[int], expected: str) -> torch.Tensor:
    """`outputs.logits` as float32 on the CPU, of one of the numbers of axes."""
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
    if logits.ndim not in ndims:
        raise ValueError(f"Expected logits of shape {expected}, got {tuple(logits.shape)}.")
    return logits.detach().float().cpu()


def _target_sizes(target_sizes: Any, count: int) -> list[tuple[int, int]]:
    sizes = target_sizes.tolist() if isinstance(target_sizes, torch.Tensor) else list(target_sizes)
    if len(sizes) != count or not all(isinstance(size, Sequence) and len(size) == 2 for size in sizes):
        raise ValueError(f"Expected {count} target sizes (height, width), one a sample, got {target_sizes!r}.")
    return [(int(height), int(width)) for height, width in sizes]


def place_on_picture(
    maps: torch.Tensor, size: tuple[int, int], transform: ImageTransform, outside: float
) -> torch.Tensor:
    """
    Maps over a model's view, laid over the whole picture.

    Args:
        maps: (C, h, w), of any resolution; resized bilinearly.
        size: (height, width) of the picture.
        transform: of the pictures, which says what part of it the model saw.
        outside: value where the model saw nothing (beyond the centre crop).

    Returns:
        (C, height, width).
    """
    top, left, bottom, right = transform.crop_box(*size)
    view = F.interpolate(maps[None], (bottom - top, right - left), mode="bilinear", align_corners=False)[0]
    result = torch.full((maps.shape[0], *size), outside, dtype=maps.dtype)
    result[:, top:bottom, left:right] = view[:, : size[0] - top, : size[1] - left]
    return result


class PostProcessing:
    """The `post_process_*` methods of [`DeepAVFusionProcessor`]; needs feature_extractor and visual_processor.

    And what separates recordings of any length.
    """

    feature_extractor: Any
    visual_processor: Any

    def post_process_classification(
        self,
        outputs,
        top_k: int | None = 5,
        id2label: Mapping[int, str] | None = None,
        multi_label: bool = False,
    ) -> list[list[dict[str, Any]]]:
        """
        The likeliest labels of each sample.

        Args:
            outputs: of `DeepAVFusionForAudioVisualClassification`; `logits` (B, labels).
            top_k: how many, at most. None is all.
            id2label: names, such as `model.config.id2label`. None leaves the class indices.
            multi_label: sigmoid of each logit rather than their softmax.

        Returns:
            For each sample `{"score": float, "label": str or int}`, the likeliest first.

        Raises:
            ValueError: for logits of another shape, or top_k below 1.
        """
        logits = _logits(outputs, (2,), "(batch, labels)")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}: expected at least 1, or None for all labels.")
        scores = logits.sigmoid() if multi_label else logits.softmax(-1)
        count = scores.shape[1] if top_k is None else min(top_k, scores.shape[1])
        names = None if id2label is None else {int(index): name for index, name in id2label.items()}
        best, indices = scores.topk(count)
        return [
            [{"score": s, "label": i if names is None else names[i]} for s, i in zip(row, found, strict=True)]
            for row, found in zip(best.tolist(), indices.tolist(), strict=True)
        ]

    def separation_windows(self, audio, sampling_rate: int | None = None, overlap: float = 0.5) -> SeparationWindows:
        """
        The windows in which a model hears a recording of any length, to separate it as a whole.

        Ask the model once for each window (with the frame of its time, or one frame for all), and give the masks of all
        windows, in their order, to [`post_process_source_separation`].

        Args:
            audio: one recording, as the processor takes it.
            sampling_rate: of `audio` in Hz.
            overlap: share of a window that it has in common with the next, from 0 to less than 1.

        Returns:
            [`SeparationWindows`]: `input_features` (W, 1, mels, time steps), `starts` and `times`.

        Raises:
            ValueError: for several recordings, or another overlap.
        """
        extractor = self.feature_extractor
        waveforms = extractor.waveforms(audio, sampling_rate)
        if len(waveforms) != 1:
            raise ValueError(f"Expected one recording, got {len(waveforms)}.")
        starts = window_starts(extractor, waveforms[0].shape[0], overlap)
        windows = cut_windows(extractor, waveforms[0], starts)
        features = extractor(list(windows), sampling_rate=extractor.sampling_rate).input_features
        ends = [min(start + extractor.num_samples, waveforms[0].shape[0]) for start in starts]
        times = [(start + end) / 2 / extractor.sampling_rate for start, end in zip(starts, ends, strict=True)]
        return SeparationWindows(features, starts, times)

    def consistent_masks(self, mask_logits: torch.Tensor) -> torch.Tensor:
        """Mask logits (sources, ...) of one mixture, changed so that their masks add up to 1 over two or more sources.

        The sources that they separate then add up to the mixture, but for what no mel filter lets through.
        """
        return consistent_masks(mask_logits)

    def post_process_source_separation(
        self, outputs, audio, sampling_rate: int | None = None, starts: Sequence | None = None
    ) -> list[torch.Tensor]:
        """
        The wanted source of each mixture.

        Args:
            outputs: of `DeepAVFusionForSourceSeparation`; `logits` (B, 1, mels, time steps) of masks, one a mixture, or
                one for each window of each mixture.
            audio: the mixtures that the processor was given, in the same form.
            sampling_rate: theirs in Hz, as given to the processor.
            starts: of the windows, as [`separation_windows`] gives them; of several mixtures a list of such lists. None
                stands for windows that overlap by half, where there are as many masks as those, more than mixtures.

        Returns:
            For each mixture (N,) float32 at `sampling_rate`: mono, as long as the mixture. With one mask a mixture and
            no starts, as long as the model's window where the mixture is longer, for the model heard no more.

        Raises:
            ValueError: for another number of masks than mixtures or windows, logits of another shape, or windows that
                do not cover a mixture.
        """
        logits = _logits(outputs, (4,), "(batch, 1, mels, time steps)")
        extractor = self.feature_extractor
        waveforms = extractor.waveforms(audio, sampling_rate)
        rate = extractor.sampling_rate if sampling_rate is None else int(sampling_rate)
        windows = self._windows_of_masks(logits.shape[0], waveforms, starts)
        separated, first = [], 0
        for waveform, sound, begins in zip(waveforms, as_waveforms(audio), windows, strict=True):
            masks, length = logits[first : first + len(begins or [0])], to_mono(sound).shape[0]
            first += masks.shape[0]
            if begins is None:
                source, length = (
                    extractor.separate(masks, waveform[None])[0],
                    min(length, round(extractor.seconds * rate)),
                )
            else:
                source = separate_windows(extractor, masks, waveform, begins)
            source = resample(source, extractor.sampling_rate, rate)
            separated.append(F.pad(source[:length], (0, max(length - source.shape[0], 0))))
        return separated

    def _windows_of_masks(self, count: int, waveforms: list[torch.Tensor], starts: Sequence | None) -> list:
        """For each mixture the starts of its windows, `count` in all; None where it has one mask, for its beginning."""
        if starts is not None:
            windows = [list(starts)] if starts and isinstance(starts[0], int) else [list(begins) for begins in starts]
            if len(windows) != len(waveforms) or sum(map(len, windows)) != count or not all(windows):
                raise ValueError(
                    f"Expected starts of {count} windows, as many as masks, in a list for each of {len(waveforms)} "
                    f"mixtures, got {starts!r}."
                )
            return windows
        if len(waveforms) == count:
            return [None] * count
        windows = [window_starts(self.feature_extractor, waveform.shape[0]) for waveform in waveforms]
        if sum(map(len, windows)) != count:
            raise ValueError(
                f"Expected a mixture for each of {count} masks, got {len(waveforms)}, which would take "
                f"{sum(map(len, windows))} masks in windows that overlap by half."
            )
        return windows

    def post_process_semantic_segmentation(
        self, outputs, target_sizes=None, threshold: float = 0.5, outside: int = 255
    ) -> list[torch.Tensor]:
        """
        The label of each pixel.

        Args:
            outputs: of `DeepAVFusionForSemanticSegmentation`; `logits` (B, labels, H, W).
            target_sizes: (height, width) of each original picture, as a list or a (B, 2) tensor. The map is laid over
                the part of the picture that the model saw. None keeps the logits' own size.
            threshold: of the probability, where there is a single label.
            outside: label of pixels beyond the centre crop, which the model did not see.

        Returns:
            For each sample (height, width) long: class indices; with a single label 1 where something sounds, else 0.

        Raises:
            ValueError: for logits of another shape, or another number of sizes than samples.
        """
        logits = _logits(outputs, (4,), "(batch, labels, height, width)")
        return [
            _to_labels(maps, threshold, outside)
            for maps in self._on_pictures(logits, target_sizes, outside=float("nan"))
        ]

    def post_process_sound_localization(
        self, outputs, target_sizes=None, normalize: bool = True, outside: float = 0.0
    ) -> list[torch.Tensor]:
        """
        The heat map of where the sound comes from, over each picture.

        Args:
            outputs: of `DeepAVFusionForSoundLocalization`; `logits` (B, h, w), high where it sounds.
            target_sizes: (height, width) of each original picture, as a list or a (B, 2) tensor. None keeps (h, w).
            normalize: whether each map is scaled to 0..1 by its own least and greatest value, as benchmarks of
                localization do; a constant map becomes 0. False keeps the model's values, comparable between samples.
            outside: value beyond the centre crop, which the model did not see.

        Returns:
            For each sample (height, width) float32.

        Raises:
            ValueError: for logits of another shape, or another number of sizes than samples.
        """
        maps = _logits(outputs, (3, 4), "(batch, height, width)")
        if maps.ndim == 4 and maps.shape[1] != 1:
            raise ValueError(f"Expected one map a sample, (batch, height, width), got logits {tuple(maps.shape)}.")
        maps = maps.view(maps.shape[0], 1, *maps.shape[-2:])
        if normalize:
            low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
            maps = (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
        return [placed[0] for placed in self._on_pictures(maps, target_sizes, outside)]

    def _on_pictures(self, maps: torch.Tensor, target_sizes: Any, outside: float) -> list[torch.Tensor]:
        if target_sizes is None:
            return list(maps)
        sizes = _target_sizes(target_sizes, maps.shape[0])
        transform = self.visual_processor
        return [place_on_picture(row, size, transform, outside) for row, size in zip(maps, sizes, strict=True)]


def _to_labels(logits: torch.Tensor, threshold: float, outside: int) -> torch.Tensor:
    """(labels, H, W) with NaN where nothing was seen → (H, W) long."""
    labels = (logits[0].sigmoid() > threshold).long() if logits.shape[0] == 1 else logits.argmax(0)
    return labels.masked_fill(logits[0].isnan(), outside)


__all__ = ["PostProcessing", "place_on_picture"]
