"""What a pre-training model makes of a few visible patches of a video's frame and of its spectrogram."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from deepavfusion.processors import load_clip

from ..drawing import enlarged, heat_colors
from ..pages.reconstructions import MASKED, reconstruction_images
from .models import DemoModel

_PERCENTILES = (1, 99.5)  # of a spectrogram, which the colors span
_NAMES, _INPUTS = ("image", "audio"), ("pixel_values", "input_features")
KINDS = ("masked", "reconstructed", "original")
_HEIGHT = 192  # pixels of a spectrogram, at least


class Reconstruction(NamedTuple):
    """Images (H, W, 3) uint8 of a reconstruction.

    Attributes:
        frame: Masked, reconstructed and original frame.
        spectrogram: The same of the spectrogram, low frequencies at the bottom.
        visible: Numbers of visible patches of frame and spectrogram.
        total: Numbers of all patches.
        restored: Whether predictions are standardized, and shown with the mean and deviation of the true patches.
    """

    frame: list[np.ndarray]
    spectrogram: list[np.ndarray]
    visible: tuple[int, int]
    total: tuple[int, int]
    restored: bool


@torch.inference_mode()
def reconstruct(model: DemoModel, path: str, time: float, ratios: tuple[float, float], seed: int = 0) -> Reconstruction:
    """Hide patches of the frame and of the spectrogram around a time, and reconstruct them.

    With one seed, what a lower ratio hides, a higher one hides, too.

    Args:
        model: Model that can reconstruct.
        path: The video.
        time: Middle of the window in seconds.
        ratios: Fractions of the patches of frame and spectrogram that are hidden, each in [0, 1].
        seed: Seed of the masks.

    Raises:
        MediaError: If the video cannot be read, or lacks images or audio.
        ValueError: If nothing would be visible.
    """
    network, processor = model.pretrained, model.processor
    extractor, total = processor.feature_extractor, network.config.num_patches
    visible = tuple(count - round(ratio * count) for ratio, count in zip(ratios, total, strict=True))
    if not any(visible):
        raise ValueError("Expected a visible patch of the frame or of the spectrogram: hide less of one of them.")
    clip = load_clip(path, time, processor.num_frames, extractor.seconds, require="both")
    inputs = processor(videos=[clip.frames], audio=[clip.waveform], sampling_rate=clip.sampling_rate)
    generator = torch.Generator().manual_seed(seed)
    noise = {f"{name}_noise": torch.rand(1, count, generator=generator) for name, count in zip(_NAMES, total)}
    # Of a frame in several tiles, the one in the middle.
    middle = len(inputs["pixel_values"]) // 2
    inputs = {name: inputs[name][min(middle, len(inputs[name]) - 1)][None] for name in _INPUTS}
    inputs, noise = ({name: values.to(network.device) for name, values in each.items()} for each in (inputs, noise))
    numbers = {f"num_visible_{name}_patches": count for name, count in zip(_NAMES, visible, strict=True)}
    outputs = network(**inputs, **noise, **numbers, return_loss=False)
    images = processor.visual_processor
    sets = reconstruction_images(network, *inputs.values(), outputs, images.image_mean, images.image_std)
    shown = sets[-1]
    original = shown["audio_original"][0]
    low, high = np.percentile(original, _PERCENTILES)
    frames = [_frame(shown[f"image_{kind}"][0]) for kind in KINDS]
    spectrograms = [_spectrogram(shown[f"audio_{kind}"][0], low, max(high, low + 0.1)) for kind in KINDS]
    return Reconstruction(frames, spectrograms, visible, total, len(sets) > 1)


def _frame(values: np.ndarray) -> np.ndarray:
    return enlarged(np.round(np.clip(values, 0, 1) * 255).astype(np.uint8))


def _spectrogram(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colors of a spectrogram (mels, time); masked values, NaN, are gray."""
    hidden = np.isnan(values)
    colors = heat_colors(np.clip((np.where(hidden, low, values) - low) / (high - low), 0, 1))
    colors[hidden] = 255 * MASKED
    image = np.round(colors[::-1]).astype(np.uint8)
    times = max(1, -(-_HEIGHT // len(image)))
    size = (image.shape[1] * times, image.shape[0] * times)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.NEAREST))


__all__ = ["KINDS", "Reconstruction", "reconstruct"]
