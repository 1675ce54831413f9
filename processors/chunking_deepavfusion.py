"""Source separation of recordings of any length: overlapping windows with one mask each, cross-faded."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .feature_extraction_deepavfusion import DeepAVFusionFeatureExtractor

_BLOCK = 4096  # spectrogram frames separated at a time, about a minute, which bounds the memory of long recordings


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
    if not 0 <= overlap < 1:
        raise ValueError(f"Expected overlap in [0, 1), got {overlap}.")
    if num_samples <= extractor.num_samples:
        return [0]
    hop = max(int(extractor.spectrogram_length * (1 - overlap) + 1e-6), 1)
    # The last window may extend beyond the end by less than a hop.
    last = -(-num_samples // extractor.hop_length) - extractor.spectrogram_length
    return [frame * extractor.hop_length for frame in [*range(0, last, hop), last]]


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
    """Separate a source from a whole recording using the masks of its windows, keeping the phase.

    The masks are blended by [`cross_fade`] and applied to one spectrogram of the whole recording, so that window
    boundaries are inaudible. A recording of a single window is separated by `extractor.separate`.

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
    if len(starts) == 1 and waveform.shape[0] <= extractor.num_samples:
        return extractor.separate(mask_logits[:1], waveform[None])[0]
    hop = extractor.hop_length
    num_frames = waveform.shape[0] // hop + 1
    mask = cross_fade(extractor, mask_logits[:, 0].float().sigmoid(), starts, num_frames)
    # A sample depends on others at most one transform away, so blocks with that margin give the exact result.
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


__all__ = ["SeparationWindows", "consistent_masks", "cross_fade", "separate_windows", "window_starts"]
