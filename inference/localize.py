"""Localize sound sources in media files with a saved localization model.

deepavfusion localize --model runs/localization clip.mp4 --out maps --num-clips 4
deepavfusion localize --model runs/quickstart --map attention clip.mp4 --out attention   # without localization head
"""

import sys

import numpy as np

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from .common import load_pipeline, run, timestamp_options
from .drawing import heat_overlay
from .files import write_files
from .jobs.inputs import VIDEO_SUFFIXES, timestamp_names, timestamp_note
from .media import png


@command("deepavfusion localize")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("localize", argv)

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
            overlay = png(heat_overlay(entry["frame"], heat), **timestamp_note(entry["timestamp"]))
            write_files({arguments.out / f"{title}_heat.png": overlay}, arguments.overwrite)
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            peak = f"maximum at x {column}, y {row}" if heat.any() else "no maximum"
            # Only a trained localization head gives a probability.
            score = f", score {entry['score']:.2f}" if arguments.map is None else ""
            say(f"{title}: {peak} of {heat.shape[1]} x {heat.shape[0]}{score}")

    return run("localize", arguments, load, localize, VIDEO_SUFFIXES)


if __name__ == "__main__":
    sys.exit(main())
