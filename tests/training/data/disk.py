"""Small data sets on disk for tests: distinguishable clips, audio files and images."""

import shutil
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from deepavfusion import DeepAVFusionConfig
from tests.media_factory import tone, write_media

SHARED = Path(__file__).parents[3] / ".." / "shared"
SAMPLES = SHARED / "media" / "annotations-samples"
REAL_CLIPS = SHARED / "media" / "vggsound"
RATE = 16000
MODEL = DeepAVFusionConfig(image_size=32, patch_size=8, num_mel_bins=32, spectrogram_length=64)  # windows of 1 s
VIDEO = DeepAVFusionConfig(image_size=32, patch_size=8, num_mel_bins=32, spectrogram_length=64, num_frames=4)


def make_clips(folder: Path, count: int = 4, seconds: float = 2.0) -> list[Path]:
    """Clips of gray gradients and tones, each with another pitch."""
    folder.mkdir(parents=True, exist_ok=True)
    slope = np.stack(np.broadcast_arrays(np.arange(64) * 2, np.arange(48)[:, None] * 2, 20), axis=-1)
    paths = []
    for k in range(count):
        image = (slope + 20 * k).clip(0, 255).astype(np.uint8)
        path = folder / f"clip{k}.mp4"
        audio = tone(RATE, seconds, frequency=300.0 * (k + 1), amplitude=0.3)
        write_media(path, seconds=seconds, audio=audio, paint=lambda time, image=image: image)
        paths.append(path)
    return paths


def put(clip: Path, *paths: Path) -> None:
    """Copy a file."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(clip, path)


def write(path: Path, text: str) -> Path:
    """Write a text file, line ends as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def write_audio(path: Path, waveform: np.ndarray) -> Path:
    """Write a wav file of (N,) samples in -1..1 at `RATE`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.asarray(waveform) * 32767).astype("<i2").tobytes())
    return path


def write_image(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    """Write an image file of an array; `mode` converts it first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path)
    return path
