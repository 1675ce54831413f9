"""Localize sound sources in media files with a saved localization model.

deepavfusion localize --model runs/localization clip.mp4 --out maps --num-clips 4
deepavfusion localize --model runs/quickstart --map attention clip.mp4 --out attention   # without localization head
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from deepavfusion_cli.boundary import command
from deepavfusion_cli.terminal import say

from .common import command_parser, load_pipeline, run, timestamp_options
from .drawing import heat_overlay
from .files import write_files
from .jobs.inputs import VIDEO_SUFFIXES, timestamp_names
from .media import png


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    result = command_parser(
        "localize",
        "Write the heat map of sound sources over the frame, NAME_heat.png, for each timestamp of media files, and\n"
        "print the position of its maximum and, as score, the probability that anything in the frame sounds.",
        "Each map is drawn between its own minimum and maximum. The image holds the timestamp in seconds as text.",
    )
    result.add_argument("--out", required=True, type=Path, help="output folder")
    result.add_argument(
        "--map",
        choices=("attention", "similarity"),
        help="use a map that needs no localization training, and has no score; works with any saved encoder",
    )
    return result


@command("deepavfusion localize")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parser().parse_args(argv)

    def load():
        untrained = {} if arguments.map is None else {"localization_map": arguments.map, "fresh": ("localizer.",)}
        return load_pipeline(
            "sound-source-localization",
            arguments.model,
            arguments.device,
            alternative="pass --map attention",
            fit=arguments.fit,
            **untrained,
        )

    def localize(pipeline, file: str, name: str) -> None:
        found = pipeline(file, batch_size=arguments.batch_size, **timestamp_options(arguments))
        for entry, title in zip(found, timestamp_names(name, [entry["timestamp"] for entry in found]), strict=True):
            heat = entry["heat_map"]
            overlay = png(heat_overlay(entry["frame"], heat), timestamp=f"{entry['timestamp']:.6f}")
            write_files({arguments.out / f"{title}_heat.png": overlay}, arguments.overwrite)
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            peak = f"maximum at x {column}, y {row}" if heat.any() else "no maximum"
            # Only a trained localization head gives a probability.
            score = f", score {entry['score']:.2f}" if arguments.map is None else ""
            say(f"{title}: {peak} of {heat.shape[1]} x {heat.shape[0]}{score}")

    return run("localize", arguments, load, localize, VIDEO_SUFFIXES)


if __name__ == "__main__":
    sys.exit(main())
