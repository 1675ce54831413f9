"""Localize sound sources in media files with a saved localization model.

deepavfusion localize --model runs/localization clip.mp4 --out maps --num-clips 4
deepavfusion localize --model runs/quickstart --map attention clip.mp4 --out attention   # without localization head
"""

import functools
import sys
from typing import Any

import numpy as np

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse

from .common import load_pipeline, run
from .drawing import heat_overlay
from .films.encoding import SHORT_SIDE, video_encoder
from .films.maps import Overlay, seen_by, small_map
from .films.results import MapResults
from .media import png


def maximum(heat: np.ndarray) -> dict[str, int] | None:
    """Place of the maximum of a heat map in pixels; None for a map of zeros."""
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    return {"x": int(column), "y": int(row)} if heat.any() else None


def heat_film(processor: Any, scored: bool = True) -> Overlay:
    """How heat maps are drawn over the frames of a film.

    Args:
        processor: Processor of the model, which says what the model sees.
        scored: Whether the model was trained for localization: its colors fade with the score.
    """

    def map_of(entry: dict[str, Any]) -> np.ndarray:
        # Each map has its maximum at 1, whether or not anything sounds: the score says how visible it is.
        return small_map(entry["heat_map"], SHORT_SIDE, smooth=True) * (entry["score"] if scored else 1.0)

    def describe(entry: dict[str, Any]) -> dict[str, Any]:
        return {"score": entry["score"] if scored else None, "maximum": maximum(entry["heat_map"])}

    seen = functools.lru_cache(maxsize=1)(functools.partial(seen_by, processor))  # the same for all frames of a film

    def draw(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
        return heat_overlay(frame, heat, limits=(0, 1), seen=seen(*heat.shape))

    return Overlay(map_of, draw, describe, True, {})


@command("deepavfusion localize")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("localize", argv)
    scored = arguments.map is None  # only a trained localization head gives a probability

    def load():
        if arguments.film:
            video_encoder()
        untrained = {} if scored else {"localization_map": arguments.map, "fresh": ("localizer.",)}
        return load_pipeline(
            "sound-source-localization",
            arguments.model,
            arguments.device,
            alternative="pass --map attention",
            fit=arguments.fit,
            **untrained,
        )

    def line(entry: dict[str, Any]) -> str:
        heat, place = entry["heat_map"], maximum(entry["heat_map"])
        peak = "no maximum" if place is None else f"maximum at x {place['x']}, y {place['y']}"
        return f"{peak} of {heat.shape[1]} x {heat.shape[0]}" + (f", score {entry['score']:.2f}" if scored else "")

    @functools.cache  # one for all files
    def results(pipeline) -> MapResults:
        def draw_images(entry: dict[str, Any], note: dict[str, str]) -> dict[str, bytes]:
            frame, heat = entry["frame"], entry["heat_map"]
            return {"heat": png(heat_overlay(frame, heat, seen=seen_by(pipeline.processor, *heat.shape)), **note)}

        film = heat_film(pipeline.processor, scored)
        return MapResults(pipeline, "localize", arguments, "heat", draw_images, line, film)

    return run("localize", arguments, load, lambda pipeline, *file: results(pipeline).write(*file), counted=False)


if __name__ == "__main__":
    sys.exit(main())
