"""Post-processing of model outputs to labels, waveforms, and maps over the images."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from .chunking_deepavfusion import SeparationWindows, consistent_masks, cut_windows, separate_windows, window_starts
from .feature_extraction_deepavfusion import rates_of, resample
from .fit_deepavfusion import Region, place_maps, without_margins
from .numbers_deepavfusion import MAX_WINDOWS, is_count, is_number, to_lists
from .waveforms_deepavfusion import as_waveforms, to_mono, with_own_rate


def _logits(outputs: Any, ndims: Sequence[int], expected: str) -> torch.Tensor:
    """Return `outputs.logits` as float32 on the CPU, after checking the number of axes."""
    logits = outputs["logits"] if isinstance(outputs, Mapping) else outputs.logits
    if logits.ndim not in ndims:
        raise ValueError(f"Expected logits of shape {expected}, got {tuple(logits.shape)}.")
    return logits.detach().float().cpu()


def _target_sizes(target_sizes: Any, count: int | None) -> list[tuple[int, int]]:
    """Return target sizes as a list, after checking that there are `count`; None for any number."""
    sizes = to_lists(target_sizes)
    sizes = sizes if isinstance(sizes, list) else [sizes]
    count = len(sizes) if count is None else count
    if len(sizes) != count or not all(map(_is_size, sizes)):
        raise ValueError(
            f"Expected {count} target sizes (height, width), one per sample, with sides of at least 1 pixel, got "
            f"{target_sizes!r}."
        )
    return [(int(height), int(width)) for height, width in sizes]


def _is_size(size: Any) -> bool:
    """Whether a value is a list of two whole numbers from 1."""
    return isinstance(size, list) and len(size) == 2 and all(is_number(n, 1) and n == int(n) for n in size)


# Rows of a segmented image that are labeled at a time, which bounds the memory of large images of many classes.
_BLOCK = 256


class PostProcessing:
    """The `post_process_*` methods of [`DeepAVFusionProcessor`], and its methods for long recordings.

    Subclasses have the attributes feature_extractor and visual_processor.
    """

    feature_extractor: Any
    visual_processor: Any

    def post_process_classification(
        self,
        outputs,
        top_k: int | None = 5,
        id2label: Mapping[int, str] | None = None,
        multi_label: bool = False,
        num_tiles: Sequence[int] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Rank the labels of each sample.

        Args:
            outputs: Outputs of `DeepAVFusionForAudioVisualClassification`; `logits` (B, labels).
            top_k: Maximum number of labels; None for all.
            id2label: Names of the labels, such as `model.config.id2label`; class indices by default.
            multi_label: Whether scores are the sigmoid of each logit rather than the softmax over all. The score of a
                single label always is.
            num_tiles: Number of tiles of each sample, over which logits are averaged; by default each row is a sample.

        Returns:
            For each sample, a list of `{"score": float, "label": str or int}` sorted by descending score.

        Raises:
            ValueError: If the logits have the wrong shape, the tiles do not add up to them, or `top_k` is below 1.
        """
        logits = _logits(outputs, (2,), "(batch, labels)")
        if num_tiles is not None:
            num_tiles = to_lists(num_tiles)
            if sum(num_tiles) != len(logits) or min(num_tiles, default=0) < 1:
                raise ValueError(f"Expected num_tiles that add up to {len(logits)} rows, got {num_tiles}.")
            logits = torch.stack([rows.mean(0) for rows in logits.split(num_tiles)])
        if top_k is not None and not is_count(top_k, MAX_WINDOWS):
            raise ValueError(f"Expected top_k of at least 1, or None for all labels, got {top_k}.")
        scores = logits.sigmoid() if multi_label or logits.shape[1] == 1 else logits.softmax(-1)
        count = scores.shape[1] if top_k is None else min(top_k, scores.shape[1])
        names = None if id2label is None else {int(index): name for index, name in id2label.items()}
        best, indices = scores.topk(count)
        return [
            [{"score": s, "label": i if names is None else names[i]} for s, i in zip(row, found, strict=True)]
            for row, found in zip(best.tolist(), indices.tolist(), strict=True)
        ]

    def separation_windows(self, audio, sampling_rate: int | None = None, overlap: float = 0.5) -> SeparationWindows:
        """Cut a recording of any length into overlapping windows for source separation.

        Run the model on each window, with the frame at its time or one frame for all, and pass the masks of all windows
        in order to [`post_process_source_separation`].

        Args:
            audio: One recording, as in a call of the processor.
            sampling_rate: Sampling rate of `audio` in Hz.
            overlap: Fraction of a window that the next one overlaps, in [0, 1).

        Returns:
            [`SeparationWindows`]: `input_features` (W, 1, mels, time steps), `starts` and `times`.

        Raises:
            ValueError: If there are several recordings, or `overlap` is outside [0, 1).
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
        """Normalize mask logits (sources, ...) of one mixture so that the masks add up to 1 over the sources.

        The separated sources then add up to the mixture, except for what the mel filters attenuate.

        Raises:
            ValueError: If there are fewer than two sources.
        """
        return consistent_masks(mask_logits)

    def post_process_source_separation(
        self, outputs, audio, sampling_rate: int | Sequence[int] | None = None, starts: Sequence | None = None
    ) -> list[torch.Tensor]:
        """Separate the target source from each mixture.

        Args:
            outputs: Outputs of `DeepAVFusionForSourceSeparation`; `logits` (B, 1, mels, time steps) of masks, one per
                mixture, or one per window of each mixture.
            audio: The mixtures, as passed to the processor.
            sampling_rate: Sampling rate of `audio` in Hz, or of each mixture, as passed to the processor.
            starts: Starts of the windows from [`separation_windows`]; for several mixtures, a list of such lists. By
                default there is one mask per mixture, or one per window of windows that overlap by half.

        Returns:
            For each mixture its mono source (N,) float32 at the mixture's sampling rate and of its length. With one
            mask per mixture and no starts, at most the length of the model's window.

        Raises:
            ValueError: If the number of masks does not match the mixtures or windows, the logits have the wrong shape,
                or the windows do not cover a mixture.
        """
        logits = _logits(outputs, (4,), "(batch, 1, mels, time steps)")
        extractor = self.feature_extractor
        mixtures = as_waveforms(audio)
        rates = rates_of(sampling_rate, len(mixtures))
        mixtures = [with_own_rate(mixture, rate) for mixture, rate in zip(mixtures, rates, strict=True)]
        waveforms = extractor.waveforms([mixture for mixture, _ in mixtures], [rate for _, rate in mixtures])
        windows = self._windows_of_masks(logits.shape[0], waveforms, starts)
        separated, first = [], 0
        for waveform, (mixture, own_rate), begins in zip(waveforms, mixtures, windows, strict=True):
            masks, length = logits[first : first + len(begins or [0])], to_mono(mixture).shape[0]
            rate = extractor.check_rate(own_rate)
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
        """Return the starts of each mixture's windows, `count` in total; None for one mask and no starts."""
        if starts is not None:
            windows = to_lists(starts)
            windows = windows if all(isinstance(begins, list) for begins in windows) else [windows]
            if len(windows) != len(waveforms) or sum(map(len, windows)) != count or not all(windows):
                raise ValueError(
                    f"Expected starts of {count} windows, one per mask, in a list for each of {len(waveforms)} "
                    f"mixtures, got {starts!r}."
                )
            return windows
        if len(waveforms) == count:
            return [None] * count
        windows = [window_starts(self.feature_extractor, waveform.shape[0]) for waveform in waveforms]
        if sum(map(len, windows)) != count:
            raise ValueError(
                f"Expected a mixture for each of {count} masks, got {len(waveforms)} mixtures, which have "
                f"{sum(map(len, windows))} windows that overlap by half; pass starts for other windows."
            )
        return windows

    def post_process_semantic_segmentation(
        self, outputs, target_sizes=None, threshold: float = 0.5, outside: int = 255
    ) -> list[torch.Tensor]:
        """Predict the label of each pixel.

        Args:
            outputs: Outputs of `DeepAVFusionForSemanticSegmentation`; `logits` (B, labels, H, W).
            target_sizes: (height, width) of each original image, as a list or a (B, 2) array or tensor. The labels are
                placed on the part of the image that the model was given, without margins; those of its tiles are
                merged. By default they have the size of the logits.
            threshold: Probability above which a pixel is labeled 1, if there is a single label.
            outside: Label of pixels outside the center crop.

        Returns:
            For each sample (height, width) long: class indices; with a single label, 1 for sounding objects, else 0.

        Raises:
            ValueError: If the logits have the wrong shape, or the number of sizes differs from the number of samples.
        """
        if not is_number(threshold, 0, 1):
            raise ValueError(f"Expected a threshold of at least 0 and at most 1, got {threshold!r}.")
        logits = _logits(outputs, (4,), "(batch, labels, height, width)")
        if target_sizes is None:
            return [_to_labels(maps, threshold, outside) for maps in logits]
        labels = []
        for maps, regions, (height, width) in self._maps_of_images(logits, target_sizes):
            blocks = [slice(start, min(start + _BLOCK, height)) for start in range(0, height, _BLOCK)]
            placed = (place_maps(maps, regions, (height, width), float("nan"), rows) for rows in blocks)
            labels.append(torch.cat([_to_labels(block, threshold, outside) for block in placed]))
        return labels

    def post_process_sound_localization(
        self, outputs, target_sizes=None, normalize: bool = True, outside: float = 0.0
    ) -> list[torch.Tensor]:
        """Compute a heat map of sound sources over each image.

        Args:
            outputs: Outputs of `DeepAVFusionForSoundLocalization`; `logits` (B, h, w), high at the source.
            target_sizes: (height, width) of each original image, as a list or a (B, 2) array or tensor; (h, w) by
                default. Maps of an image's tiles are merged; with sizes, what is on margins is left out.
            normalize: Whether to scale each map to 0..1 by its minimum and maximum, as benchmarks of localization do; a
                constant map becomes 0. Without it, maps are logits, which are comparable between samples.
            outside: Value outside the center crop.

        Returns:
            For each sample (height, width) float32.

        Raises:
            ValueError: If the logits have the wrong shape, or the number of sizes differs from the number of samples.
        """
        maps = _logits(outputs, (3, 4), "(batch, height, width)")
        if maps.ndim == 4 and maps.shape[1] != 1:
            raise ValueError(f"Expected one map per sample, (batch, height, width), got logits {tuple(maps.shape)}.")
        maps = maps.view(maps.shape[0], 1, *maps.shape[-2:])
        if target_sizes is None:
            return [(_normalized(row, [row]) if normalize else row)[0] for row in maps]
        return [
            place_maps(
                _normalized(rows, without_margins(rows, regions)) if normalize else rows, regions, size, outside
            )[0]
            for rows, regions, size in self._maps_of_images(maps, target_sizes)
        ]

    def _maps_of_images(
        self, maps: torch.Tensor, target_sizes: Any
    ) -> list[tuple[torch.Tensor, list[Region], tuple[int, int]]]:
        """Return the maps (tiles, C, h, w), regions and size of each image."""
        sizes = _target_sizes(target_sizes, maps.shape[0] if self.visual_processor.fit != "tiles" else None)
        regions = [self.visual_processor.regions(*size) for size in sizes]
        counts = [len(parts) for parts in regions]
        if sum(counts) != maps.shape[0]:
            raise ValueError(
                f"Expected logits of {sum(counts)} tiles, {counts} of the images of sizes {sizes}, got "
                f"{maps.shape[0]} rows."
            )
        return list(zip(maps.split(counts), regions, sizes, strict=True))


def _normalized(maps: torch.Tensor, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Scale the maps of an image (tiles, 1, h, w) together to 0..1 by the minimum and maximum of their parts."""
    low, high = torch.cat([part.flatten() for part in parts]).aminmax()
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def _to_labels(logits: torch.Tensor, threshold: float, outside: int) -> torch.Tensor:
    """Convert logits (labels, H, W), NaN outside the crop, to labels (H, W) long."""
    labels = (logits[0].sigmoid() > threshold).long() if logits.shape[0] == 1 else logits.argmax(0)
    return labels.masked_fill(logits[0].isnan(), outside)


__all__ = ["PostProcessing"]
