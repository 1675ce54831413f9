"""Samples per second that a core reads: from video files as they are, and from what was prepared of them.

    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --out benchmark_data.json

A folder is prepared in a temporary folder in each way. Samples of training (a random window and frame, augmentation,
log-mel) are read in one process with one thread, from all of them in turns of a second; CPU seconds are compared, which
other programs on the machine disturb less than wall time. Beside them are what decoding alone takes with PyAV, the
steps of a sample, and memory over many samples.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import av
import torch

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.files import write_atomically
from deepavfusion.processors import probe_clip
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from ..data import BrokenClip, ClipDataset, build_dataset
from ..data.files import FileClips, training_window
from ..data.random import Stream, generator
from ..data.shards import Encoding, finish, prepare
from ..prepare import preparation_of
from .measurement import describe_machine, in_fresh_process, resident_set

ENCODINGS = {
    "flac": Encoding(),
    "pcm": Encoding(audio="pcm"),
    "h264": Encoding(short_side=360, video="h264"),
}
_TURN = 1.0  # CPU seconds
_EPOCHS = 1_000_000  # more than are read in a turn
_WARM = 10  # memory is measured first after one of so many samples


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


def decode_all(clips: FileClips, epoch: int) -> float:
    """Decode what the samples of an epoch show, with PyAV and nothing else; returns the CPU seconds per sample."""
    total, seconds = 0.0, clips.processor.feature_extractor.seconds
    for i, row in enumerate(clips.rows):
        info = probe_clip(row["path"])
        middle, shown = training_window(generator(clips.seed, Stream.WINDOWS, epoch, i, 0), seconds)(info)
        start = time.process_time()
        with av.open(row["path"]) as container:
            images, sounds = container.streams.video[0], container.streams.audio[0]
            images.codec_context.thread_count = 1
            container.seek(int(shown / images.time_base), stream=images)
            frame = next(container.decode(images))
            for following in container.decode(images):
                if following.time > shown:
                    break
                frame = following
            frame.to_ndarray(format="rgb24")
            container.seek(int(max(middle - seconds / 2, 0) / sounds.time_base), stream=sounds)
            for block in container.decode(sounds):
                block.to_ndarray()
                if block.time > middle + seconds / 2:
                    break
        total += time.process_time() - start
    return total / len(clips)


def read_for_a_second(call: Callable[[int], float], turn: int) -> float:
    """CPU seconds per sample of the epochs that are read in a turn, which takes a second at least."""
    values: list[float] = []
    start = time.process_time()
    while not values or time.process_time() - start < _TURN:
        values.append(call(turn * _EPOCHS + len(values)))
    return mean(values)


class Steps:
    """CPU seconds of the steps of a sample, without those of steps inside of them."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._inside = [0.0]

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
        """Let calls of a method of an object count as those of a step."""
        setattr(owner, name, self.timed(step, getattr(owner, name)))


def measure_steps(clips: FileClips, epochs: int) -> dict[str, float]:
    """Milliseconds of the steps of a sample of shards: of reading, the files; of images, JPEG or H.264."""
    steps, reader, extractor = Steps(), clips.reader, clips.processor.feature_extractor
    steps.watch(reader.files, "read", "reading")
    reader.audio = reader.audio._replace(read=steps.timed("audio", reader.audio.read))
    steps.watch(reader, "load", "images")
    steps.watch(clips.augmentation, "frames", "augmentation")
    steps.watch(clips.augmentation, "waveform", "augmentation")
    steps.watch(extractor, "waveforms", "spectrogram")
    steps.watch(extractor, "log_mel", "spectrogram")
    read = steps.timed("other", partial(read_all, clips))
    for epoch in range(epochs):
        read(epoch)
    return {name: round(1000 * value / epochs / len(clips), 3) for name, value in steps.seconds.items()}


def measure_memory(source: dict[str, Any], size: int, samples: int) -> dict[str, Any]:
    """Memory of a process after a tenth of its samples, and at the end, in megabytes."""
    torch.set_num_threads(1)
    clips = build_dataset(source, DeepAVFusionConfig(image_size=size), "train", True, 0)
    sizes = []
    for epoch in range(max(2, samples // len(clips))):
        read_all(clips, epoch)
        sizes.append(round(resident_set() / 1e6))
    return {"samples": len(sizes) * len(clips), "megabytes_early": sizes[len(sizes) // _WARM], "megabytes": sizes[-1]}


def measure(videos: str, size: int, repeats: int, samples: int) -> dict[str, Any]:
    """Compare files and shards.

    Args:
        videos: Folder of videos.
        size: Height and width of the model's frames in pixels.
        repeats: Number of turns of each.
        samples: Number of samples over which memory is measured.
    """
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        sources, preparations = {"files": {"name": "folder", "path": videos}}, {}
        for name, encoding in ENCODINGS.items():
            preparation = preparation_of({"name": "folder", "path": videos}, encoding, 256)
            start = time.process_time()
            list(prepare(preparation, folder / name))
            seconds, outcome = time.process_time() - start, finish(preparation, folder / name)
            sources[name] = {"name": "shards", "path": str(folder / name)}
            preparations[name] = {
                "seconds_per_clip": round(seconds / outcome.clips, 3),
                "megabytes_per_clip": round(outcome.bytes / outcome.clips / 1e6, 3),
            }
        config = DeepAVFusionConfig(image_size=size)
        data = {name: build_dataset(source, config, "train", True, 0) for name, source in sources.items()}
        calls = {name: partial(read_all, clips) for name, clips in data.items()}
        calls["pyav"] = partial(decode_all, data["files"])
        found: dict[str, list[float]] = {name: [] for name in calls}
        for epoch in range(repeats + 1):
            for name, call in calls.items():
                value = read_for_a_second(call, epoch)
                found[name] += [value] if epoch else []  # the first turn warms up
        rates = {name: 1 / median(values) for name, values in found.items()}
        return {
            "clips": len(data["files"]),
            "image_size": size,
            "samples_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "times_files": {name: round(rates[name] / rates["files"], 1) for name in ENCODINGS},
            "files_to_pyav": round(median(map(_ratio, found["pyav"], found["files"])), 3),
            "step_milliseconds": {name: measure_steps(data[name], repeats) for name in ENCODINGS},
            "preparation": preparations,
            "memory": in_fresh_process(measure_memory, sources["flac"], size, samples),
            **describe_machine("cpu", 1),
        }
    finally:
        shutil.rmtree(folder)


def _ratio(seconds: float, others: float) -> float:
    return seconds / others


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = CommandParser(
        "python -m deepavfusion.training.experiments.benchmark_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", metavar="VIDEOS", help="folder of videos")
    parser.add_argument("--size", type=positive, default=224, help="height and width of the frames in pixels (224)")
    parser.add_argument("--repeats", type=positive, default=5, help="turns of a second of each (5)")
    parser.add_argument("--samples", type=positive, default=20_000, help="over which memory is measured (20,000)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args(argv)
    text = json.dumps(measure(given.videos, given.size, given.repeats, given.samples), indent=1)
    print(text)
    if given.out is not None:
        write_atomically(given.out, text + "\n")
    return 0


if __name__ == "__main__":
    run_module(main)
