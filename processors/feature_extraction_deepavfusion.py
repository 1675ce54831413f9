"""Feature extractor: waveforms to log-mel spectrograms, and masks over mel bins back to waveforms."""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.nn.functional as F
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import logging

from .limits_deepavfusion import MAX_SAMPLING_RATE, MIN_SAMPLING_RATE
from .numbers_deepavfusion import is_count, is_number
from .sources_deepavfusion import as_items
from .threads_deepavfusion import use_one_thread_after_fork
from .waveforms_deepavfusion import as_waveforms, to_mono, with_own_rate

try:
    import torchaudio
except ImportError:
    torchaudio = None

logger = logging.get_logger(__name__)

_MAX_SAMPLES = 2**26  # of a window, more than an hour at 16 kHz
_MAX_RESAMPLING_PHASES = 2000  # bounds the kernel of rates without a common divisor (16000 to 44101: 2.8 GB)


def _require_torchaudio(purpose: str) -> None:
    if torchaudio is None:
        raise ImportError(f"Expected torchaudio to {purpose}, but it is not installed: pip install torchaudio")


@functools.lru_cache(maxsize=16)
def _mel_filters(num_frequencies: int, num_mel_bins: int, sampling_rate: int, device: torch.device) -> torch.Tensor:
    """Build (num_frequencies, num_mel_bins) triangular HTK filters of height 1, from 0 Hz to half the sampling rate."""
    _require_torchaudio("compute mel spectrograms")
    filters = torchaudio.functional.melscale_fbanks(
        num_frequencies, 0.0, sampling_rate / 2, num_mel_bins, sampling_rate, norm=None, mel_scale="htk"
    )
    return filters.to(device)


@functools.lru_cache(maxsize=16)
def _hann_window(length: int, device: torch.device) -> torch.Tensor:
    return torch.hann_window(length, device=device)


def resampling_ratio(rate: int, new_rate: int) -> Fraction:
    """Samples per sample of a waveform resampled from `rate` to `new_rate` (Hz), rounded if its terms are large."""
    ratio = Fraction(new_rate, rate)
    if max(ratio.numerator, ratio.denominator) > _MAX_RESAMPLING_PHASES:
        inverted = ratio > 1
        ratio = (1 / ratio if inverted else ratio).limit_denominator(_MAX_RESAMPLING_PHASES)
        ratio = 1 / ratio if inverted else ratio
    return ratio


