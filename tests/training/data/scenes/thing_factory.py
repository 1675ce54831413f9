"""Folders of small things: colored cut-outs, each with a tone of its own."""

import wave
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("bell", "cat", "drum", "fox", "owl", "train")


def write_image(path: Path, color=(200, 60, 60), size=(40, 30), inside=255, outside=0) -> None:
    """Write an ellipse of an opacity `inside`, on a ground of an opacity `outside`."""
    width, height = size
    y, x = np.mgrid[:height, :width] + 0.5
    within = ((x - width / 2) / (width / 2 - 2)) ** 2 + ((y - height / 2) / (height / 2 - 2)) ** 2 <= 1
    pixels = np.dstack([np.broadcast_to(np.uint8(color), (height, width, 3)), np.where(within, inside, outside)])
    Image.fromarray(pixels.astype(np.uint8), "RGBA").save(path)


def write_sound(path: Path, frequency=440.0, seconds=0.4, rate=8000, level=0.5, channels=1) -> None:
    """Write a tone."""
    tone = level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(np.round(tone * 32767), channels).astype("<i2").tobytes())


def write_things(folder: Path, names=NAMES) -> Path:
    """Write a thing for each name, the second half of them in a subfolder; the first six look and sound different."""
    (folder / "more").mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        home = folder / "more" if k >= len(names) / 2 else folder
        kind = k % 6
        write_image(home / f"{name}.png", color=(40 * kind, 250 - 40 * kind, 128))
        write_sound(home / f"{name}.wav", frequency=300.0 * (kind + 1), seconds=0.3 + 0.4 * kind)
    return folder
