"""Source separation of recordings of any length: overlapping windows with one mask each, cross-faded."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor
from .sample_streams_deepavfusion import SampleBuffer

_BLOCK = 1024  # spectrogram frames separated at a time, 16 seconds, which bounds the memory of long recordings


class SeparationWindows(NamedTuple):
    """Windows of a recording, as inputs of a model.

    Attributes:
        input_features: (W, 1, mels, time steps).
        starts: First sample of each window at the extractor's sampling rate, a multiple of its hop length.
        times: Middle of each window's samples in seconds from the recording's start; the frame to pair it with.
    """

    input_features: torch.Tensor
    starts: list[int]
    times: list[float]


def window_starts(extractor: DeepAVFusionFeatureExtractor, num_samples: int, overlap: float = 0.5) -> list[int]:
    """Place the windows of a recording evenly, except that the last one ends with the recording.

    Args:
        extractor: Feature extractor that defines the length of a window.
        num_samples: Length of the recording at the extractor's sampling rate.
        overlap: Minimum fraction of a window that the next one overlaps, in [0, 1).

    Returns:
        First sample of each window, ascending multiples of the extractor's hop length; `[0]` if one window is enough.

    Raises:
        ValueError: If `overlap` is outside [0, 1).
    """
    regular, last = window_frames(extractor, num_samples, overlap)
    return [frame * extractor.hop_length for frame in [*regular, last]]


def window_frames(extractor: DeepAVFusionFeatureExtractor, num_samples: int, overlap: float = 0.5) -> tuple[range, int]:
    """Spectrogram frames at which the windows of a recording start: all but the last one, and the last one.

    Those of the first part of a recording are the first ones of the whole.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"Expected overlap in [0, 1), got {overlap}.")
    hop = max(int(extractor.spectrogram_length * (1 - overlap) + 1e-6), 1)
    # The last window may extend beyond the end by less than a hop.
    last = max(-(-num_samples // extractor.hop_length) - extractor.spectrogram_length, 0)
    return range(0, last, hop), last


def cut_windows(extractor: DeepAVFusionFeatureExtractor, waveform: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
    """Cut a waveform (N,) into windows (W, up to num_samples), padded with zeros at its end."""
    size = min(extractor.num_samples, waveform.shape[0]) if len(starts) == 1 else extractor.num_samples
    padded = F.pad(waveform, (0, max(starts[-1] + size - waveform.shape[0], 0)))
    return torch.stack([padded[start : start + size] for start in starts])


def check_starts(extractor: DeepAVFusionFeatureExtractor, starts: Sequence[int], num_samples: int) -> None:
    """Raise `ValueError` unless windows with these starts cover all samples in order without a gap."""
    hop, width = extractor.hop_length, extractor.num_samples
    steps = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    whole = all(isinstance(start, int) and start % hop == 0 for start in starts)
    if not whole or starts[0] != 0 or any(not 0 < step <= width for step in steps):
        raise ValueError(
            f"Expected starts of windows in samples, ascending from 0, multiples of {hop}, in steps of at most "
            f"{width}, got {list(starts)}."
        )
    if not starts[-1] < num_samples <= starts[-1] + width + hop - 1:
        raise ValueError(
            f"Expected windows that cover all {num_samples} samples at the extractor's rate, got a last window of "
            f"{starts[-1]} to {starts[-1] + width}."
        )


def cross_fade(
    extractor: DeepAVFusionFeatureExtractor, masks: torch.Tensor, starts: Sequence[int], num_frames: int
) -> torch.Tensor:
    """Blend the masks of overlapping windows into one mask for the recording.

    Each window is weighted by a raised cosine with its maximum in the middle, and the weights are normalized to a sum
    of 1 at every frame. A last frame beyond all windows repeats the one before.

    Args:
        extractor: Feature extractor that defines the hop length.
        masks: (W, mels, time steps).
        starts: First sample of each window.
        num_frames: Number of frames of the recording's spectrogram.

    Returns:
        (mels, num_frames) float32.
    """
    fade = MaskFade(extractor)
    for mask, start in zip(masks, starts, strict=True):
        fade.add(mask, start)
    return fade.read(0, num_frames)


class MaskFade:
    """Masks of overlapping windows, blended as in [`cross_fade`] while they come.

    Args:
        extractor: Feature extractor that defines the hop length.
        start: First frame that is kept.
    """

    def __init__(self, extractor: DeepAVFusionFeatureExtractor, start: int = 0):
        self.hop, self.start, self.end = extractor.hop_length, start, start
        self._total: torch.Tensor | None = None

    def add(self, mask: torch.Tensor, start: int) -> None:
        """Add the mask (..., mels, time steps) of the window that starts at a sample."""
        width, begin = mask.shape[-1], start // self.hop - self.start
        fade = torch.sin(math.pi * (torch.arange(width, device=mask.device) + 0.5) / width).square()
        if begin + width <= 0:
            return
        if self._total is None:
            self._total, self._weight = mask.new_zeros(*mask.shape[:-1], 0), mask.new_zeros(0)
        if (missing := begin + width - self._weight.shape[0]) > 0:
            self._total, self._weight = F.pad(self._total, (0, missing)), F.pad(self._weight, (0, missing))
        kept = slice(max(-begin, 0), width)  # the end of a window that starts before the first frame
        place = slice(max(begin, 0), begin + width)
        self._total[..., place] += (fade * mask)[..., kept]
        self._weight[place] += fade[kept]
        self.end = self.start + self._weight.shape[0]

    def read(self, low: int, high: int) -> torch.Tensor:
        """Return the blended mask (..., mels, high - low); frames beyond all windows repeat the last one."""
        frames = torch.arange(low, high, device=self._weight.device).clamp(max=self.end - 1) - self.start
        return self._total[..., frames] / self._weight[frames]

    def drop(self, before: int) -> None:
        """Drop the frames before one."""
        if self.start < before < self.end:
            self._total = self._total[..., before - self.start :].clone()
            self._weight = self._weight[before - self.start :].clone()
            self.start = before


class WindowCutter:
    """Cuts a recording that arrives in parts into the windows of [`window_starts`].

    Args:
        extractor: Feature extractor that defines the length of a window.
        overlap: Minimum fraction of a window that the next one overlaps, in [0, 1).
        first: Number of windows that are left out at the beginning.

    Attributes:
        samples: The latest samples, and the number of those that have come.
    """

    def __init__(self, extractor: DeepAVFusionFeatureExtractor, overlap: float, first: int = 0):
        self.extractor, self.overlap, self.index = extractor, overlap, first
        # The last window may start before a regular one would, but after the one before.
        begin = max(first - 1, 0) * window_frames(extractor, 0, overlap)[0].step
        self.samples = SampleBuffer(begin * extractor.hop_length)

    def take(self, finished: bool = False) -> Iterator[tuple[int, int, torch.Tensor]]:
        """Yield (index, first sample, samples) of the windows that are complete; all, if the recording is finished.

        The samples are as in `cut_windows`.
        """
        extractor, length = self.extractor, self.samples.end
        regular, last = window_frames(extractor, length, self.overlap)
        frames = [*regular, last] if finished else regular
        while self.index < len(frames):
            start = frames[self.index] * extractor.hop_length
            self.samples.drop(start)
            window = self.samples.read(start, min(start + extractor.num_samples, length))
            if len(frames) > 1:
                window = F.pad(window, (0, extractor.num_samples - window.shape[0]))
            yield self.index, start, window
            self.index += 1


class SeparationStream:
    """Separation of sources from a recording that arrives in parts, keeping the phase.

    The masks are blended by [`MaskFade`] and applied to one spectrogram of the whole recording, in blocks, so that the
    boundaries of windows and blocks are inaudible. A recording of a single window is separated by `extractor.separate`.

    Args:
        extractor: Feature extractor that computed the windows.
        first_block: Number of blocks that are left out at the beginning.
    """

    def __init__(self, extractor: DeepAVFusionFeatureExtractor, first_block: int = 0):
        self.extractor, self.frame = extractor, first_block * _BLOCK
        # A sample depends on others at most one transform away, so blocks with that margin give the exact result.
        self.margin = -(-extractor.n_fft // extractor.hop_length) + 1
        self.first_frame = max(self.frame - self.margin, 0)
        self.samples = SampleBuffer(self.first_frame * extractor.hop_length)
        self.fade, self._known, self._only = MaskFade(extractor, self.first_frame), 0, None

    @staticmethod
    def block_of(extractor: DeepAVFusionFeatureExtractor, sample: int) -> int:
        """Number of blocks that end before a sample."""
        return max(sample, 0) // (_BLOCK * extractor.hop_length)

    @property
    def position(self) -> int:
        """First sample of the next block."""
        return self.frame * self.extractor.hop_length

    def add_window(self, mask_logits: torch.Tensor, start: int) -> None:
        """Add the mask logits (sources, mels, time steps) of the window that starts at a sample, in order."""
        self._only = mask_logits if start == 0 else None
        self._known = start // self.extractor.hop_length  # no later window changes the frames before
        self.fade.add(mask_logits.float().sigmoid(), start)

    def take(self) -> Iterator[torch.Tensor]:
        """Yield the blocks (sources, n) float32 whose samples and masks have come."""
        while (high := self.frame + _BLOCK + self.margin) < min(
            self.samples.end // self.extractor.hop_length, self._known
        ):
            yield self._block(self.frame + _BLOCK, high, high * self.extractor.hop_length)

    def finish(self) -> Iterator[torch.Tensor]:
        """Yield the blocks that remain after the last sample and window."""
        length = self.samples.end
        if self._only is not None and length <= self.extractor.num_samples:
            mixture = self.samples.read(0, length)
            yield self.extractor.separate(self._only, mixture.expand(len(self._only), -1))
            return
        num_frames = length // self.extractor.hop_length + 1
        while self.frame < num_frames:
            end = min(self.frame + _BLOCK, num_frames)
            high = min(end + self.margin, num_frames - 1)
            yield self._block(end, high, length if high == num_frames - 1 else high * self.extractor.hop_length)

    def _block(self, end: int, high: int, stop: int) -> torch.Tensor:
        """Separate the frames up to `end` from masks up to frame `high` and samples up to `stop`."""
        hop, begin = self.extractor.hop_length, self.frame
        low = max(begin - self.margin, 0)
        separated = self.extractor.apply_mask(self.fade.read(low, high + 1), self.samples.read(low * hop, stop))
        self.frame = end
        self.samples.drop((end - self.margin) * hop)
        self.fade.drop(end - self.margin)
        return separated[..., (begin - low) * hop : (end - low) * hop]


def separate_windows(
    extractor: DeepAVFusionFeatureExtractor, mask_logits: torch.Tensor, waveform: torch.Tensor, starts: Sequence[int]
) -> torch.Tensor:
    """Separate a source from a whole recording using the masks of its windows, keeping the phase.

    See [`SeparationStream`].

    Args:
        extractor: Feature extractor that computed the windows.
        mask_logits: (W, 1, mels, time steps); the masks are their sigmoid.
        waveform: (N,) mixture at the extractor's sampling rate.
        starts: First sample of each window.

    Returns:
        (N,) float32.

    Raises:
        ValueError: If the shapes differ from these, or the windows do not cover the recording.
    """
    expected = (len(starts), 1, extractor.num_mel_bins, extractor.spectrogram_length)
    if waveform.ndim != 1 or tuple(mask_logits.shape) != expected:
        raise ValueError(
            f"Expected a mixture (N,) and mask_logits {expected}, got shapes {tuple(waveform.shape)} and "
            f"{tuple(mask_logits.shape)}."
        )
    check_starts(extractor, starts, waveform.shape[0])
    stream = SeparationStream(extractor)
    stream.samples.append(waveform)
    for logits, start in zip(mask_logits, starts, strict=True):
        stream.add_window(logits, start)
    return torch.cat(list(stream.finish()), dim=1)[0]


def consistent_masks(mask_logits: torch.Tensor) -> torch.Tensor:
    """Divide the masks of the sources of a mixture by their sum, so that the sources add up to the mixture.

    This holds where the mel filters add up to 1. No source contains what the filters attenuate (the lowest and highest
    frequencies, and all above half the model's sampling rate), nor the last hop of the recording, which log-mel
    spectrograms drop.

    Args:
        mask_logits: (sources, ...); the masks are their sigmoid.

    Returns:
        Logits of the same shape whose sigmoids add up to 1 over the sources.

    Raises:
        ValueError: If there are fewer than two sources.
    """
    if mask_logits.shape[0] < 2:
        raise ValueError(f"Expected masks of at least 2 sources, got {mask_logits.shape[0]}.")
    log_masks = F.logsigmoid(mask_logits.float())  # keeps ratios of masks that underflow
    others = [torch.cat([log_masks[:i], log_masks[i + 1 :]]).logsumexp(0) for i in range(log_masks.shape[0])]
    return log_masks - torch.stack(others)


__all__ = [
    "SeparationStream",
    "SeparationWindows",
    "WindowCutter",
    "consistent_masks",
    "cross_fade",
    "separate_windows",
    "window_starts",
]
