"""Sounding scenes as model inputs, by a short path: no files, no resizing, a whole batch at a time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ...wording import count
from ..augmentation import ClipAugmentation, draw_crop
from ..clips import ClipDataset, ClipMedia
from ..random import Stream, generator
from ..sets.folder import make_rows
from .cache import SceneCache
from .config import SPLIT_OFFSETS, ScenesConfig, modality_ceilings
from .design import CLASS_SHAPE, CLASS_TIMBRE
from .generation import check_things, generate_classes, generate_clip, generate_waveform, regenerate_clip

_MAX_SOUNDING = 3
_REDRAWN = 3 << 40  # offset of the scenes, outside all splits, whose random numbers redraw a modality


class SceneClips(ClipDataset):
    """A split of sounding scenes as model inputs.

    `pixel_values` is the frame, normalized and not resized (scenes are generated at the model's size); `input_features`
    the mixture's log-mel. Samples also hold `label`, `path` ("scene train/12"), `index` and, where one generated object
    sounds, `shape_label` and `timbre_label` (0..7).

    In training, samples are augmented as by `ClipAugmentation`, with the same draws: random resized crop, flip and
    volume. The volume is changed in the spectrogram, where it is a factor of the power, so nothing is clipped.

    Args:
        config: Settings of the scenes.
        processor: A `DeepAVFusionProcessor` of the model's sizes, whose window is as long as a scene.
        split: `"train"`, `"validation"` or `"test"`.
        size: Number of scenes.
        train: Whether samples are for training: augmented, unless `augment` says otherwise.
        seed: Seed of the augmentations.
        cache_dir: Folder where frames and spectrograms are kept once generated (in half precision: a rounding of at
            most 0.002 in log10 power); None generates them at every visit.
        augment: Whether training samples are augmented.
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
        augment: bool = True,
    ):
        super().__init__(seed)
        if split not in SPLIT_OFFSETS:
            raise ValueError(f"Expected a split of {', '.join(SPLIT_OFFSETS)}, got {split!r}.")
        self.config, self.split, self.size, self.train = config, split, size, train
        self.augments = train and augment
        self.feature_extractor = processor.feature_extractor
        self.visual_processor = processor.visual_processor
        self.augmentation = ClipAugmentation(self.visual_processor)
        extractor = self.feature_extractor
        for name, expected, found in (
            ("sampling_rate", extractor.sampling_rate, config.sampling_rate),
            ("samples per clip", extractor.num_samples, config.num_samples),
            ("image size", tuple(self.visual_processor.output_size), config.size),
        ):
            if expected != found:
                raise ValueError(f"Expected scenes with the processor's {name} {expected}, got {found}.")
        self.label_names = list(config.design.class_names)
        self.multi_label = config.multi_label
        if config.things is None:
            self.ceilings, classes = modality_ceilings(config), f"{len(self.label_names)} classes"
        else:
            check_things(config)  # faulty files are reported now, not in the middle of training
            classes = f"{len(self.label_names)} things (digest {config.things.digest[:8]})"
        sounding = "one sounding" if not self.multi_label else f"up to {config.max_sounding} sounding"
        coupling = f", coupling {config.coupling:g}" if config.coupling else ""
        fewest, most = config.min_objects, config.max_objects
        objects = count(most, "object") if fewest == most else f"{fewest} to {count(most, 'object')}"
        self.card = (
            f"sounding scenes, {config.difficulty}: {count(size, 'clip')} of {config.seconds:g} s with {objects}, "
            f"{sounding}, {classes}{coupling}, split {split}, seed {config.seed}"
        )
        self.cache = None
        if cache_dir is not None:
            description = {"scenes": config.to_dict(), "split": split, "size": size, **self._cache_key()}
            # A loaded extractor also says where its code is, which has no bearing on what it computes.
            description["audio"] = {key: value for key, value in extractor.to_dict().items() if key != "auto_map"}
            layout = {name: ((size, *shape), dtype) for name, (shape, dtype) in self._layout().items()}
            self.cache = SceneCache(cache_dir, description, layout)

    def _cache_key(self) -> dict:
        """What cached rows depend on beside scenes, split, size and front end."""
        return {}

    def _layout(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and type of what `_generate` returns for a scene."""
        extractor = self.feature_extractor
        return {
            "frames": ((self.config.num_frames, *self.config.size, 3), np.uint8),
            "features": ((1, extractor.num_mel_bins, extractor.spectrogram_length), np.float16),
            "classes": ((_MAX_SOUNDING,), np.int16),
        }

    def __len__(self) -> int:
        return self.size

    def describe(self, i: int) -> str:
        """Split, number and seed of item i."""
        return f"scene {self.split}/{i} (seed {self.config.seed})"

    def annotations(self):
        """The scenes as a `datasets.Dataset` with `path`, `label` (the sounding classes) and `split`."""
        rows = []
        for i in range(self.size):
            names = [self.config.design.class_names[c] for c in generate_classes(self.config, self.scene_index(i))]
            label = names if self.multi_label else names[0]
            rows.append({"path": f"scene {self.split}/{i}", "label": label, "split": self.split})
        return make_rows(rows, list(self.config.design.class_names))

    def scene_index(self, i: int) -> int:
        """The index of item i for `generate_scene`."""
        return SPLIT_OFFSETS[self.split] + i

    def __getitems__(self, items: Sequence[int]) -> list[dict]:
        items = self._check(items)
        media = self._media(items)
        pixels, features, classes = as_pixels(media["frames"]), torch.from_numpy(media["features"]), media["classes"]
        if self.augments:
            draws = [self._draw(i) for i in items]
            pixels = crop_and_flip(pixels, [box for box, _, _ in draws], [flip for _, flip, _ in draws])
            features = amplify(features, [decibels for _, _, decibels in draws])
        pixels = self.visual_processor.normalize(pixels)
        if self.config.num_frames == 1:
            pixels = pixels[:, 0]
        samples = []
        for k, i in enumerate(items):
            sample = {"pixel_values": pixels[k], "input_features": features[k], "path": f"scene {self.split}/{i}"}
            sounding = classes[k][classes[k] >= 0].tolist()
            if self.multi_label:
                sample["label"] = torch.zeros(self.config.design.num_classes)
                sample["label"][sounding] = 1
            else:
                (label,) = sounding
                sample["label"] = label
                if self.config.things is None:
                    sample["shape_label"], sample["timbre_label"] = CLASS_SHAPE[label], CLASS_TIMBRE[label]
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
        """What `_generate` returns for these items, from the cache where it holds them; half precision as single."""
        missing = items if self.cache is None else self.cache.missing(items)
        if missing:
            generated = self._generate(missing)
            if self.cache is None:
                return generated
            self.cache.put(missing, **generated)
        cached = self.cache.get(items)
        return {name: rows.astype(np.float32) if rows.dtype == np.float16 else rows for name, rows in cached.items()}

    def _generate(self, items: list[int]) -> dict[str, np.ndarray]:
        """`frames` (B, T, H, W, 3) uint8, `features` (B, 1, mels, frames), sounding `classes` (B, 3), -1 for none."""
        clips = [generate_clip(self.config, self.scene_index(i)) for i in items]
        return {
            "frames": np.stack([clip[0] for clip in clips]),
            "features": self._log_mels([clip[1] for clip in clips]),
            "classes": self._class_rows([clip[2] for clip in clips]),
        }

    def media(self, i: int) -> ClipMedia:
        """The audio of scene i; models see the whole frame."""
        waveform = generate_waveform(self.config, self.scene_index(i))
        return ClipMedia(None, waveform, self.config.sampling_rate)

    def redrawn(self, items: Sequence[int], modality: str) -> torch.Tensor | None:
        """Draw one modality of scenes anew given the other one, as independent samples of what the other allows.

        Args:
            items: Scenes of the split.
            modality: `"image"` or `"audio"`.

        Returns:
            `pixel_values` or `input_features` of the scenes, not augmented; None where scenes have several objects,
            move, or are made of things.
        """
        config = self.config
        if config.max_objects > 1 or config.motion or config.things is not None:
            return None
        indices = [self.scene_index(i) for i in items]
        clips = [regenerate_clip(config, index, index + _REDRAWN, modality) for index in indices]
        if modality == "audio":
            return torch.from_numpy(self._log_mels([clip[1] for clip in clips]))
        pixels = self.visual_processor.normalize(as_pixels(np.stack([clip[0] for clip in clips])))
        return pixels[:, 0] if config.num_frames == 1 else pixels

    def _log_mels(self, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """(B, 1, mels, frames) float32."""
        # One by one, which is faster on a CPU, and makes the rounding of a sample independent of its neighbors.
        log_mel = self.feature_extractor.log_mel
        return torch.stack([log_mel(torch.from_numpy(waveform))[None] for waveform in waveforms]).numpy()

    @staticmethod
    def _class_rows(sounding: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.full((len(sounding), _MAX_SOUNDING), -1, np.int16)
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
    """Crop a batch of images, resize the crops to the size of the images, and flip some of them.

    Args:
        pixels: (B, T, channels, H, W) floating; the frames of a clip share their crop.
        boxes: (top, left, height, width) in pixels for each clip.
        flips: Whether to flip each clip.
        mode: `"bilinear"`, or `"nearest"` for label maps.

    Returns:
        Tensor of the shape of `pixels`.
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
    """The log-mel of a waveform at another volume.

    Args:
        features: (B, 1, mels, frames), log10(power + 1e-7).
        decibels: Change of each sample's volume.
    """
    # One by one: vectorized powers round differently at the end of a batch.
    gain = torch.tensor([10.0 ** (d / 10) for d in decibels], dtype=features.dtype).view(-1, 1, 1, 1)
    return torch.log10((10.0**features - 1e-7).clamp_(min=0) * gain + 1e-7)
