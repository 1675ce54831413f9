"""Clips per second that a core reads: from video files as they are, and prepared.

    python -m deepavfusion.training.experiments.benchmark_data VIDEOS --out benchmark_data.json

A copy of the folder is prepared in a temporary folder. Samples of training (a random window and frame, augmentation,
log-mel) are read in one process with one thread, from both in turns; CPU seconds are compared, which other programs on
the machine disturb less than wall time.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from deepavfusion import DeepAVFusionConfig
from deepavfusion.inference.files import write_atomically
from deepavfusion_cli.boundary import run_module
from deepavfusion_cli.parser import CommandParser, positive

from ..data import BrokenClip, ClipDataset, build_dataset
from ..data.shards import Encoding, finish, prepare
from ..prepare import preparation_of
from .measurement import describe_machine


def read_all(clips: ClipDataset, epoch: int) -> float:
    """Read the samples of an epoch; returns the CPU seconds per clip.

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


def measure(videos: str, size: int, repeats: int) -> dict[str, Any]:
    """Compare files and shards.

    Args:
        videos: Folder of videos.
        size: Height and width of the model's frames in pixels.
        repeats: Number of epochs that are read from each.
    """
    torch.set_num_threads(1)
    config, folder = DeepAVFusionConfig(image_size=size), Path(tempfile.mkdtemp())
    try:
        preparation = preparation_of({"name": "folder", "path": videos}, Encoding(), 256)
        start = time.process_time()
        list(prepare(preparation, folder / "out"))
        seconds, outcome = time.process_time() - start, finish(preparation, folder / "out")
        sources = {
            "files": {"name": "folder", "path": videos},
            "shards": {"name": "shards", "path": str(folder / "out")},
        }
        data = {title: build_dataset(source, config, "train", True, 0) for title, source in sources.items()}
        found: dict[str, list[float]] = {title: [] for title in data}
        for epoch in range(repeats + 1):
            for title, clips in data.items():
                value = read_all(clips, epoch)
                found[title] += [value] if epoch else []  # the first epoch warms up
        rates = {title: round(1 / median(values), 1) for title, values in found.items()}
        return {
            "clips": len(data["files"]),
            "image_size": size,
            "clips_per_second": rates,
            "ratio": round(rates["shards"] / rates["files"], 1),
            "preparation_seconds_per_clip": round(seconds / outcome.clips, 3),
            "megabytes_per_clip": round(outcome.bytes / outcome.clips / 1e6, 3),
            **describe_machine("cpu", 1),
        }
    finally:
        shutil.rmtree(folder)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = CommandParser(
        "python -m deepavfusion.training.experiments.benchmark_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("videos", metavar="VIDEOS", help="folder of videos")
    parser.add_argument("--size", type=positive, default=224, help="height and width of the frames in pixels (224)")
    parser.add_argument("--repeats", type=positive, default=5, help="epochs that are read (5)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    given = parser.parse_args(argv)
    text = json.dumps(measure(given.videos, given.size, given.repeats), indent=1)
    print(text)
    if given.out is not None:
        write_atomically(given.out, text + "\n")
    return 0


if __name__ == "__main__":
    run_module(main)
