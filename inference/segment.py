"""Marks what sounds in frames of media files, with a saved segmentation model.

deepavfusion segment --model runs/segmentation clip.mp4 --out masks
deepavfusion segment --model runs/segmentation clip.mp4 --out masks --at 0.5 1.5 2.5
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from .common import as_png, command_parser, load_pipeline, moment_names, moments_of, run, share, write_files
from .drawing import IGNORED, class_colors, mask_overlay
from .media import png


def parser() -> argparse.ArgumentParser:
    result = command_parser(
        "segment",
        "Write two pictures for each moment of media files: NAME_mask.png, whose pixels hold the indices of classes\n"
        "(with a single class 1 where something sounds, else 0; 255 where the model saw nothing), and the mask over\n"
        "the frame, NAME_overlay.png.",
        "A file without sound is segmented by its pictures alone.",
    )
    result.add_argument("--out", required=True, type=Path, help="folder to write to")
    result.add_argument("--threshold", type=share, default=0.5, help="of the probability of a single class (0.5)")
    return result


def index_picture(mask: np.ndarray, colors: np.ndarray) -> Image.Image:
    """A palette picture of class indices (H, W), in the classes' colours; 16-bit grey for more than 255 classes."""
    if len(colors) > IGNORED:
        return Image.fromarray(mask.astype(np.uint16))
    palette = np.full((256, 3), 128, dtype=np.uint8)
    palette[: len(colors)] = colors
    picture = Image.fromarray(mask.astype(np.uint8))
    picture.putpalette(palette.tobytes())
    return picture


def main(argv: list[str] | None = None) -> int:
    """Returns 0, or 2 with a message where a file or the model cannot be read."""
    arguments = parser().parse_args(argv)

    def segment(pipeline, file: str, name: str) -> None:
        found = pipeline(file, threshold=arguments.threshold, batch_size=arguments.batch_size, **moments_of(arguments))
        count = pipeline.model.config.num_labels
        colors = class_colors(max(count, 2))
        for entry, title in zip(found, moment_names(name, [entry["timestamp"] for entry in found]), strict=True):
            mask = entry["mask"]
            overlay = mask_overlay(entry["frame"], mask, None if count == 1 else colors)
            files = {"mask": as_png(index_picture(mask, colors)), "overlay": png(overlay)}
            write_files({arguments.out / f"{title}_{k}.png": v for k, v in files.items()}, arguments.overwrite)
            seen = (mask != IGNORED).sum()
            shares = [f"{text} {(mask == index).sum() / seen:.1%}" for index, text in entry["labels"].items()]
            print(f"{title}: {', '.join(shares)}", flush=True)

    return run(
        "segment",
        arguments,
        lambda: load_pipeline("audio-visual-segmentation", arguments.model, arguments.device),
        segment,
    )


if __name__ == "__main__":
    sys.exit(main())
