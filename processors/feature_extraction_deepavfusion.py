"""Sound for DeepAVFusion: waveforms to log-mel spectrograms, and masks over mel bins back to waveforms."""

import functools
from fractions import Fraction
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.utils import logging

try:
    import torchaudio
except ImportError:
    torchaudio = None

logger = logging.get_logger(__name__)

_MAX_RESAMPLING_PHASES = 2000  # bounds the kernel of rates without a common divisor (16000 to 44101: 2.8 GB)


def _require_torchaudio(purpose: str) -> None:
    if torchaudio is None:
        raise ImportError(f"torchaudio is needed to {purpose}, but it is not installed: pip install torchaudio")


@functools.lru_cache(maxsize=16)
def _mel_filters(num_frequencies: int, num_mel_bins: int, sampling_rate: int, device: torch.device) -> torch.Tensor:
    """(num_frequencies, num_mel_bins) triangles on the HTK scale from 0 Hz to half the rate, height 1."""
    _require_torchaudio("compute mel spectrograms")
    filters = torchaudio.functional.melscale_fbanks(
        num_frequencies, 0.0, sampling_rate / 2, num_mel_bins, sampling_rate, norm=None, mel_scale="htk"
    )
    return filters.to(device)


@functools.lru_cache(maxsize=16)
def _hann_window(length: int, device: torch.device) -> torch.Tensor:
    return torch.hann_window(length, device=device)


def resample(waveform: torch.Tensor, rate: int, new_rate: int) -> torch.Tensor:
    """
    A waveform at another sampling rate (windowed sinc).

    The ratio of two rates with a small common divisor is rounded, by some millionths at most, to keep the kernel small.

    Args:
        waveform: (..., N) float32.
        rate, new_rate: in Hz.

    Returns:
        (..., ceil(N * new_rate / rate)) float32, to a sample.
    """
    if rate == new_rate:
        return waveform
    _require_torchaudio(f"resample sound from {rate} to {new_rate} Hz")
    ratio = Fraction(new_rate, rate)
    if max(ratio.numerator, ratio.denominator) > _MAX_RESAMPLING_PHASES:
        inverted = ratio > 1
        ratio = (1 / ratio if inverted else ratio).limit_denominator(_MAX_RESAMPLING_PHASES)
        ratio = 1 / ratio if inverted else ratio
    return torchaudio.functional.resample(waveform, ratio.denominator, ratio.numerator)


