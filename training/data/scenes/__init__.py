"""Sounding scenes: synthetic audio-visual clips generated from a seed, with exact ground truth for every task.

A clip is an image of 1 to 4 objects over a textured background, some of which sound while the others stay silent. A
class is a pair of a shape and a timbre family; every shape occurs with two timbres and every timbre with two shapes, so
neither image nor audio alone determines it (`modality_ceilings`). In a clip exactly one visible object fits each timbre
in the audio, so both together always do.

A clip is a function of (seed, index) alone; nothing is stored. To look and listen:

    python -m deepavfusion.training.data.scenes --index 3 --out scene_3
    python -m deepavfusion.training.data.scenes --sheet docs/scenes_sheet.png --overwrite
"""

from .clips import SceneClips
from .config import (
    CLASS_NAMES,
    CLASS_SHAPE,
    CLASS_TIMBRE,
    COMPATIBLE_SHAPES,
    DIFFICULTIES,
    SHAPES,
    SPLIT_OFFSETS,
    TIMBRES,
    ScenesConfig,
    modality_ceilings,
)
from .coupling import LINKS, link_strengths
from .export import FRAME_RATE, write_scene, write_sheet, write_video, write_wav
from .generation import Scene, generate_classes, generate_clip, generate_scene, regenerate_clip
from .tasks import SceneTask

__all__ = [
    "CLASS_NAMES",
    "CLASS_SHAPE",
    "CLASS_TIMBRE",
    "COMPATIBLE_SHAPES",
    "DIFFICULTIES",
    "FRAME_RATE",
    "LINKS",
    "SHAPES",
    "SPLIT_OFFSETS",
    "TIMBRES",
    "Scene",
    "SceneClips",
    "SceneTask",
    "ScenesConfig",
    "generate_classes",
    "generate_clip",
    "generate_scene",
    "link_strengths",
    "modality_ceilings",
    "regenerate_clip",
    "write_scene",
    "write_sheet",
    "write_video",
    "write_wav",
]
