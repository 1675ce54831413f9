"""Sounding scenes: synthetic audio-visual clips generated from a seed, with exact ground truth for every task.

A clip is an image of 1 to 4 objects over a textured background, some of which sound while the others stay silent. A
class is a pair of a shape and a timbre family; every shape occurs with two timbres and every timbre with two shapes, so
neither image nor audio alone determines it (`modality_ceilings`). In a clip exactly one visible object fits each timbre
in the audio, so both together always do.

With `ScenesConfig.things`, the objects are cut-outs with their own sounds instead, from a folder (see `scenes.things`):
every thing is a class, and the ground truth is as exact.

A clip is a function of (seed, index) and of the things alone; nothing is stored. To look and listen:

    python -m deepavfusion.training.data.scenes --index 3 --out scene_3
    python -m deepavfusion.training.data.scenes --sheet docs/scenes_sheet.png --overwrite
    python -m deepavfusion.training.data.scenes --things FOLDER --index 3 --out scene_of_things
"""

from .clips import SceneClips
from .config import DIFFICULTIES, SPLIT_OFFSETS, ScenesConfig, modality_ceilings
from .coupling import LINKS, link_strengths
from .design import CLASS_NAMES, CLASS_SHAPE, CLASS_TIMBRE, COMPATIBLE_SHAPES, SHAPES, TIMBRES, Design
from .export import FRAME_RATE, write_scene, write_sheet, write_video, write_wav
from .generation import Scene, generate_classes, generate_clip, generate_scene, regenerate_clip
from .tasks import SceneTask
from .things import ThingFolder

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
    "Design",
    "Scene",
    "SceneClips",
    "SceneTask",
    "ScenesConfig",
    "ThingFolder",
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
