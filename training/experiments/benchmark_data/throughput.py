"""Samples per second that a core reads from video files and from shards."""

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from operator import truediv
from pathlib import Path
from statistics import mean, median
from typing import Any

import av
import torch

from deepavfusion import DeepAVFusionConfig
from deepavfusion.processors import probe_clip

from ...data import build_dataset
from ...data.files import FileClips, training_window
from ...data.random import Stream, generator
from ...data.shards import Encoding, finish, prepare
from ...prepare import preparation_of
from ...report.tables import markdown_table
from ..measurement import describe_machine, in_fresh_process, resident_set
from .steps import STEPS, measure_steps, read_all

ENCODINGS = {
    "flac": Encoding(),
    "pcm": Encoding(audio="pcm"),
    "h264": Encoding(short_side=360, video="h264"),
}
_TURN = 1.0  # CPU seconds
_EPOCHS = 1_000_000  # more than are read in a turn
_WARM = 10  # memory is measured first after one of so many samples
_ROWS = {
    "pyav": "video files, PyAV's decoding alone",
    "files": "video files",
    "flac": "shards: JPEG, FLAC",
    "pcm": "shards: JPEG, PCM",
    "h264": "shards: H.264, FLAC",
}


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
            "files_to_pyav": round(median(map(truediv, found["pyav"], found["files"])), 3),
            "step_milliseconds": {name: measure_steps(clips, repeats) for name, clips in data.items()},
            "preparation": preparations,
            "memory": in_fresh_process(measure_memory, sources["flac"], size, samples),
            **describe_machine("cpu", 1),
        }
    finally:
        shutil.rmtree(folder)


def throughput_table(found: dict[str, Any]) -> str:
    """Table of docs/results.md."""
    rows = []
    for name, title in _ROWS.items():
        steps, stored = found["step_milliseconds"].get(name, {}), found["preparation"].get(name)
        cells = [f"{found['samples_per_second'][name]:.1f}", f"{found['times_files'][name]:.1f}" if stored else "-"]
        cells += [f"{stored['seconds_per_clip']:.2f}", f"{stored['megabytes_per_clip']:.2f}"] if stored else ["-", "-"]
        rows.append([title, *cells, *(f"{steps[step]:.1f}" if steps else "-" for step in STEPS)])
    columns = ["read from", "samples/s", "times files", "preparing, s per clip", "MB per clip"]
    text = markdown_table([*columns, *(f"{step}, ms" for step in STEPS)], rows)
    about = f"{found['clips']} clips, frames of {found['image_size']} pixels, one thread of {found['device']}"
    return f"{text}\n\nCPU time; {about}. Milliseconds are those of the steps of a sample of training."


__all__ = ["ENCODINGS", "decode_all", "measure", "measure_memory", "read_for_a_second", "throughput_table"]
