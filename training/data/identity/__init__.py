"""Which clips a model was trained on, by digests, so that they are known in other folders and in shards, too."""

from .clips import ClipDigests, TrainingClips
from .files import training_clips
from .unseen import leaving_out, without_training_clips

__all__ = ["ClipDigests", "TrainingClips", "leaving_out", "training_clips", "without_training_clips"]
