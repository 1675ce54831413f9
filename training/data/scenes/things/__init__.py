"""Scenes of things: cut-outs with their own sounds, from a folder.

A thing is an image with transparency and a sound of the same name in the same folder or subfolder: `NAME.png`, and
`NAME.wav`, `NAME.ogg` or `NAME.flac`. All other files are faults that are named, except those that are ignored:

- names that start with a dot, names without a suffix such as LICENSE, and files that end in .txt, .md, .svg or .dat:
  notes, licenses, vector drawings and drawing hints, which belong to no scene;
- `NAME_desc.wav`, `NAME_desc_LANGUAGE.wav` and `NAME_LANGUAGE.wav`, or another kind of sound, beside `NAME.png`, where
  LANGUAGE is like de, en_GB or zh_tw and there is no image of that very name: spoken descriptions, and translations of
  the thing's sound, of which a thing has one.

A process decodes every image and every sound once, and keeps them: images at the size of the largest object (below
100 kB for frames of 224 pixels), sounds as mono, at most `MAX_SECONDS` (1.3 MB at 16 kHz).
"""

from .cutouts import Cutout, load_cutouts
from .folder import ThingFolder
from .recordings import MAX_SECONDS, STEP, Recording, load_recordings

__all__ = ["MAX_SECONDS", "STEP", "Cutout", "Recording", "ThingFolder", "load_cutouts", "load_recordings"]
