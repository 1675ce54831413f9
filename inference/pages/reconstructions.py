"""What a pre-training model makes of visible patches: masked, reconstructed and original inputs, as arrays."""

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from deepavfusion import DeepAVFusionForPreTraining, DeepAVFusionImageProcessor
from deepavfusion.processors import DeepAVFusionProcessor, load_clip

from ..drawing import enlarged, heat_colors

MASKED = 0.5  # gray of a masked patch, in 0..1
_PERCENTILES = (1, 99.5)  # of a spectrogram, which the colors span
_NAMES, _INPUTS = ("image", "audio"), ("pixel_values", "input_features")
KINDS = ("masked", "reconstructed", "original")
_HEIGHT = 192  # pixels of a spectrogram, at least


@torch.no_grad()
def reconstruction_images(
    model, pixel_values: torch.Tensor, input_features: torch.Tensor, outputs, mean: list[float], std: list[float]
) -> list[dict[str, list[np.ndarray]]]:
    """Masked, reconstructed and original frames (H, W, 3) in 0..1 and spectrograms (mels, time).

    Args:
        model: Pre-training model, which defines the patches and the units of its targets.
        pixel_values: Frames; of a video, the first frame is shown.
        input_features: Log-mel spectrograms.
        outputs: The model's outputs for these inputs in eval mode.
        mean: Mean of the image processor's normalization, per channel.
        std: Standard deviation of that normalization, per channel.

    Returns:
        "image_masked", "image_reconstructed", "image_original", and the same for "audio"; masked values of spectrograms
        are NaN. One such set in the units of the model's targets. Where those are standardized (gray is 0, black and
        white are three standard deviations), a second set in the units of the inputs, in which predicted patches have
        the mean and deviation of the true ones: it looks better than what the model knows.
    """
    image, audio = model.image_decoder, model.audio_decoder
    pixels, features = pixel_values.float(), input_features.float()
    predictions = outputs.image_logits.float(), outputs.audio_logits.float()
    masks = outputs.image_mask.bool()[..., None], outputs.audio_mask.bool()[..., None]
    image_processor = DeepAVFusionImageProcessor(image_mean=mean, image_std=std)

    def frames(patches: torch.Tensor) -> torch.Tensor:
        values = model.unpatchify_image(patches)
        return values[:, 0] if values.ndim == 5 else values

    def panels(originals, predicted, display) -> dict[str, list[np.ndarray]]:
        found = {}
        for name, original, prediction, mask in zip(("image", "audio"), originals, predicted, masks, strict=True):
            whole = frames if name == "image" else model.unpatchify_audio
            hidden = whole(mask.expand_as(original).float()) > 0.5
            shown = {"masked": original, "reconstructed": torch.where(mask, prediction, original), "original": original}
            for kind, patches in shown.items():
                values = whole(patches)
                if name == "image":
                    values = display(values)
                if kind == "masked":
                    values = values.masked_fill(hidden, MASKED if name == "image" else torch.nan)
                values = values.permute(0, 2, 3, 1) if name == "image" else values[:, 0]
                found[f"{name}_{kind}"] = list(values.cpu().numpy())
        return found

    inputs = model.patchify_image(pixels), model.patchify_audio(features)
    if image.target_channels is None:
        return [panels(inputs, predictions, image_processor.denormalize)]
    targets = image.targets(pixels), audio.targets(features)
    restored = image.in_input_units(predictions[0], pixels), audio.in_input_units(predictions[1], features)
    return [
        panels(targets, predictions, lambda values: (0.5 + values / 6).clamp(0, 1)),
        panels(inputs, restored, image_processor.denormalize),
    ]


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
def reconstruct(
    model: DeepAVFusionForPreTraining,
    processor: DeepAVFusionProcessor,
    path: str,
    time: float | None = None,
    ratios: tuple[float, float] | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Hide patches of the frame and of the spectrogram around a time, and reconstruct them.

    With one seed, what a lower ratio hides, a higher one hides, too.

    Args:
        model: Model with decoders, in eval mode.
        processor: Its processor.
        path: The video.
        time: Middle of the window in seconds; by default, the middle of the video.
        ratios: Fractions of the patches of frame and spectrogram that are hidden, each in [0, 1]; by default, those of
            the model's pre-training.
        seed: Seed of the masks.

    Raises:
        MediaError: If the video cannot be read, or lacks images or audio.
        ValueError: If nothing would be visible.
    """
    extractor, total = processor.feature_extractor, model.config.num_patches
    visible = (model.image_masker.num_kept, model.audio_masker.num_kept)
    if ratios is not None:
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
    inputs, noise = ({name: values.to(model.device) for name, values in each.items()} for each in (inputs, noise))
    numbers = {f"num_visible_{name}_patches": count for name, count in zip(_NAMES, visible, strict=True)}
    outputs = model(**inputs, **noise, **numbers, return_loss=False)
    images = processor.visual_processor
    sets = reconstruction_images(model, *inputs.values(), outputs, images.image_mean, images.image_std)
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


__all__ = ["KINDS", "MASKED", "Reconstruction", "reconstruct", "reconstruction_images"]
