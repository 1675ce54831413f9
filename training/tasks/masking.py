"""How many patches of each modality are visible in pre-training, drawn anew in every step.

With the published ratios both modalities show enough of themselves, and the other one is hardly needed. A mixture with
steps in which one modality shows a few patches or none makes the model read the other one (`task.masks`).
"""

from typing import Any, NamedTuple

import torch

from deepavfusion.ranges_deepavfusion import Range

from ..data.random import Stream, generator

_KEYS = ("weight", "image", "audio")
_WEIGHT = Range(above=0, at_most=1_000_000)


class MaskSetting(NamedTuple):
    """One entry of `task.masks`.

    Attributes:
        weight: How often it is drawn, relative to the others.
        image: Number of visible image patches; None for what `image_mask_ratio` leaves.
        audio: The same for the spectrogram.
    """

    weight: float
    image: int | None
    audio: int | None


def mask_settings(entries: list[dict[str, Any]], num_patches: tuple[int, int]) -> list[MaskSetting]:
    """Read `task.masks`.

    Args:
        entries: Entries of the recipe, with keys `weight`, `image` and `audio`, all optional.
        num_patches: Number of patches of image and audio.

    Raises:
        ValueError: For an unknown key, a weight that is not positive, or a number of patches that leaves no patch
            visible or none hidden.
    """
    settings = []
    for entry in entries:
        if unknown := sorted(entry.keys() - set(_KEYS)):
            raise ValueError(f"task.masks has an unknown key {unknown[0]!r}: expected {', '.join(_KEYS)}.")
        weight, visible = entry.get("weight", 1), (entry.get("image"), entry.get("audio"))
        _WEIGHT.check("The weight of an entry of task.masks", weight)
        for name, count, patches in zip(_KEYS[1:], visible, num_patches, strict=True):
            if count is not None and (type(count) is not int or not 0 <= count < patches):
                raise ValueError(
                    f"task.masks has {count!r} visible {name} patches: expected an integer from 0 to {patches - 1}."
                )
        if visible == (0, 0):
            raise ValueError("task.masks hides both modalities: expected a visible patch of at least one of them.")
        settings.append(MaskSetting(weight, *visible))
    return settings


def draw_setting(settings: list[MaskSetting], seed: int, step: int) -> MaskSetting:
    """Draw the setting of an optimizer step, the same on all processes and for all micro-batches."""
    if not settings:
        return MaskSetting(1, None, None)
    weights = torch.tensor([setting.weight for setting in settings], dtype=torch.float64)
    draws = generator(seed, Stream.MASK_SETTINGS, step)
    return settings[int(torch.multinomial(weights, 1, generator=draws))]


__all__ = ["MaskSetting", "draw_setting", "mask_settings"]
