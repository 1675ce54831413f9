"""Audio that arrives in parts: a buffer of its latest samples, and resampling as if it were one waveform."""

from collections.abc import Iterator

import torch

from .feature_extraction_deepavfusion import resample, resampling_ratio

_CHUNK = 1 << 18  # samples that are resampled at a time, at least


class SampleBuffer:
    """The latest samples of a waveform of any length.

    Args:
        start: Place of the first sample that is kept; earlier ones are dropped as they come.

    Attributes:
        start: Place of the first sample in the buffer.
        end: Number of samples that have come.
    """

    def __init__(self, start: int = 0):
        self.start, self.end = start, 0
        self._samples: torch.Tensor | None = None

    def begin_at(self, place: int) -> None:
        """Say that the samples that come are those from a place on, at most `start`."""
        self.end = place

    def append(self, samples: torch.Tensor) -> None:
        """Add the samples (..., n) that follow."""
        fresh = samples[..., max(self.start - self.end, 0) :]
        self.end += samples.shape[-1]
        self._samples = fresh if self._samples is None else torch.cat([self._samples, fresh], dim=-1)

    def read(self, begin: int, end: int) -> torch.Tensor:
        """Return the samples (..., end - begin) from one place to another, both within the buffer."""
        return self._samples[..., begin - self.start : end - self.start]

    def drop(self, before: int) -> None:
        """Drop the samples before a place."""
        if self.start < before <= self.end:
            self._samples = self._samples[..., before - self.start :].clone()
            self.start = before


class ResamplingStream:
    """`resample` for a waveform that arrives in parts, with the same result.

    The waveform is resampled in chunks of one length, each with as many samples around it as the filter needs. What a
    chunk becomes does not depend on how the waveform was cut into parts, nor on where the stream starts.

    Args:
        rate: Sampling rate of the waveform in Hz.
        new_rate: Sampling rate of the result in Hz.
        skip: Number of chunks that are left out at the beginning.
    """

    def __init__(self, rate: int, new_rate: int, skip: int = 0):
        self.rate, self.new_rate, self.chunk = rate, new_rate, skip
        ratio = resampling_ratio(rate, new_rate)
        self._up, self._down = ratio.numerator, ratio.denominator
        self._step = self._down * -(-_CHUNK // self._down)
        # The filter has 6 zero crossings on each side at 0.99 of the lower rate, and is computed for `_down` samples.
        reach = -(-7 * max(self._down, self._up) // (self._up * self._down)) + 1
        self._context = 0 if rate == new_rate else self._down * reach
        self._buffer = SampleBuffer(max(skip * self._step - self._context, 0))

    @property
    def step(self) -> int:
        """Samples of the result in a chunk."""
        return self._step // self._down * self._up

    def before(self, sample: int) -> int:
        """Number of chunks that end before a sample of the result."""
        return max(sample, 0) // self.step

    @property
    def needs(self) -> int:
        """Place of the first sample of the waveform that the first chunk depends on."""
        return self._buffer.start

    def begin_at(self, place: int) -> None:
        """Say that the samples that come are those from a place on, at most `needs`."""
        self._buffer.begin_at(place)

    def push(self, samples: torch.Tensor) -> Iterator[torch.Tensor]:
        """Add samples (..., n), and yield the chunks (..., step) that are complete."""
        self._buffer.append(samples)
        yield from self._chunks(self._step + self._context)

    def finish(self) -> Iterator[torch.Tensor]:
        """Yield the chunks that remain after the last sample; the last one (..., n) may be shorter."""
        yield from self._chunks(1)

    def _chunks(self, enough: int) -> Iterator[torch.Tensor]:
        """Yield chunks as long as there are enough samples from their start on."""
        while self._buffer.end >= self.chunk * self._step + enough:
            end = min((self.chunk + 1) * self._step + self._context, self._buffer.end)
            yield self._resampled(end)[..., : self.step]
            self.chunk += 1
            self._buffer.drop(self.chunk * self._step - self._context)

    def _resampled(self, end: int) -> torch.Tensor:
        """Resample the chunk and what follows it until `end`."""
        begin = max(self.chunk * self._step - self._context, 0)
        known = (self.chunk * self._step - begin) // self._down * self._up
        return resample(self._buffer.read(begin, end), self.rate, self.new_rate)[..., known:]


__all__ = ["ResamplingStream", "SampleBuffer"]