def fill_window(waveform: torch.Tensor, num_samples: int) -> torch.Tensor:
    """(..., N) → (..., num_samples): the start of a longer one; a shorter one there and back until it is full."""
    length = waveform.shape[-1]
    if length < num_samples:
        there_and_back = torch.cat([waveform, waveform.flip(-1)], dim=-1)
        times = -(-num_samples // (2 * length))
        waveform = there_and_back.repeat(*(1,) * (waveform.ndim - 1), times)
    return waveform[..., :num_samples]


def to_mono(sound: Any, name: str = "audio") -> torch.Tensor:
    """
    A sound as one channel.

    Args:
        sound: numpy array, torch tensor or list of numbers; (N,), or (C, N) whose channels are averaged. Floating
            numbers are taken as they are (full scale is ±1), integers are divided by their full scale.
        name: how errors call it.

    Returns:
        (N,) float32.

    Raises:
        TypeError: for anything else.
        ValueError: for another shape, no samples, NaN or infinity.
    """
    if isinstance(sound, (list, tuple)):
        sound = np.asarray(sound, dtype=np.float32)
    if isinstance(sound, np.ndarray):
        sound = torch.from_numpy(np.require(sound, requirements="CW"))
    if not isinstance(sound, torch.Tensor):
        raise TypeError(
            f"Expected {name} as a numpy array, torch tensor or list of numbers, got {type(sound).__name__}."
        )
    shape = tuple(sound.shape)
    if sound.ndim == 2 and shape[0] > 64 >= shape[1]:
        raise ValueError(f"Expected {name} as (channels, samples), got {shape}: transpose it.")
    if sound.ndim not in (1, 2) or 0 in shape:
        raise ValueError(f"Expected {name} of shape (samples,) or (channels, samples), not empty, got {shape}.")
    sound = sound.detach()
    if not sound.is_floating_point():
        full = torch.iinfo(sound.dtype)
        half = (full.max - full.min + 1) / 2
        sound = (sound.double() - (full.max + full.min + 1) / 2) / half  # unsigned silence is half of full scale
    mono = sound.float() if sound.ndim == 1 else sound.float().mean(0)
    if not torch.isfinite(mono).all():
        bad = (~torch.isfinite(mono)).sum().item()
        raise ValueError(f"Expected finite samples, but {bad} of {mono.numel()} in {name} are NaN or infinite.")
    return mono


def as_sounds(audio: Any) -> list:
    """A batch as a list: of a list or tuple of sounds, or a 3-D array (B, C, N). Anything else is one sound."""
    if isinstance(audio, (list, tuple)):
        if not audio:
            raise ValueError("Expected at least one sound, got an empty list.")
        return [audio] if isinstance(audio[0], (int, float, np.number)) else list(audio)
    return list(audio) if getattr(audio, "ndim", 0) == 3 else [audio]


class DeepAVFusionFeatureExtractor(SequenceFeatureExtractor):
    """
    Sound → `input_features`, log10-mel spectrograms as the published models read them.

    Mono (mean of channels), resampled to `sampling_rate`, cut or repeated mirrored in time to `seconds`; STFT with a
    centred Hann window and reflected ends; squared magnitude; HTK mel filters from 0 Hz to half the rate, not
    normalised; log10(power + 1e-7); the last of the `spectrogram_length` + 1 frames dropped.

    Args:
        num_mel_bins: rows of the spectrogram.
        spectrogram_length: columns of the spectrogram, 64 a second with the default rate and hop.
        sampling_rate: in Hz, of the waveforms that the spectrogram is made of.
        n_fft: window and transform length in samples (50 ms).
        hop_length: in samples.
        log_offset: added to the power before the logarithm, so that silence is finite.

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
        for name in ("feature_size", "padding_value", "feature_extractor_type"):
            kwargs.pop(name, None)
        super().__init__(feature_size=num_mel_bins, sampling_rate=sampling_rate, padding_value=0.0, **kwargs)
        sizes = {
            "num_mel_bins": num_mel_bins,
            "spectrogram_length": spectrogram_length,
            "sampling_rate": sampling_rate,
            "hop_length": hop_length,
        }
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: expected a positive int.")
        if spectrogram_length * hop_length <= n_fft // 2:
            raise ValueError(
                f"A spectrogram of {spectrogram_length} frames is {spectrogram_length * hop_length} samples long: "
                f"expected more than half a window ({n_fft // 2}), for the ends to be reflected."
            )
        self.num_mel_bins = num_mel_bins
        self.spectrogram_length = spectrogram_length
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.log_offset = log_offset

    @property
    def num_samples(self) -> int:
        """Samples of a window."""
        return self.spectrogram_length * self.hop_length

    @property
    def seconds(self) -> float:
        """Length of a window in seconds."""
        return self.num_samples / self.sampling_rate

    def __call__(
        self, audio, sampling_rate: int | None = None, return_tensors: str | None = "pt", **kwargs
    ) -> BatchFeature:
        """
        Args:
            audio: a sound, (N,) or (C, N) as a numpy array, torch tensor or list of numbers, or a list of sounds, which
                may differ in length. See `to_mono`.
            sampling_rate: of `audio` in Hz. None warns, once, and assumes that it is the extractor's own.
            return_tensors: `"pt"` or `"np"`.

        Returns:
            `input_features` (B, 1, num_mel_bins, spectrogram_length) float32, log10 power.

        Raises:
            TypeError, ValueError: for input that is no sound, or holds NaN or infinity.
            ImportError: where torchaudio is missing.
        """
        if kwargs:
            raise TypeError(f"Unexpected arguments: {', '.join(kwargs)}.")
        windows = [fill_window(waveform, self.num_samples) for waveform in self.waveforms(audio, sampling_rate)]
        features = self.log_mel(torch.stack(windows))[:, None]
        return BatchFeature({"input_features": features}, tensor_type=return_tensors)

    def waveforms(self, audio, sampling_rate: int | None = None) -> list[torch.Tensor]:
        """The sounds of a call as mono waveforms at the extractor's rate: list of (N,) float32."""
        rate = self._check_rate(sampling_rate)
        sounds = as_sounds(audio)
        names = ["audio"] if len(sounds) == 1 else [f"audio[{i}]" for i in range(len(sounds))]
        return [resample(to_mono(sound, name), rate, self.sampling_rate) for sound, name in zip(sounds, names)]

    def _check_rate(self, sampling_rate: int | float | None) -> int:
        if sampling_rate is None:
            logger.warning_once(
                f"No sampling_rate was given: {self.sampling_rate} Hz is assumed. Pass sampling_rate=... to be sure: "
                "sound at another rate would be misread."
            )
            return self.sampling_rate
        if sampling_rate != int(sampling_rate) or sampling_rate < 1:
            raise ValueError(f"sampling_rate is {sampling_rate!r}: expected a positive whole number of Hz.")
        return int(sampling_rate)

    def stft(self, waveforms: torch.Tensor) -> torch.Tensor:
        """(..., N) → complex (..., n_fft / 2 + 1, N / hop_length + 1): centred Hann windows, reflected ends."""
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
        """
        Log-mel spectrograms of full windows, on the device of the waveforms.

        Args:
            waveforms: (..., num_samples) float32 at the extractor's rate, finite.

        Returns:
            (..., num_mel_bins, spectrogram_length) float32, log10(power + log_offset).

        Raises:
            ValueError: for another length.
            ImportError: where torchaudio is missing.
        """
        if waveforms.shape[-1] != self.num_samples:
            raise ValueError(f"Expected waveforms of {self.num_samples} samples, got shape {tuple(waveforms.shape)}.")
        with torch.autocast(waveforms.device.type, enabled=False):  # half precision would lose quiet sounds
            spectrum = torch.view_as_real(self.stft(waveforms.float())[..., :-1])
            power = spectrum.square().sum(-1)
            return torch.matmul(self._filters(waveforms.device).T, power).add_(self.log_offset).log10_()

    def _filters(self, device: torch.device) -> torch.Tensor:
        return _mel_filters(self.n_fft // 2 + 1, self.num_mel_bins, self.sampling_rate, device)

    def separate(self, mask_logits: torch.Tensor, waveforms: torch.Tensor) -> torch.Tensor:
        """
        Mixtures under a mask over mel bins, as waveforms (published post-processing).

        The mask goes to linear frequencies through the mel filters themselves, which add up to at most one at each
        frequency, and is 0 for the frame that log-mel spectrograms drop; the mixture's phase is kept.

        Args:
            mask_logits: (B, 1, num_mel_bins, spectrogram_length) or without the second axis; the mask is its sigmoid.
            waveforms: (B, N) mixtures at the extractor's rate; only the first `num_samples` are heard.

        Returns:
            (B, min(N, num_samples)) float32.

        Raises:
            ValueError: for other shapes.
        """
        masks = mask_logits[:, 0] if mask_logits.ndim == 4 else mask_logits
        expected = (waveforms.shape[0], self.num_mel_bins, self.spectrogram_length)
        if waveforms.ndim != 2 or tuple(masks.shape) != expected:
            raise ValueError(
                f"Expected mixtures (B, N) and a mask for each, {self.num_mel_bins} mel bins by "
                f"{self.spectrogram_length} frames, got shapes {tuple(waveforms.shape)} and {tuple(mask_logits.shape)}."
            )
        masks = F.pad(masks.float().sigmoid(), (0, 1))
        return self.apply_mask(masks, fill_window(waveforms.float(), self.num_samples))[:, : waveforms.shape[1]]

    def apply_mask(self, masks: torch.Tensor, waveforms: torch.Tensor) -> torch.Tensor:
        """
        Waveforms of any length under masks over mel bins, with their own phase.

        Args:
            masks: (..., num_mel_bins, N // hop_length + 1) in 0..1, a column for each frame of the spectrogram.
            waveforms: (..., N) at the extractor's rate, longer than half a window.

        Returns:
            (..., N) float32.
        """
        with torch.autocast(masks.device.type, enabled=False):
            linear = torch.matmul(self._filters(masks.device), masks.float())  # (..., n_fft / 2 + 1, frames)
        spectrum = self.stft(waveforms.float()) * linear
        window = _hann_window(self.n_fft, spectrum.device)
        return torch.istft(spectrum, self.n_fft, self.hop_length, window=window, length=waveforms.shape[-1])

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values."""
        settings = super().to_dict()
        # Of the base class, for padding that this extractor never does.
        for name in ("feature_size", "padding_value", "padding_side", "return_attention_mask"):
            settings.pop(name, None)
        return settings


DeepAVFusionFeatureExtractor.register_for_auto_class("AutoFeatureExtractor")

__all__ = ["DeepAVFusionFeatureExtractor"]
