"""Sounding scenes as training reads them, by a short path: no files, no resizing, a whole batch at a time."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ..augmentation import ClipAugmentation, draw_crop
from ..clips import Clips
from ..random import Stream, generator
from .config import (
    CLASS_NAMES,
    CLASS_SHAPE,
    CLASS_TIMBRE,
    NUM_CLASSES,
    SPLIT_OFFSETS,
    ScenesConfig,
    modality_ceilings,
)
from .generation import generate_classes, generate_clip

_STORE_FORMAT = 2  # another one wherever scenes or their front end change
_MOST_SOUNDING = 3


class SceneClips(Clips):
    """
    A split of sounding scenes as model inputs.

    `pixel_values` is the frame, normalised and not resized (scenes are made at the model's size); `input_features` the
    mixture's log-mel. Samples also hold `label`, `path` ("scene train/12"), `index` and, where one object sounds,
    `shape_label` and `timbre_label` (0..7).

    Augmentations, when training, are those of `ClipAugmentation`, with the same draws: random resized crop, flip and
    volume. The volume is changed in the spectrogram, where it is a factor of the power, so nothing is clipped.

    Args:
        config: Settings of the scenes.
        processor: A `DeepAVFusionProcessor` of the model's sizes, whose window is as long as a scene.
        split: `"train"`, `"validation"` or `"test"`.
        size: Number of scenes.
        train: Whether to augment.
        seed: Of the augmentations.
        cache_dir: Folder where frames and spectrograms are kept as they are first made (in half precision: a rounding
            of at most 0.002 in log10 power); None makes each anew.
    """

    def __init__(
        self,
        config: ScenesConfig,
        processor,
        split: str,
        size: int,
        train: bool,
        seed: int,
        cache_dir: str | Path | None = None,
    ):
        super().__init__(seed)
        if split not in SPLIT_OFFSETS:
            raise ValueError(f"split must be one of {', '.join(SPLIT_OFFSETS)}, got {split!r}")
        self.config, self.split, self.size, self.train = config, split, size, train
        self.feature_extractor = processor.feature_extractor
        self.pictures = processor.visual_processor
        self.augmentation = ClipAugmentation(self.pictures)
        extractor = self.feature_extractor
        for name, wanted, have in (
            ("sampling_rate", extractor.sampling_rate, config.sampling_rate),
            ("samples a clip", extractor.num_samples, config.num_samples),
            ("picture size", tuple(self.pictures.output_size), config.size),
        ):
            if wanted != have:
                raise ValueError(f"scenes have {name} {have}, the processor expects {wanted}")
        self.label_names = list(CLASS_NAMES)
        self.multi_label = config.multi_label
        self.ceilings = modality_ceilings(config)
        sounding = "one sounding" if not self.multi_label else f"up to {config.max_sounding} sounding"
        self.card = (
            f"sounding scenes, {config.difficulty}: {size} clips of {config.seconds:g} s with {config.min_objects} to "
            f"{config.max_objects} objects, {sounding}, {NUM_CLASSES} classes, split {split}, seed {config.seed}"
        )
        self.store = None
        if cache_dir is not None:
            about = {"scenes": config.to_dict(), "split": split, "size": size, **self._about()}
            # A loaded extractor also says where its code is, which has no bearing on what it computes.
            about["audio"] = {key: value for key, value in extractor.to_dict().items() if key != "auto_map"}
            layout = {name: ((size, *shape), dtype) for name, (shape, dtype) in self._layout().items()}
            self.store = Store(cache_dir, about, layout)

    def _about(self) -> dict:
        """What stored rows depend on beside scenes, split, size and front end."""
        return {}

    def _layout(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of what `_make` gives for a scene."""
        extractor = self.feature_extractor
        return {
            "frames": ((self.config.num_frames, *self.config.size, 3), np.uint8),
            "features": ((1, extractor.num_mel_bins, extractor.spectrogram_length), np.float16),
            "classes": ((_MOST_SOUNDING,), np.int8),
        }

    def __len__(self) -> int:
        return self.size

    def describe(self, i: int) -> str:
        return f"scene {self.split}/{i} (seed {self.config.seed})"

    def classes(self) -> list[list[int]]:
        return [generate_classes(self.config, self.scene_index(i)).tolist() for i in range(self.size)]

    def scene_index(self, i: int) -> int:
        """The index of item i in its world, for `generate_scene`."""
        return SPLIT_OFFSETS[self.split] + i

    def __getitems__(self, items: Sequence[int]) -> list[dict]:
        items = self._check(items)
        made = self._media(items)
        pixels, features, classes = as_pixels(made["frames"]), torch.from_numpy(made["features"]), made["classes"]
        if self.train:
            draws = [self._draw(i) for i in items]
            pixels = crop_and_flip(pixels, [box for box, _, _ in draws], [flip for _, flip, _ in draws])
            features = amplify(features, [decibels for _, _, decibels in draws])
        pixels = self.pictures.normalize(pixels)
        if self.config.num_frames == 1:
            pixels = pixels[:, 0]
        samples = []
        for k, i in enumerate(items):
            sample = {"pixel_values": pixels[k], "input_features": features[k], "path": f"scene {self.split}/{i}"}
            heard = classes[k][classes[k] >= 0].tolist()
            if self.multi_label:
                sample["label"] = torch.zeros(NUM_CLASSES)
                sample["label"][heard] = 1
            else:
                (sounding,) = heard
                sample["label"] = sounding
                sample["shape_label"], sample["timbre_label"] = CLASS_SHAPE[sounding], CLASS_TIMBRE[sounding]
            samples.append(sample | {"index": i})
        return samples

    def _draw(self, i: int) -> tuple[tuple[int, int, int, int], bool, float]:
        """Crop, flip and volume of an item, drawn as `ClipAugmentation` draws them."""
        draws = generator(self.seed, Stream.AUGMENTATION, self.epoch, i)
        augmentation = self.augmentation
        box = draw_crop(*self.config.size, self.config.size, augmentation.area, augmentation.aspect, draws)
        flip = bool(torch.rand((), generator=draws) < augmentation.flip)
        loudness = 2 * torch.rand((), generator=draws, dtype=torch.float64).item() - 1
        return box, flip, loudness * augmentation.decibels

    def _media(self, items: list[int]) -> dict[str, np.ndarray]:
        """What `_make` makes of these items, from the store where it is kept there; half precision as single."""
        absent = items if self.store is None else self.store.absent(items)
        if absent:
            made = self._make(absent)
            if self.store is None:
                return made
            self.store.put(absent, **made)
        kept = self.store.get(items)
        return {name: rows.astype(np.float32) if rows.dtype == np.float16 else rows for name, rows in kept.items()}

    def _make(self, items: list[int]) -> dict[str, np.ndarray]:
        """`frames` (B, T, H, W, 3) uint8, `features` (B, 1, mels, frames), `classes` that sound (B, 3), -1 for none."""
        clips = [generate_clip(self.config, self.scene_index(i)) for i in items]
        return {
            "frames": np.stack([clip[0] for clip in clips]),
            "features": self._log_mels([clip[1] for clip in clips]),
            "classes": self._class_rows([clip[2] for clip in clips]),
        }

    def _log_mels(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """(B, 1, mels, frames) float32."""
        # One by one: on a CPU that is faster than together, and no sample depends on its neighbours in rounding.
        log_mel = self.feature_extractor.log_mel
        return torch.stack([log_mel(torch.from_numpy(waveform))[None] for waveform in waveforms]).numpy()

    @staticmethod
    def _class_rows(sounding: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.full((len(sounding), _MOST_SOUNDING), -1, np.int8)
        for row, classes in zip(rows, sounding, strict=True):
            row[: len(classes)] = classes
        return rows


def as_pixels(frames: np.ndarray) -> torch.Tensor:
    """(B, T, H, W, 3) uint8 as (B, T, 3, H, W) float32 in 0..1."""
    return torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float().div_(255)


def crop_and_flip(
    pixels: torch.Tensor,
    boxes: Sequence[tuple[int, int, int, int]],
    flips: Sequence[bool],
    mode: str = "bilinear",
) -> torch.Tensor:
    """
    Parts of a batch of pictures, scaled back to their size, and flips.

    Args:
        pixels: (B, T, channels, H, W) floating; the frames of a clip share their part.
        boxes: (top, left, height, width) in pixels for each clip.
        flips: Whether to mirror, for each clip.
        mode: `"bilinear"`, or `"nearest"` for maps of labels.

    Returns:
        As `pixels`.
    """
    height, width = pixels.shape[-2:]
    box = np.array(boxes, np.float64) / [height, width, height, width]
    theta = np.zeros((len(box), 2, 3), np.float32)
    theta[:, 0, 0] = np.where(flips, -box[:, 3], box[:, 3])
    theta[:, 1, 1] = box[:, 2]
    theta[:, 0, 2] = 2 * box[:, 1] + box[:, 3] - 1
    theta[:, 1, 2] = 2 * box[:, 0] + box[:, 2] - 1
    flat = pixels.flatten(1, 2)
    grid = F.affine_grid(torch.from_numpy(theta), list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, mode=mode, padding_mode="border", align_corners=False).view_as(pixels)


def amplify(features: torch.Tensor, decibels: Sequence[float]) -> torch.Tensor:
    """
    The log-mel of a waveform made louder.

    Args:
        features: (B, 1, mels, frames), log10(power + 1e-7).
        decibels: One for each sample.
    """
    # Number by number: vectorised powers round differently at the end of a batch.
    gain = torch.tensor([10.0 ** (d / 10) for d in decibels], dtype=features.dtype).view(-1, 1, 1, 1)
    return torch.log10((10.0**features - 1e-7).clamp_(min=0) * gain + 1e-7)


class Store:
    """
    Arrays on disk whose rows are filled as they are first made, by any number of processes at once.

    A row counts as filled once it is flagged, after its arrays were written, and every process would write the same: so
    nothing is lost or mixed up when a process dies, and none waits for another. The folder's name holds a hash of what
    the rows depend on; other settings are another folder.

    Args:
        folder: Where stores lie.
        about: What the rows depend on; must be plain values.
        arrays: Name to (shape, dtype); the first dimension counts rows.
    """

    def __init__(self, folder: str | Path, about: dict, arrays: dict[str, tuple[tuple[int, ...], type]]):
        text = json.dumps({"format": _STORE_FORMAT, **about}, indent=1, sort_keys=True, default=str)
        self.path = Path(folder).absolute() / f"scenes_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        rows = next(iter(arrays.values()))[0][0]
        self.names = [*arrays, "filled"]
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".scenes_", dir=self.path.parent))
            for name, (shape, dtype) in {**arrays, "filled": ((rows,), np.uint8)}.items():
                np.lib.format.open_memmap(draft / f"{name}.npy", "w+", dtype, shape)
            (draft / "about.json").write_text(text)
            try:
                os.rename(draft, self.path)
            except OSError:
                # Another process was first; its store is the same one.
                shutil.rmtree(draft)
                if not self.path.exists():
                    raise
        self.arrays = self._open()

    def _open(self) -> dict[str, np.ndarray]:
        return {name: np.lib.format.open_memmap(self.path / f"{name}.npy", "r+") for name in self.names}

    def __getstate__(self) -> dict:
        # A pickled memory map is a copy of its contents; workers open the files instead.
        return {"path": self.path, "names": self.names}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.arrays = self._open()

    def absent(self, rows: list[int]) -> list[int]:
        """Those rows that are not filled."""
        return [row for row in rows if not self.arrays["filled"][row]]

    def put(self, rows: list[int], **values: np.ndarray) -> None:
        """Fill rows."""
        for name, value in values.items():
            self.arrays[name][rows] = value
        self.arrays["filled"][rows] = 1

    def get(self, rows: list[int]) -> dict[str, np.ndarray]:
        """Rows of every array."""
        return {name: np.asarray(array[rows]) for name, array in self.arrays.items() if name != "filled"}
