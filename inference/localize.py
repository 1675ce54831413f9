"""Shows where the sound of media files comes from, with a saved localization model.

deepavfusion localize --model runs/localization clip.mp4 --out maps --num-clips 4
deepavfusion localize --model runs/quickstart --map attention clip.mp4 --out maps   # an encoder alone
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from .common import command_parser, load_pipeline, moment_names, moments_of, run, write_files
from .drawing import heat_overlay
from .media import png


def parser() -> argparse.ArgumentParser:
    result = command_parser(
        "localize",
        "Write the heat map of where the sound comes from over the frame, NAME_heat.png, for each moment of media\n"
        "files, and print its hottest place and how likely anything sounds at all.",
        "Each map is drawn between its own least and greatest value.",
    )
    result.add_argument("--out", required=True, type=Path, help="folder to write to")
    result.add_argument(
        "--map",
        choices=("attention", "similarity"),
        help="a map that needs no training for localization: any saved encoder will do",
    )
    return result


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 with a message where a file or the model cannot be read."""
    arguments = parser().parse_args(argv)

    def load():
        untrained = {} if arguments.map is None else {"localization_map": arguments.map, "fresh": ("localizer.",)}
        return load_pipeline("sound-source-localization", arguments.model, arguments.device, **untrained)

    def localize(pipeline, file: str, name: str) -> None:
        found = pipeline(file, batch_size=arguments.batch_size, **moments_of(arguments))
        for entry, title in zip(found, moment_names(name, [entry["timestamp"] for entry in found]), strict=True):
            heat = entry["heat_map"]
            picture = png(heat_overlay(entry["frame"], heat))
            write_files({arguments.out / f"{title}_heat.png": picture}, arguments.overwrite)
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            place = f"hottest at x {column}, y {row}" if heat.any() else "no place stands out"
            print(f"{title}: {place} of {heat.shape[1]} x {heat.shape[0]}, score {entry['score']:.2f}", flush=True)

    return run("localize", arguments, load, localize)


if __name__ == "__main__":
    sys.exit(main())
