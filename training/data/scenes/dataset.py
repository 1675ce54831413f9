"""
Sounding scenes: an audio-visual world made from a seed, with exact ground truth for every task.

A clip is a picture of 1 to 4 objects over a textured background, some of which sound while the others stay silent. A
class is a pair of a shape and a timbre family; every shape occurs with two timbres and every timbre with two shapes, so
neither sight nor sound alone can name it (`modality_ceilings`). In a clip exactly one visible object fits each timbre
that is heard, so both together always can.

Any process makes any clip from (seed, index) alone; nothing is stored. To look and listen:

    python -m deepavfusion.training.data.scenes --index 3 --out scene_3
    python -m deepavfusion.training.data.scenes --sheet docs/scenes_sheet.png
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset

from .cache import SceneCache, cache_scenes
from .config import (
    CLASS_NAMES,
    CLASS_SHAPE,
    CLASS_TIMBRE,
    DIFFICULTIES,
    SHAPES,
    SPLIT_OFFSETS,
    TIMBRES,
    ScenesConfig,
    modality_ceilings,
)
from .generation import Scene, generate_classes, generate_clip, generate_scene

__all__ = [
    "CLASS_NAMES",
    "CLASS_SHAPE",
    "CLASS_TIMBRE",
    "SHAPES",
    "TIMBRES",
    "Scene",
    "SceneCache",
    "ScenesConfig",
    "ScenesDataset",
    "cache_scenes",
    "generate_classes",
    "generate_clip",
    "generate_scene",
    "modality_ceilings",
]


SHEET = (69, 77, 376, 2052)  # training scenes in which every timbre is heard


class ScenesDataset(Dataset):
    """
    A split of the world as a map-style dataset: item i is scene `offset + i`, a split is a range of indices.

    Args:
        config: Settings; None takes the defaults.
        split: `"train"`, `"validation"` or `"test"`: ranges that never meet.
        size: Number of scenes, at most 2**40.

    Items are dictionaries of numpy arrays: `index`, `frames`, `waveform`, `stems`, `background`, `labels`, `shape_ids`,
    `timbre_ids`, `class_ids`, `sounding`, `object_map` ((T, H, W) uint8: 0 ground, k + 1 where object k is seen),
    `boxes` and `sampling_rate`; see [`Scene`].
    """

    def __init__(self, config: ScenesConfig | None = None, split: str = "train", size: int = 10_000):
        if split not in SPLIT_OFFSETS:
            raise ValueError(f"split must be one of {', '.join(SPLIT_OFFSETS)}, got {split!r}")
        if not 0 < size <= 1 << 40:
            raise ValueError(f"size must lie in 1 .. 2**40, got {size}")
        self.config = config or ScenesConfig()
        self.split, self.size = split, size

    def __len__(self) -> int:
        return self.size

    def index_of(self, i: int) -> int:
        """The world's index of the split's item i."""
        if not -self.size <= i < self.size:
            raise IndexError(f"item {i} of {self.size} scenes")
        return SPLIT_OFFSETS[self.split] + i % self.size

    def scene(self, i: int) -> Scene:
        """Item i with its ground truth as a [`Scene`]."""
        return generate_scene(self.config, self.index_of(i))

    def __getitem__(self, i: int) -> dict:
        return _row(self.scene(i))

    def features(self):
        """The `datasets.Features` of an item."""
        from datasets import Array4D, Features, List, Value

        frames, (height, width) = self.config.num_frames, self.config.size
        integers = List(Value("int64"))
        return Features(
            {
                "index": Value("int64"),
                "frames": Array4D((frames, height, width, 3), "uint8"),
                "waveform": List(Value("float32")),
                "stems": List(List(Value("float32"))),
                "background": List(Value("float32")),
                "labels": List(Value("float32")),
                "shape_ids": integers,
                "timbre_ids": integers,
                "class_ids": integers,
                "sounding": List(Value("bool")),
                "object_map": List(List(List(Value("uint8")))),
                "boxes": List(List(integers)),
                "sampling_rate": Value("int64"),
            }
        )

    def as_dataset(self, cache_dir: str | Path | None = None):
        """
        The split as a `datasets.Dataset`, made once and kept as Arrow files under `cache_dir` (by default the library's
        cache). Asking again for the same settings, split and size finds those files.
        """
        from datasets import Dataset as ArrowDataset

        return ArrowDataset.from_generator(
            _rows,
            features=self.features(),
            cache_dir=None if cache_dir is None else str(cache_dir),
            gen_kwargs={"settings": self.config.to_dict(), "split": self.split, "ranges": [(0, self.size)]},
        ).with_format("numpy")

    to_hf = as_dataset

    def as_streaming(self, num_shards: int = 8):
        """The split as a `datasets.IterableDataset` of `num_shards` shards; scenes are made as they are asked for."""
        from datasets import IterableDataset

        edges = np.linspace(0, self.size, min(num_shards, self.size) + 1).astype(int).tolist()
        return IterableDataset.from_generator(
            _rows,
            features=self.features(),
            gen_kwargs={
                "settings": self.config.to_dict(),
                "split": self.split,
                "ranges": list(zip(edges[:-1], edges[1:])),
            },
        ).with_format("numpy")


def _row(scene: Scene) -> dict:
    numbers = np.arange(1, len(scene.masks) + 1, dtype=np.uint8)[:, None, None, None]
    row = {name: value for name, value in vars(scene).items() if name != "masks"}
    return row | {"object_map": (scene.masks * numbers).sum(0, dtype=np.uint8)}


def _rows(settings: dict, split: str, ranges: list) -> Iterator[dict]:
    config = ScenesConfig(**settings)
    for start, stop in ranges:
        for i in range(start, stop):
            yield _row(generate_scene(config, SPLIT_OFFSETS[split] + i))


def main(arguments: list[str] | None = None) -> None:
    """Write a scene as files, or a sheet of examples."""
    from .export import write_scene, write_sheet

    parser = argparse.ArgumentParser(prog="python -m deepavfusion.training.data.scenes", description=main.__doc__)
    parser.add_argument("--index", type=int, nargs="+", default=list(SHEET), help="which scene, or scenes")
    parser.add_argument("--split", choices=sorted(SPLIT_OFFSETS), default="train")
    parser.add_argument("--out", type=Path, help="folder for mp4, wav and png files")
    parser.add_argument("--sheet", type=Path, help="file for a figure of several scenes")
    parser.add_argument("--difficulty", choices=DIFFICULTIES, default="standard")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--still", action="store_true", help="objects of the mp4 do not move")
    options = parser.parse_args(arguments)
    if options.out is None and options.sheet is None:
        parser.error("nothing to do: give --out DIR or --sheet FILE")
    config = ScenesConfig(
        image_size=options.image_size, seconds=options.seconds, difficulty=options.difficulty, seed=options.seed
    )
    indices = [SPLIT_OFFSETS[options.split] + i for i in options.index]
    if options.out is not None:
        targets = [options.out] if len(indices) == 1 else [options.out / str(i) for i in options.index]
        for folder in targets:
            if (
                folder.exists()
                and not (folder / "scene.json").is_file()
                and (folder.is_file() or any(folder.iterdir()))
            ):
                parser.error(f"{folder} exists and holds no scene: name another folder")
        for folder, index in zip(targets, indices):
            for path in write_scene(config, index, folder, motion=not options.still):
                print(path)
    if options.sheet is not None:
        write_sheet(config, indices, options.sheet)
        print(options.sheet)


if __name__ == "__main__":
    main()
