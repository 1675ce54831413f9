"""Random numbers of training: one generator for each seed, purpose and position, so that runs resume exactly."""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What random numbers are drawn for, and the position that `generator` takes with it."""

    ORDER = 0
    """Shuffles of the training clips: (epoch,)."""
    MASKS = 1
    """Masked patches in pre-training: (step,)."""
    EVALUATION_MASKS = 2
    """Masked patches of held-out clips: (clip,)."""
    DROPOUT = 3
    """Dropout and drop path: (step, process)."""
    MIXUP = 4
    """Mixup: (step, process, micro-batch)."""
    BALANCED_ORDER = 5
    """Class-balanced draws of the training clips: (epoch,)."""
    MODALITY_DROPOUT = 6
    """Samples that lose a modality: (step, process, micro-batch)."""
    MIXTURE_PARTNERS = 7
    """The second clip of a training mixture: (epoch, clip)."""
    AUGMENTATION = 8
    """Crop, flip and volume: (epoch, clip)."""
    SCENE_PARTNERS = 9
    """Scenes whose audio does not fit a scene's image: (epoch, scene)."""
    FOREIGN_AUDIO = 10
    """Audio of other scenes in segmentation and localization: (epoch, scene)."""
    SCENE_PAIRS = 11
    """The scenes from which training pairs are formed: (epoch, 0)."""
    EVALUATION_PARTNERS = 12
    """`SCENE_PARTNERS` of held-out scenes: (scene,)."""
    MASK_SETTINGS = 13
    """How many patches are visible in pre-training: (step,)."""
    WINDOWS = 14
    """Windows of training clips, and frames in them: (epoch, clip, source), 1 for the second source of a mixture."""
    LABELED_FRAMES = 15
    """Which of a clip's labeled frames is seen: (epoch, clip)."""
    NOISE = 16
    """White noise in place of a frame's audio in localization: (frame,)."""


def generator(seed: int, stream: Stream, *position: int) -> torch.Generator:
    """A CPU generator that depends on its arguments alone and has nothing in common with those of other arguments.

    Args:
        seed: Seed of the run.
        stream: What the numbers are drawn for.
        position: Where in the run they are drawn; see `Stream`.
    """
    if stream is Stream.AUGMENTATION:
        # numpy's mixer here, and no number for ORDER below, for the sake of recorded loss curves of pre-training.
        return _mixed_by_numpy(seed, *position)
    if stream is Stream.EVALUATION_PARTNERS:  # these numbers define the test pairs of recorded evaluations
        return _mixed_by_numpy((1 << 32) + seed, 0, *position)
    numbers = (seed, *position) if stream is Stream.ORDER else (seed, stream, *position)
    return torch.Generator().manual_seed(_splitmix64(*numbers) & 0x7FFFFFFFFFFFFFFF)


def _mixed_by_numpy(*numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1)


def _splitmix64(*numbers: int) -> int:
    state = 0
    for number in numbers:
        state = (state + (number & 0xFFFFFFFFFFFFFFFF) + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state


__all__ = ["Stream", "generator"]
