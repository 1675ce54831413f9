"""Segment sound sources in frames of media files with a saved segmentation model.

deepavfusion segment --model runs/segmentation clip.mp4 --out masks
deepavfusion segment --model runs/segmentation clip.mp4 --out masks --at 0.5 1.5 2.5
"""

import functools
import sys
from typing import Any

import numpy as np
from PIL import Image

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import percent

from .common import load_pipeline, run
from .drawing import IGNORED, class_colors, mask_overlay
from .films.encoding import SHORT_SIDE, video_encoder
from .films.maps import Overlay, small_map
from .films.results import MapResults
from .media import encode_png, png


def fractions(entry: dict[str, Any]) -> dict[str, float]:
    """Fraction of the segmented area of each label that occurs in a result, by name."""
    mask = entry["mask"]
    seen = (mask != IGNORED).sum()
    return {text: float((mask == index).sum() / seen) for index, text in entry["labels"].items()}


def index_image(mask: np.ndarray, colors: np.ndarray) -> Image.Image:
    """Palette image of class indices (H, W) in the colors of the classes; 16-bit gray for more than 255 classes."""
    if len(colors) > IGNORED:
        return Image.fromarray(mask.astype(np.uint16))
    palette = np.full((256, 3), 128, dtype=np.uint8)
    palette[: len(colors)] = colors
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(palette.tobytes())
    return image


def mask_film(count: int, threshold: float = 0.5) -> Overlay:
    """How masks are drawn over the frames of a film.

    Args:
        count: Number of labels of the model.
        threshold: Probability threshold of a single label.
    """
    colors = None if count == 1 else class_colors(count)

    def describe(entry: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"labels": fractions(entry)}
        if colors is not None:
            found["colors"] = {text: f"#{bytes(colors[index]).hex()}" for index, text in entry["labels"].items()}
        return found

    return Overlay(
        lambda entry: small_map(entry["mask"], SHORT_SIDE, smooth=False),
        lambda frame, mask: mask_overlay(frame, mask, colors),
        describe,
        False,
        {"threshold": threshold},
    )


@command("deepavfusion segment")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("segment", argv)

    def load():
        if arguments.film:
            video_encoder()
        return load_pipeline("audio-visual-segmentation", arguments.model, arguments.device, fit=arguments.fit)

    @functools.cache  # one for all files
    def results(pipeline) -> MapResults:
        count = pipeline.model.config.num_labels
        track = mask_film(count, arguments.threshold)

        def draw_images(entry: dict[str, Any], note: dict[str, str]) -> dict[str, bytes]:
            mask = encode_png(index_image(entry["mask"], class_colors(max(count, 2))), **note)
            return {"mask": mask, "overlay": png(track.draw(entry["frame"], entry["mask"]), **note)}

        def line(entry: dict[str, Any]) -> str:
            return ", ".join(f"{text} {percent(fraction)}" for text, fraction in fractions(entry).items())

        return MapResults(pipeline, "segment", arguments, "overlay", draw_images, line, track)

    return run("segment", arguments, load, lambda pipeline, *file: results(pipeline).write(*file), counted=False)


if __name__ == "__main__":
    sys.exit(main())
