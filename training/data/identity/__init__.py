"""Which clips a data set holds and a model was trained on, by digests, so that they are known elsewhere and later."""

from .clips import ClipDigests, TrainingClips
from .contents import contents_of
from .files import training_clips
from .unseen import leaving_out, without_training_clips

__all__ = ["ClipDigests", "TrainingClips", "contents_of", "leaving_out", "training_clips", "without_training_clips"]