def resample(waveform: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """Resample a waveform by windowed sinc interpolation.

    If the common divisor of the two rates is small, their ratio is rounded by a few millionths to keep the kernel
    small.

    Args:
        waveform: (..., N) float32.
        rate: Sampling rate of the waveform in Hz.
        new_rate: Sampling rate of the result in Hz.

    Returns:
        (..., ceil(N * new_rate / rate)) float32; up to one sample more or less if the ratio was rounded.
    """
    if rate == new_rate:
        return waveform
    _require_torchaudio(f"resample audio from {rate} to {new_rate} Hz")
    ratio = resampling_ratio(rate, new_rate)
    return torchaudio.functional.resample(waveform, ratio.denominator, ratio.numerator)


def fill_window(waveform: torch.Tensor, num_samples: int) -> torch.Tensor:
    """Cut (..., N) samples to (..., num_samples), or repeat them forward and backward to that length."""
    length = waveform.shape[-1]
    if length < num_samples:
        mirrored = torch.cat([waveform, waveform.flip(-1)], dim=-1)
        times = -(-num_samples // (2 * length))
        waveform = mirrored.repeat(*(1,) * (waveform.ndim - 1), times)
    return waveform[..., :num_samples]


def rates_of(sampling_rate: Any, count: int) -> list:
    """Return the sampling rate of each of `count` sounds: the same for all, or one for each.

    Raises:
        ValueError: If their number differs.
    """
    rates = as_items(sampling_rate)
    if rates is None:
        rates = sampling_rate.tolist() if getattr(sampling_rate, "ndim", 0) == 1 else [sampling_rate] * count
    if len(rates) != count:
        raise ValueError(f"Expected one sampling_rate, or one for each of {count} sounds, got {len(rates)}.")
    return rates


class DeepAVFusionFeatureExtractor(SequenceFeatureExtractor):
    """Log10-mel spectrograms of audio as the published models expect them: `input_features`.

    The channels are averaged; the waveform is resampled to `sampling_rate`, and cut or repeated forward and backward
    to `seconds`. The spectrogram is the squared magnitude of an STFT with a centered Hann window and reflection at the
    ends, filtered by HTK mel filters from 0 Hz to half the sampling rate without normalization, as
    log10(power + log_offset). The last of its `spectrogram_length` + 1 frames is dropped.

    Args:
        num_mel_bins: Number of mel bins of the spectrogram.
        spectrogram_length: Number of time steps of the spectrogram, 64 per second by default.
        sampling_rate: Sampling rate in Hz of the waveforms that the spectrogram is computed from.
        n_fft: Length of the window and of the transform in samples (50 ms).
        hop_length: Number of samples between time steps.
        log_offset: Added to the power before the logarithm, which keeps silence finite.

    Example:
    ```python
    >>> import numpy as np
    >>> from deepavfusion import DeepAVFusionFeatureExtractor

    >>> stereo = np.zeros((2, 3 * 44100), np.float32)
    >>> DeepAVFusionFeatureExtractor()(stereo, sampling_rate=44100).input_features.shape
    torch.Size([1, 1, 128, 192])
    ```
    """

    model_input_names = ["input_features"]

    def __init__(
        self,
        num_mel_bins: int = 128,
        spectrogram_length: int = 192,
        sampling_rate: int = 16000,
        n_fft: int = 800,
        hop_length: int = 250,
        log_offset: float = 1e-7,
        **kwargs,
    ):
        """Check and store the settings."""
        for name in ("feature_size", "padding_value", "feature_extractor_type", "auto_map"):
            kwargs.pop(name, None)
        super().__init__(feature_size=num_mel_bins, sampling_rate=sampling_rate, padding_value=0.0, **kwargs)
        sizes = {
            "num_mel_bins": (num_mel_bins, 4096),
            "spectrogram_length": (spectrogram_length, 1_000_000),
            "sampling_rate": (sampling_rate, MAX_SAMPLING_RATE),
            "n_fft": (n_fft, 2**16),
            "hop_length": (hop_length, 2**16),
        }
        for name, (value, most) in sizes.items():
            if not is_count(value, most):
                raise ValueError(f"Expected {name} as a positive int of at most {most}, got {value!r}.")
        if spectrogram_length * hop_length > _MAX_SAMPLES or spectrogram_length * num_mel_bins > _MAX_SAMPLES:
            raise ValueError(
                f"Expected windows of at most {_MAX_SAMPLES} samples and values, got spectrogram_length="
                f"{spectrogram_length}, hop_length={hop_length} and num_mel_bins={num_mel_bins}."
            )
        if not is_number(log_offset, 1e-30, 1):
            raise ValueError(f"Expected log_offset as a number of at least 1e-30 and at most 1, got {log_offset!r}.")
        if spectrogram_length * hop_length <= n_fft // 2:
            raise ValueError(
                f"Expected a spectrogram longer than half a window ({n_fft // 2} samples), because its ends are "
                f"reflected, got spectrogram_length={spectrogram_length}, {spectrogram_length * hop_length} samples."
            )
        self.num_mel_bins = num_mel_bins
        self.spectrogram_length = spectrogram_length
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.log_offset = log_offset

    @property
    def num_samples(self) -> int:
        """Length of a window in samples."""
        return self.spectrogram_length * self.hop_length

    @property
    def seconds(self) -> float:
        """Length of a window in seconds."""
        return self.num_samples / self.sampling_rate

    def __call__(
        self,
        audio,
        sampling_rate: int | Sequence[int] | None = None,
        return_tensors: str | None = "pt",
        padding: bool | str | None = None,
        truncation: bool | None = None,
        return_attention_mask: bool | None = None,
        device: str | torch.device | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Compute log-mel spectrograms.

        Args:
            audio: A waveform, (N,) or (2, N) as a numpy array, torch tensor or list of numbers, see `to_mono`; or a
                sequence of waveforms, which may differ in length and have any number of channels, (C, N). Or sounds
                with their own sampling rates: files, see `is_file`, and values of `datasets`.
            sampling_rate: Sampling rate of `audio` in Hz, or of each waveform. Without it, the extractor warns and
                assumes its own rate.
            return_tensors: `"pt"` or `"np"`.
            padding: How waveforms shorter than the window are filled: repeated forward and backward by default, as
                published; with silence if True, `"longest"` or `"max_length"`; not at all if False or `"do_not_pad"`.
            truncation: Whether longer waveforms are cut, which is the default.
            return_attention_mask: Whether to return which time steps are within the given audio.
            device: Device that computes the spectrograms; that of the audio by default.
            **kwargs: No other arguments are accepted, except `max_length`, the length of the window in samples.

        Returns:
            `input_features` (B, 1, num_mel_bins, spectrogram_length) float32, log10 power. On request,
            `attention_mask` (B, spectrogram_length) int64, 1 where there is audio.

        Raises:
            MediaError: If a file cannot be read or has no audio.
            TypeError: If `audio` has an unsupported type, or for unknown arguments.
            ValueError: If a waveform has the wrong shape, samples that are NaN or infinite, or a length that `padding`
                or `truncation` excludes.
            ImportError: If torchaudio is not installed.
        """
        if kwargs.pop("max_length", None) not in (None, self.num_samples):
            raise ValueError(f"Expected max_length as the {self.num_samples} samples of the window, if at all.")
        if kwargs := {name: value for name, value in kwargs.items() if value is not None}:
            raise TypeError(f"Unexpected arguments: {', '.join(kwargs)}.")
        use_one_thread_after_fork()
        waveforms = self.waveforms(audio, sampling_rate, self.seconds + 1.0)  # resampling looks ahead
        lengths = [len(waveform) for waveform in waveforms]
        if padding in (False, "do_not_pad") and min(lengths) < self.num_samples:
            raise ValueError(f"Expected at least {self.num_samples} samples without padding, got {min(lengths)}.")
        if truncation is False and max(lengths) > self.num_samples:
            raise ValueError(f"Expected at most {self.num_samples} samples without truncation, got {max(lengths)}.")
        windows = torch.stack([self._window(waveform, padding) for waveform in waveforms])
        data = {"input_features": self.log_mel(windows if device is None else windows.to(device))[:, None]}
        if return_attention_mask:
            steps = torch.arange(self.spectrogram_length) * self.hop_length
            data["attention_mask"] = (steps < torch.tensor(lengths)[:, None]).long()
        return BatchFeature(data, tensor_type=return_tensors)

    def _window(self, waveform: torch.Tensor, padding: bool | str | None) -> torch.Tensor:
        if padding not in (None, True, False, "longest", "max_length", "do_not_pad"):
            raise ValueError(f"Expected padding as a bool, 'longest', 'max_length' or 'do_not_pad', got {padding!r}.")
        if padding is None or waveform.shape[-1] >= self.num_samples:
            return fill_window(waveform, self.num_samples)
        return F.pad(waveform, (0, self.num_samples - waveform.shape[-1]), value=self.padding_value)

    def waveforms(
        self, audio, sampling_rate: int | Sequence[int] | None = None, seconds: float | None = None
    ) -> list[torch.Tensor]:
        """Convert audio, as in `__call__`, to mono waveforms (N,) float32 at the extractor's sampling rate.

        Of files, `seconds` from their start are decoded; all by default.
        """
        items = as_waveforms(audio)
        rates = rates_of(sampling_rate, len(items))
        names = ["audio"] if len(items) == 1 else [f"audio[{i}]" for i in range(len(items))]
        sounds = (with_own_rate(item, rate, seconds) for item, rate in zip(items, rates, strict=True))
        return [
            resample(to_mono(item, name), self.check_rate(rate), self.sampling_rate)
            for (item, rate), name in zip(sounds, names, strict=True)
        ]

    def check_rate(self, sampling_rate: int | float | None) -> int:
        """Check a sampling rate in Hz; without one, warn and return the extractor's own."""
        if sampling_rate is None:
            logger.warning_once(
                f"No sampling_rate given, {self.sampling_rate} Hz is assumed. Pass sampling_rate=...: audio at another "
                "rate gives wrong features."
            )
            return self.sampling_rate
        known = is_number(sampling_rate, MIN_SAMPLING_RATE, MAX_SAMPLING_RATE)
        if not known or sampling_rate != int(sampling_rate):
            raise ValueError(
                f"Expected sampling_rate as a whole number of Hz, {MIN_SAMPLING_RATE} to {MAX_SAMPLING_RATE}, got "
                f"{sampling_rate!r}."
            )
        return int(sampling_rate)

    def stft(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Transform (..., N) samples to a complex spectrogram (..., n_fft / 2 + 1, N / hop_length + 1)."""
        window = _hann_window(self.n_fft, waveforms.device)
        spectrum = torch.stft(
            waveforms.reshape(-1, waveforms.shape[-1]),
            self.n_fft,
            self.hop_length,
            window=window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        return spectrum.view(*waveforms.shape[:-1], *spectrum.shape[-2:])

    def log_mel(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Compute log-mel spectrograms of full windows, on the device of the waveforms.

        Args:
            waveforms: (..., num_samples) float32 at the extractor's sampling rate, finite.

        Returns:
            (..., num_mel_bins, spectrogram_length) float32, log10(power + log_offset).

        Raises:
            ValueError: If the waveforms have the wrong length.
            ImportError: If torchaudio is not installed.
        """
        if waveforms.shape[-1] != self.num_samples:
            raise ValueError(f"Expected waveforms of {self.num_samples} samples, got shape {tuple(waveforms.shape)}.")
        with torch.autocast(waveforms.device.type, enabled=False):  # half precision would lose quiet audio
            squares = torch.view_as_real(self.stft(waveforms.float())[..., :-1]).square()
            power = squares[..., 0] + squares[..., 1]  # the sum of an axis of two takes seven times as long
            return torch.matmul(self._filters(waveforms.device).T, power).add_(self.log_offset).log10_()

    def _filters(self, device: torch.device) -> torch.Tensor:
        return _mel_filters(self.n_fft // 2 + 1, self.num_mel_bins, self.sampling_rate, device)

    def separate(self, mask_logits: torch.Tensor, waveforms: torch.Tensor) -> torch.Tensor:
        """Separate sources from mixtures using masks over mel bins (published post-processing).

        The mask is mapped to linear frequencies by the mel filters, which add up to at most one at each frequency, and
        is 0 in the frame that log-mel spectrograms drop. The mixture's phase is kept.

        Args:
            mask_logits: (B, 1, num_mel_bins, spectrogram_length) or without the second axis; the mask is its sigmoid.
            waveforms: (B, N) mixtures at the extractor's sampling rate; only the first `num_samples` are used.

        Returns:
            (B, min(N, num_samples)) float32.

        Raises:
            ValueError: If the shapes differ from these.
        """
        masks = mask_logits[:, 0] if mask_logits.ndim == 4 else mask_logits
        expected = (waveforms.shape[0], self.num_mel_bins, self.spectrogram_length)
        if waveforms.ndim != 2 or tuple(masks.shape) != expected:
            raise ValueError(
                f"Expected mixtures (B, N) and a mask for each, (B, 1, {self.num_mel_bins}, "
                f"{self.spectrogram_length}), got shapes {tuple(waveforms.shape)} and {tuple(mask_logits.shape)}."
            )
        masks = F.pad(masks.float().sigmoid(), (0, 1))
        return self.apply_mask(masks, fill_window(waveforms.float(), self.num_samples))[:, : waveforms.shape[1]]

    def apply_mask(self, masks: torch.Tensor, waveforms: torch.Tensor) -> torch.Tensor:
        """Apply masks over mel bins to waveforms of any length, keeping their phase.

        Args:
            masks: (..., num_mel_bins, N // hop_length + 1) in 0..1.
            waveforms: (..., N) at the extractor's sampling rate, longer than half an STFT window.

        Returns:
            (..., N) float32.
        """
        with torch.autocast(masks.device.type, enabled=False):
            linear = torch.matmul(self._filters(masks.device), masks.float())  # (..., n_fft / 2 + 1, frames)
        spectrum = self.stft(waveforms.float()) * linear
        window = _hann_window(self.n_fft, spectrum.device)
        return torch.istft(spectrum, self.n_fft, self.hop_length, window=window, length=waveforms.shape[-1])

    @property
    def auto_map(self) -> dict[str, str]:
        """The class that `trust_remote_code=True` loads; not stored, so that saving does not change the extractor."""
        return {self._auto_class: f"{type(self).__module__.split('.')[-1]}.{type(self).__name__}"}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        settings = {**super().to_dict(), "auto_map": self.auto_map}
        # The base class has these for padding, which this extractor only does on request.
        for name in ("feature_size", "padding_value", "padding_side", "return_attention_mask"):
            settings.pop(name, None)
        return settings


DeepAVFusionFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")

__all__ = ["DeepAVFusionFeatureExtractor"]
