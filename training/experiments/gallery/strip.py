"""A strip of two scenes over time: what sounds in their frames, and their sounds separated from a mixture."""

from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure

from deepavfusion.inference.drawing import heat_overlay

from ...data.scenes.generation import generate_scene
from .choice import typical_pair
from .figures import StripScene, strip
from .sources import Source

FRAMES = 8
_SIDE = 160  # pixels of a frame, which models may see at fewer
_NAMES = ("scene A", "scene B")


@torch.no_grad()
def draw_strip(separation: Source, localization: Source) -> Figure:
    """Draw the strip of the pair of scenes with the typical score: the median over pairs of their mean improvement.

    The sound of each scene is separated from the mixture by its middle frame; the maps show where the frames, in which
    objects move, answer to the scene's own sound.

    Args:
        separation: Evaluation of separation on scenes.
        localization: Evaluation of localization on scenes.
    """
    pair = typical_pair(separation.measure.scores(separation.rows))
    clips = separation.task.clips
    samples = clips.__getitems__([2 * pair, 2 * pair + 1])
    extractor = separation.task.processor.feature_extractor
    mixture = samples[0]["waveforms"].sum(0)
    inputs = {name: torch.stack([sample[name] for sample in samples]) for name in ("pixel_values", "input_features")}
    separated = extractor.separate(separation.model(**inputs).logits.float(), mixture.expand(2, -1))
    scenes = []
    mixed = zip(_NAMES, clips.mixed_scenes(2 * pair), samples, separated, strict=True)
    for title, scene, sample, sound in mixed:
        config, index = replace(clips.config, num_frames=FRAMES, motion=True), clips.scene_index(scene)
        shown = list(generate_scene(replace(config, image_size=_SIDE), index).frames)
        maps = _heat_maps(localization, generate_scene(config, index).frames, sample["waveforms"][0])
        overlays = [heat_overlay(frame, heat, limits=(0, 1)) for frame, heat in zip(shown, maps, strict=True)]
        scenes.append(StripScene(title, shown, overlays, extractor.log_mel(sound).numpy()))
    rate = extractor.sampling_rate
    return strip(scenes, extractor.log_mel(mixture).numpy(), len(mixture) / rate, rate / 2)


def _heat_maps(localization: Source, frames: np.ndarray, sound: torch.Tensor) -> np.ndarray:
    """Where frames (T, H, W, 3) answer to a sound (N,): probabilities (T, rows, columns)."""
    processor = localization.task.processor
    pixels = processor.visual_processor.normalize(torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255)
    features = processor.feature_extractor.log_mel(sound)[None, None].expand(len(frames), -1, -1, -1)
    return localization.model(pixel_values=pixels, input_features=features).logits.float().sigmoid().numpy()


__all__ = ["draw_strip"]
