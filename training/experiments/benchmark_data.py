"""Samples per second that a core reads: from video files as they are, and from what was prepared of them.

    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --out benchmark_data.json
    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --only windows --out clip_windows.json
    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --only reduction --out reduced_frames.json

A folder is prepared in a temporary folder in each way. Samples of training (a random window and frame, augmentation,
log-mel) are read in one process with one thread, from all of them in turns of a second; CPU seconds are compared, which
other programs on the machine disturb less than wall time. Beside them are what decoding alone takes with PyAV, the
steps of a sample, and memory over many samples. `--only windows` compares windows of a clip that are decoded together
with those that are decoded one by one, `--only reduction` crops of JPEG files decoded at half their size with those of
whole ones.
"""

import argparse
import io
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
import numpy as np
import torch
from PIL import Image

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.files import write_atomically
from deepavfusion.processors import probe_clip
from deepavfusion.processors.pixels_deepavfusion import resize
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from ..data import BrokenClip, ClipDataset, build_dataset
from ..data.augmentation import draw_crop
from ..data.files import FileClips, training_window
from ..data.frames import FileReader
from ..data.random import Stream, generator
from ..data.sets.folder import read_folder
from ..data.shards import Encoding, finish, prepare
from ..data.shards.video import encode_frame
from ..prepare import preparation_of
from .measurement import describe_machine, in_fresh_process, resident_set

ENCODINGS = {
    "flac": Encoding(),
    "pcm": Encoding(audio="pcm"),
    "h264": Encoding(short_side=360, video="h264"),
}
_SIZES = (48, 64, 80, 96, 112, 128, 224)  # of models, in pixels
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


def measure_windows(videos: str, num_windows: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of a clip's windows, decoded together and one by one in turns; an error if they differ by a bit."""
    rows, seconds = read_folder(videos), 3.0
    found: dict[str, list[float]] = {"together": [], "one_by_one": []}
    for row in [row for row in rows for _ in range(repeats)]:
        times = [time.process_time()]
        clips = list(FileReader().load_windows(row, num_windows, 1, seconds))
        times.append(time.process_time())
        others = [FileReader().load(row, clip.timestamp, 1, seconds) for clip in clips]
        for values, after, before in zip(found.values(), [times[1], time.process_time()], times, strict=True):
            values.append(after - before)
        for clip, other in zip(clips, others, strict=True):
            if not (np.array_equal(clip.frames, other.frames) and np.array_equal(clip.waveform, other.waveform)):
                raise RuntimeError(f"{row['path']}: expected the same windows, decoded together and one by one.")
    ratios = sorted(map(_ratio, found["one_by_one"], found["together"]))
    return {
        "clips": len(rows),
        "windows": num_windows,
        "seconds_per_clip": {name: round(mean(values), 3) for name, values in found.items()},
        "ratio": {"lowest": round(ratios[0], 2), "median": round(median(ratios), 2), "highest": round(ratios[-1], 2)},
        **describe_machine("cpu", 1),
    }


def measure_reduction(videos: str, sizes: tuple[int, ...], crops: int) -> dict[str, Any]:
    """Mean change in levels of 255 of crops, at even pixels, of frames decoded at half their size, if they suffice."""
    draws = torch.Generator().manual_seed(0)
    files, images, milliseconds, found = [], {}, {}, {}
    for row in read_folder(videos):
        clips = FileReader().load_windows(row, 4, 1, 3.0)
        files += [encode_frame(clip.frames[0], ENCODINGS["flac"]) for clip in clips]
    for half in (False, True):
        start = time.process_time()
        images[half] = [_decode(file, half) for file in files]
        milliseconds[("whole", "half")[half]] = round(1000 * (time.process_time() - start) / len(files), 2)
    for size in sizes:
        levels = []
        for whole, half in zip(images[False], images[True], strict=True):
            for _ in range(crops):
                part = draw_crop(*whole.shape[1:], (size, size), (0.5, 1.0), (3 / 4, 4 / 3), draws)
                top, left, height, width = (value // 2 for value in part)
                if min(height, width) >= size:
                    small = half[:, top : top + height, left : left + width]
                    large = whole[:, 2 * top : 2 * (top + height), 2 * left : 2 * (left + width)]
                    pair = [resize(image, (size, size), exact=False).float() for image in (small, large)]
                    levels.append(float((pair[0] - pair[1]).abs().mean()))
        about = {"levels": round(mean(levels), 2), "most": round(max(levels), 2)} if levels else {}
        found[str(size)] = {"fraction_of_crops": round(len(levels) / len(files) / crops, 2), **about}
    return {"frames": len(files), "decoding_milliseconds": milliseconds, "sizes": found, **describe_machine("cpu", 1)}


def _decode(file: bytes, half: bool) -> torch.Tensor:
    with Image.open(io.BytesIO(file)) as image:
        image.draft("RGB", (image.width // 2, image.height // 2) if half else image.size)
        return torch.from_numpy(np.array(image)).movedim(-1, 0)


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
    parser.add_argument("--only", choices=("windows", "reduction"), help="measure this alone")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    measures = {
        "windows": partial(measure_windows, given.videos, 10, given.repeats),
        "reduction": partial(measure_reduction, given.videos, _SIZES, given.repeats),
        None: partial(measure, given.videos, given.size, given.repeats, given.samples),
    }
    text = json.dumps(measures[given.only](), indent=1)
    print(text)
    if given.out is not None:
        write_atomically(given.out, text + "\n")
    return 0


if __name__ == "__main__":
    run_module(main)
