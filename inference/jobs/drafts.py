"""Drafts of separated recordings: written as they are separated, continued after a kill, and published at the end.

The draft of NAME is the folder NAME.unfinished beside the results. It holds a wav file of 32-bit floats for each
source, which can be listened to meanwhile, and state.json, which says what it is a draft of and how much of it counts.
When all is separated, 16-bit files are made of these, moved to their places, and the folder is removed.
"""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import lock_folder, saving, sync_folder, write_atomically
from ..media import pcm16, wav_header

_STATE = "state.json"
_FORMAT = 1
_BLOCK = 1 << 20  # samples that are converted at a time
_HEADER = len(wav_header(16000, None, floats=True))


class RecordingDraft:
    """Draft of the sources of a recording.

    Use it as a context manager, which locks the folder. Whatever ends the block, the draft stays, so that the same
    command continues it, unless it is still empty.

    Args:
        folder: Folder of the draft, which may be absent.
        outputs: Files of the sources.
        extra: Another file that is published with them.
        about: What determines the samples, as JSON values; the draft of anything else is started anew.

    Attributes:
        rate: Sampling rate in Hz, once a part was added.
        parts: Number of parts that have been added.
        samples: Number of samples of each source.
        peak: Largest absolute value of the samples.

    Raises:
        FileExistsError: If the folder holds something else.
    """

    SAMPLE_BYTES = 4 + 2  # of a sample in the draft and in the result

    def __init__(self, folder: Path, outputs: Sequence[Path], extra: Path, about: dict[str, Any]):
        self.folder, self.outputs, self.extra = folder, list(outputs), extra
        self._about = json.loads(json.dumps({**about, "outputs": [path.name for path in outputs]}))
        self._drafts = [folder / f"unfinished.{path.name}" for path in outputs]
        self._own_names = {path.name for path in (*self._drafts, *outputs, extra)}
        self._read()

    def _read(self) -> None:
        """Read how far the draft in the folder is, if it is one of this work."""
        self._reset()
        self._names = set(self._own_names)
        if not self.folder.exists():
            return
        try:
            stored = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
            known = stored["format"] == _FORMAT
            self._names |= set(stored["names"])
        except (OSError, ValueError, TypeError, KeyError):
            known = self.folder.is_dir() and not any(path.name != ".lock" for path in self.folder.iterdir())
            stored = None
        if not known:
            raise FileExistsError(f"{self.folder} exists, but is not the draft of a separated recording: move it away.")
        if stored is not None and stored["about"] == self._about and self._holds(stored):
            self.rate, self.parts, self.samples = stored["rate"], stored["parts"], stored["samples"]
            self.peak, self._stage = stored["peak"], stored["stage"]

    def _reset(self) -> None:
        self.rate, self.parts, self.samples, self.peak, self._stage = None, 0, 0, 0.0, "separating"

    def _holds(self, stored: dict[str, Any]) -> bool:
        """Whether the files hold what the state says, or are no longer needed: the other one comes early."""
        needed = _HEADER + 4 * stored["samples"]
        whole = all(path.is_file() and path.stat().st_size >= needed for path in self._drafts)
        return stored["stage"] == "publishing" or (whole and self.has_extra)

    @property
    def separated(self) -> bool:
        """Whether all parts have been added."""
        return self._stage != "separating"

    @property
    def publishing(self) -> bool:
        """Whether an earlier process had begun to move the results to their places."""
        return self._stage == "publishing"

    def __enter__(self) -> "RecordingDraft":
        """Create and lock the folder, and remove what an earlier draft holds beyond this one's state.

        Raises:
            BlockingIOError: If another process is at work on it.
        """
        self._lock = lock_folder(self.folder)
        try:
            self._read()  # again: another process may have worked on it until now
            self._open()
        except BaseException:
            self._lock.close()
            raise
        return self

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

    def __exit__(self, *_: object) -> None:
        """Unlock the folder, and remove a draft without parts."""
        try:
            if not self.parts and not self.separated:
                self._remove()
        finally:
            self.close()

    def close(self) -> None:
        """Close the files and release the folder."""
        try:
            for file in self._files:
                file.close()
        finally:
            self._lock.close()

    @property
    def has_extra(self) -> bool:
        """Whether the other file is in the draft."""
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
        """Write the other file into the draft."""
        write_atomically(self.folder / self.extra.name, content)

    def finish(self) -> None:
        """Say that the last part has been added."""
        self._stage = "separated"
        self._save()

    def publish(self, advance: Callable[[int], None] = lambda _: None) -> None:
        """Make the results, divided by one factor if any source exceeds full scale, and move them to their places.

        Args:
            advance: Called with the number of samples that have been converted.
        """
        if not self.publishing:
            for path, draft in zip(self.outputs, self._files, strict=True):
                self._convert(draft, self.folder / path.name, advance)
            self._stage = "publishing"
            self._save()
        for path in (*self.outputs, self.extra):
            if (self.folder / path.name).exists():  # else an earlier process has moved it
                os.replace(self.folder / path.name, path)
        sync_folder(self.folder.parent)
        self._remove()

    @property
    def attenuation(self) -> float:
        """Factor by which all samples are divided, so that none exceeds full scale and the levels stay comparable."""
        return max(1.0, self.peak)

    def _convert(self, draft, target: Path, advance: Callable[[int], None]) -> None:
        draft.seek(_HEADER)
        with saving(self.folder, 2 * self.samples), open(target, "wb") as file:
            file.write(wav_header(self.rate, self.samples))
            while content := draft.read(4 * _BLOCK):
                samples = np.frombuffer(content, "<f4")
                file.write(pcm16(samples / np.float32(self.attenuation)))
                advance(len(samples))
            file.flush()
            os.fsync(file.fileno())

    def _save(self) -> None:
        state = {"rate": self.rate, "parts": self.parts, "samples": self.samples, "peak": self.peak}
        state |= {"format": _FORMAT, "stage": self._stage, "about": self._about, "names": sorted(self._names)}
        write_atomically(self.folder / _STATE, json.dumps(state, indent=1) + "\n")

    def _clear(self) -> None:
        """Remove the files of this draft, and of an earlier one in the folder, but for the lock."""
        for name in (*self._names, _STATE):
            (self.folder / Path(name).name).unlink(missing_ok=True)

    def _remove(self) -> None:
        self._clear()
        (self.folder / ".lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or another process has just locked it
            self.folder.rmdir()


__all__ = ["RecordingDraft"]
