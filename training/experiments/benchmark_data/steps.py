"""CPU time of the steps of a sample, of video files and of shards."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from deepavfusion.processors.file_source_deepavfusion import FileSource

from ...data import BrokenClip, ClipDataset
from ...data.files import FileClips
from ...data.shards import ShardReader

STEPS = ("reading", "images", "audio", "augmentation", "spectrogram", "other")


def read_all(clips: ClipDataset, epoch: int) -> float:
    """Read the samples of an epoch; returns the CPU seconds per sample.

    Raises:
        RuntimeError: A clip cannot be read.
    """
    clips.set_epoch(epoch)
    start = time.process_time()
    for i in range(len(clips)):
        (sample,) = clips.__getitems__([i])
        if isinstance(sample, BrokenClip):
            raise RuntimeError(sample.reason)
    return (time.process_time() - start) / len(clips)


class Steps:
    """CPU seconds of the steps of a sample, without those of steps inside of them."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._inside = [0.0]
        self._replaced: list[tuple[Any, str, Any]] = []

    def timed(self, step: str, call: Callable) -> Callable:
        """The function, whose time counts as that of a step."""

        def run(*arguments, **options):
            start, _ = time.process_time(), self._inside.append(0.0)
            try:
                return call(*arguments, **options)
            finally:
                took = time.process_time() - start
                self.seconds[step] = self.seconds.get(step, 0.0) + took - self._inside.pop()
                self._inside[-1] += took

        return run

    def watch(self, owner: Any, name: str, step: str) -> None:
        """Let calls of a method of an object, or of all objects of a class, count as those of a step."""
        self.replace(owner, name, self.timed(step, getattr(owner, name)))

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute until `stop`."""
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def stop(self) -> None:
        """Watch no longer."""
        for owner, name, value in reversed(self._replaced):
            setattr(owner, name, value)
        self._replaced.clear()


def measure_steps(clips: FileClips, epochs: int) -> dict[str, float]:
    """Milliseconds of the `STEPS` of a sample.

    Reading is that of the tar files, or the opening of a video and its headers. Images and audio are decoded, of videos
    from the key frame before the window on.
    """
    steps, reader, extractor = Steps(), clips.reader, clips.processor.feature_extractor
    try:
        if isinstance(reader, ShardReader):
            steps.watch(reader.files, "read", "reading")
            steps.replace(reader, "audio", reader.audio._replace(read=steps.timed("audio", reader.audio.read)))
            steps.watch(reader, "load", "images")
        else:
            steps.watch(FileSource, "read_frames", "images")
            steps.watch(FileSource, "read_audio", "audio")
            steps.watch(reader, "load", "reading")
        steps.watch(clips.augmentation, "frames", "augmentation")
        steps.watch(clips.augmentation, "waveform", "augmentation")
        steps.watch(extractor, "waveforms", "spectrogram")
        steps.watch(extractor, "log_mel", "spectrogram")
        read = steps.timed("other", partial(read_all, clips))
        for epoch in range(epochs):
            read(epoch)
    finally:
        steps.stop()
    return {name: round(1000 * steps.seconds.get(name, 0.0) / epochs / len(clips), 3) for name in STEPS}


__all__ = ["STEPS", "Steps", "measure_steps", "read_all"]
