"""Separation of recordings longer than what a model hears: overlapping windows, one mask each, cross-faded."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor

_BLOCK = 4096  # spectrogram frames separated at a time, about a minute: an hour takes no more memory for its spectrum


class SeparationWindows(NamedTuple):
    """The windows in which a model hears a recording."""

    input_features: torch.Tensor  # (W, 1, mels, time steps)
    starts: list[int]  # first sample of each, at the extractor's rate; multiples of its hop
    times: list[float]  # s from the recording's start: the middle of what each holds, whose frame goes with it


def window_starts(extractor: DeepAVFusionFeatureExtractor, num_samples: int, overlap: float = 0.5) -> list[int]:
    """
    Where the windows of a recording start: evenly, but for the last, which ends with the recording.

    Args:
        extractor: whose windows they are.
        num_samples: of the recording, at the extractor's rate.
        overlap: share of a window that it has in common with the next, at least; from 0 to less than 1.

    Returns:
        Samples, ascending, each a multiple of the extractor's hop; `[0]` where one window holds the recording.

    Raises:
        ValueError: for another overlap.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}: expected a number from 0 to less than 1.")
    if num_samples <= extractor.num_samples:
        return [0]
    hop = max(int(extractor.spectrogram_length * (1 - overlap) + 1e-6), 1)
    # The last window may reach beyond the end, by less than a hop of the spectrogram.
    last = -(-num_samples // extractor.hop_length) - extractor.spectrogram_length
    return [frame * extractor.hop_length for frame in [*range(0, last, hop), last]]


def cut_windows(extractor: DeepAVFusionFeatureExtractor, waveform: torch.Tensor, starts: Sequence[int]) -> torch.Tensor:
    """(N,) at the extractor's rate → (W, up to num_samples): what each window holds; 0 where it reaches beyond."""
    size = min(extractor.num_samples, waveform.shape[0]) if len(starts) == 1 else extractor.num_samples
    padded = F.pad(waveform, (0, max(starts[-1] + size - waveform.shape[0], 0)))
    return torch.stack([padded[start : start + size] for start in starts])


def check_starts(extractor: DeepAVFusionFeatureExtractor, starts: Sequence[int], num_samples: int) -> None:
    """Raises `ValueError` unless windows that start there follow one another without a gap over all the samples."""
    hop, width = extractor.hop_length, extractor.num_samples
    steps = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    whole = all(isinstance(start, int) and start % hop == 0 for start in starts)
    if not whole or starts[0] != 0 or any(not 0 < step <= width for step in steps):
        raise ValueError(
            f"Expected starts of windows in samples, ascending from 0 in multiples of {hop} and in steps of at most "
            f"{width}, got {list(starts)}."
        )
    if not starts[-1] < num_samples <= starts[-1] + width + hop - 1:
        raise ValueError(
            f"Expected windows over all {num_samples} samples (at the extractor's rate), but the last are "
            f"{starts[-1]} .. {starts[-1] + width}."
        )


def cross_fade(
    extractor: DeepAVFusionFeatureExtractor, masks: torch.Tensor, starts: Sequence[int], num_frames: int
) -> torch.Tensor:
    """
    One mask of a whole recording from those of its windows.

    Each window counts as a raised cosine, highest at its middle; at every frame the weights are divided by their sum,
    so that they add up to 1 wherever any window is. A last frame beyond all windows takes the one before.

    Args:
        extractor: whose windows they are.
        masks: (W, mels, time steps).
        starts: first sample of each window.
        num_frames: of the recording's spectrogram.

    Returns:
        (mels, num_frames) float32.
    """
    width = masks.shape[-1]
    fade = torch.sin(math.pi * (torch.arange(width, device=masks.device) + 0.5) / width).square()
    first = [start // extractor.hop_length for start in starts]
    length = max(first[-1] + width, num_frames)
    total, weight = masks.new_zeros(masks.shape[1], length), masks.new_zeros(length)
    for mask, begin in zip(masks, first, strict=True):
        total[:, begin : begin + width] += fade * mask
        weight[begin : begin + width] += fade
    covered = min(first[-1] + width, num_frames)
    blended = total[:, :covered] / weight[:covered]
    return torch.cat([blended, blended[:, -1:].expand(-1, num_frames - covered)], dim=1)


def separate_windows(
    extractor: DeepAVFusionFeatureExtractor, mask_logits: torch.Tensor, waveform: torch.Tensor, starts: Sequence[int]
) -> torch.Tensor:
    """
    A whole recording under the masks of its windows, with its own phase.

    The masks are joined by [`cross_fade`] and applied to one spectrogram of the whole recording, so nothing is heard
    where windows meet. A recording that one window holds comes out as `extractor.separate` makes it.

    Args:
        extractor: whose windows they are.
        mask_logits: (W, 1, mels, time steps); the masks are their sigmoid.
        waveform: (N,) mixture at the extractor's rate.
        starts: first sample of each window.

    Returns:
        (N,) float32.

    Raises:
        ValueError: for other shapes, or windows that do not cover the recording.
    """
    expected = (len(starts), 1, extractor.num_mel_bins, extractor.spectrogram_length)
    if waveform.ndim != 1 or tuple(mask_logits.shape) != expected:
        raise ValueError(
            f"Expected a mixture (N,) and masks {expected} of its windows, got shapes {tuple(waveform.shape)} and "
            f"{tuple(mask_logits.shape)}."
        )
    check_starts(extractor, starts, waveform.shape[0])
    if len(starts) == 1 and waveform.shape[0] <= extractor.num_samples:
        return extractor.separate(mask_logits[:1], waveform[None])[0]
    hop = extractor.hop_length
    num_frames = waveform.shape[0] // hop + 1
    mask = cross_fade(extractor, mask_logits[:, 0].float().sigmoid(), starts, num_frames)
    # A sample depends on others at most a transform away, so blocks with that much around them give the exact result.
    margin = -(-extractor.n_fft // hop) + 1
    parts = []
    for begin in range(0, num_frames, _BLOCK):
        end = min(begin + _BLOCK, num_frames)
        low, high = max(begin - margin, 0), min(end + margin, num_frames - 1)
        stop = waveform.shape[0] if high == num_frames - 1 else high * hop
        separated = extractor.apply_mask(mask[:, low : high + 1], waveform[low * hop : stop])
        parts.append(separated[(begin - low) * hop : (end - low) * hop])
    return torch.cat(parts)


def consistent_masks(mask_logits: torch.Tensor) -> torch.Tensor:
    """
    Masks of several sources of one mixture, divided by their sum, so that the sources add up to the mixture.

    They do so where the mel filters add up to 1. What those let through in part or not at all (the lowest and the
    highest frequencies, and all above half the model's rate) and the last hop of the recording, which log-mel
    spectrograms drop, stay out of every source.

    Args:
        mask_logits: (sources, ...); the masks are their sigmoid.

    Returns:
        Logits of the same shape whose sigmoids add up to 1 over the sources.

    Raises:
        ValueError: for fewer than two sources.
    """
    if mask_logits.shape[0] < 2:
        raise ValueError(f"Expected masks of at least 2 sources to balance, got {mask_logits.shape[0]}.")
    shares = F.logsigmoid(mask_logits.float())  # logarithms of the masks: quiet ones stay apart
    others = [torch.cat([shares[:i], shares[i + 1 :]]).logsumexp(0) for i in range(shares.shape[0])]
    return shares - torch.stack(others)


__all__ = ["SeparationWindows", "consistent_masks", "cross_fade", "separate_windows", "window_starts"]
