"""Drafts of separated recordings: wav files of 32-bit floats that grow part by part, and what is made of them."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import saving
from ..media import pcm16, wav_header
from .drafts import Draft

_COUNTS = ("rate", "parts", "samples", "peak")
_BLOCK = 1 << 20  # samples that are converted at a time
_HEADER = len(wav_header(16000, None, floats=True))


class RecordingDraft(Draft):
    """Draft of the sources of a recording, which are written part by part.

    Args:
        folder: Folder of the draft, which may be absent.
        waveforms: Files of the sources.
        extra: Image of the spectrograms, which is published with them.
        about: What determines the samples, as JSON values; the draft of anything else is started anew.
        more: Other files that are published last, in this order.

    Attributes:
        rate: Sampling rate in Hz, once a part was added.
        parts: Number of parts that have been added.
        samples: Number of samples of each source.
        peak: Largest absolute value of the samples.

    Raises:
        FileExistsError: If the folder holds something else.
    """

    SAMPLE_BYTES = 4 + 2  # of a sample in the draft and in the result
    BEGINNING = "separating"
    KIND = "a separated recording"

    def __init__(
        self, folder: Path, waveforms: Sequence[Path], extra: Path, about: dict[str, Any], more: Sequence[Path] = ()
    ):
        self.waveforms, self.extra = list(waveforms), extra
        self._drafts = [folder / f"unfinished.{path.name}" for path in waveforms]
        super().__init__(folder, [*waveforms, extra, *more], about)

    def _reset(self) -> None:
        super()._reset()
        self._own_names |= {path.name for path in self._drafts}
        self.rate, self.parts, self.samples, self.peak = None, 0, 0, 0.0

    def _restore(self, stored: dict[str, Any]) -> None:
        super()._restore(stored)
        self.rate, self.parts, self.samples, self.peak = (stored[name] for name in _COUNTS)

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _COUNTS}

    def _holds(self, stored: dict[str, Any]) -> bool:
        """Whether the files hold what the state says, or are no longer needed: the image comes early."""
        needed = _HEADER + 4 * stored["samples"]
        whole = all(path.is_file() and path.stat().st_size >= needed for path in self._drafts)
        return stored["stage"] == "publishing" or (whole and self.has_extra)

    @property
    def separated(self) -> bool:
        """Whether all parts have been added."""
        return self._stage != self.BEGINNING

    @property
    def empty(self) -> bool:
        """Whether it has no parts."""
        return not self.parts and not self.separated

    def _open(self) -> None:
        if not self.parts and not self.publishing:
            self._clear()
            self._save()
        self._files = []
        if not self.publishing:
            self._files = [open(path, "r+b" if self.parts else "w+b") for path in self._drafts]  # noqa: SIM115
            for file in self._files:
                if self.parts:
                    file.truncate(_HEADER + 4 * self.samples)
                file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the files and release the folder."""
        try:
            for file in self._files:
                file.close()
        finally:
            super().close()

    @property
    def has_extra(self) -> bool:
        """Whether the image is in the draft."""
        return (self.folder / self.extra.name).exists()

    def add(self, sources: np.ndarray, rate: int) -> None:
        """Write the next part (sources, n) float32; after this returns, it is not lost any more."""
        with saving(self.folder, 4 * sources.size):
            for file, samples in zip(self._files, sources, strict=True):
                if not self.parts:
                    file.write(wav_header(rate, None, floats=True))
                file.write(np.ascontiguousarray(samples, dtype="<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
        self.rate, self.parts, self.samples = rate, self.parts + 1, self.samples + sources.shape[1]
        self.peak = max(self.peak, float(np.abs(sources).max(initial=0.0)))
        self._save()

    def add_extra(self, content: bytes) -> None:
        """Write the image into the draft."""
        self.add_file(self.extra, content)

    def finish(self) -> None:
        """Say that the last part has been added."""
        self._stage = "separated"
        self._save()

    def source(self, index: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the sampling rate in Hz and the samples (1, n) float32 of a source, part by part, as they will be."""
        file, rate = self._files[index], int(self.rate or 0)
        file.seek(_HEADER)
        while content := file.read(4 * _BLOCK):
            yield rate, np.frombuffer(content, "<f4")[None] / np.float32(self.attenuation)

    def publish(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Make the wav files, divided by one factor if any source exceeds full scale, and move all to their places.

        Args:
            advance: Called with the number of samples that have been converted.
        """
        if not self.publishing:
            self._convert(advance)
        super().publish()

    def _convert(self, advance: Callable[[int], None]) -> None:
        for index, path in enumerate(self.waveforms):
            with saving(self.folder, 2 * self.samples), open(self.folder / path.name, "wb") as file:
                file.write(wav_header(self.rate, self.samples))
                for _, samples in self.source(index):
                    file.write(pcm16(samples[0]))
                    advance(samples.shape[1])
                file.flush()
                os.fsync(file.fileno())

    @property
    def attenuation(self) -> float:
        """Factor by which all samples are divided, so that none exceeds full scale and the levels stay comparable."""
        return max(1.0, self.peak)


__all__ = ["RecordingDraft"]
