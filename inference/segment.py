"""Segment sound sources in frames of media files with a saved segmentation model.

deepavfusion segment --model runs/segmentation clip.mp4 --out masks
deepavfusion segment --model runs/segmentation clip.mp4 --out masks --at 0.5 1.5 2.5
"""

import sys

import numpy as np
from PIL import Image

from deepavfusion_cli.boundary import command
from deepavfusion_cli.preflight import parse
from deepavfusion_cli.terminal import say

from .common import (
    load_pipeline,
    run,
    timestamp_options,
)
from .drawing import IGNORED, class_colors, mask_overlay
from .files import write_files
from .jobs.inputs import VIDEO_SUFFIXES, timestamp_names, timestamp_note
from .media import encode_png, png


def index_image(mask: np.ndarray, colors: np.ndarray) -> Image.Image:
    """Palette image of class indices (H, W) in the colors of the classes; 16-bit gray for more than 255 classes."""
    if len(colors) > IGNORED:
        return Image.fromarray(mask.astype(np.uint16))
    palette = np.full((256, 3), 128, dtype=np.uint8)
    palette[: len(colors)] = colors
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette(palette.tobytes())
    return image


@command("deepavfusion segment")
def main(argv: list[str]) -> int:
    """Run the command; returns its exit code."""
    arguments = parse("segment", argv)

    def segment(pipeline, file: str, name: str) -> None:
        found = pipeline(
            file, threshold=arguments.threshold, batch_size=arguments.batch_size, **timestamp_options(arguments)
        )
        count = pipeline.model.config.num_labels
        colors = class_colors(max(count, 2))
        for entry, title in zip(found, timestamp_names(name, [entry["timestamp"] for entry in found]), strict=True):
            mask = entry["mask"]
            overlay = mask_overlay(entry["frame"], mask, None if count == 1 else colors)
            note = timestamp_note(entry["timestamp"])
            files = {"mask": encode_png(index_image(mask, colors), **note), "overlay": png(overlay, **note)}
            write_files({arguments.out / f"{title}_{k}.png": v for k, v in files.items()}, arguments.overwrite)
            seen = (mask != IGNORED).sum()
            fractions = [f"{text} {(mask == index).sum() / seen:.1%}" for index, text in entry["labels"].items()]
            say(f"{title}: {', '.join(fractions)}")

    return run(
        "segment",
        arguments,
        lambda: load_pipeline("audio-visual-segmentation", arguments.model, arguments.device, fit=arguments.fit),
        segment,
        VIDEO_SUFFIXES,
    )


if __name__ == "__main__":
    sys.exit(main())
