"""Data sets for training and evaluation.

- `scenes`: the built-in sounding scenes; generated, for every task;
- `folder`: any folder of videos;
- `vggsound`, `audioset`, `music`, `vggsound_music`: labels, and mixtures for separation;
- `avsbench`: masks; `vggss`, `flickr_soundnet`: boxes.

The module of each data set in `sets` describes its layout on disk. [`build_dataset`] builds what the recipes name.
"""

from .build import MODELS, build_dataset, data_sets
from .clips import BrokenClip, ClipDataset, collate_clips
from .files import FileClips

__all__ = ["MODELS", "BrokenClip", "ClipDataset", "FileClips", "build_dataset", "collate_clips", "data_sets"]
