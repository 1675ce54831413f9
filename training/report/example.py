"""An example of an evaluation as files beside a model, for its card."""

import html
import re
from pathlib import Path

import numpy as np

from deepavfusion.inference.files import write_atomically
from deepavfusion.inference.media import png, wav
from deepavfusion.inference.publishing.example import FOLDER, player, shown_image

from .report import Example
from .style import figure_png


def write_example(folder: Path, example: Example) -> str:
    """Write the images and sounds of an example into the folder `example` of a model.

    Args:
        folder: Folder of the model.
        example: The example.

    Returns:
        Markdown that shows them by paths relative to the folder: a line of images, players, and the text.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    images, players = [], []
    for number, image in enumerate(example.images):
        content = png(image.image) if isinstance(image.image, np.ndarray) else figure_png(image.image)
        path = f"{FOLDER}/{number}_{_name(image.caption)}.png"
        write_atomically(folder / path, content)
        images.append(shown_image(path, image.caption))
    for number, (name, waveform, rate) in enumerate(example.audio):
        path = f"{FOLDER}/{number}_{_name(name)}.wav"
        write_atomically(folder / path, wav(waveform, rate))
        players.append(player(path, name))
    captions = "; ".join(image.caption for image in example.images)
    about = "A held-out clip, not chosen: " + "; ".join(filter(None, [captions, example.text]))
    return "\n\n".join(filter(None, [" ".join(images), "<br>".join(players), html.escape(about, quote=False) + "."]))


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:40] or "example"


__all__ = ["FOLDER", "write_example"]
