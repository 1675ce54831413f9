"""Sounding scenes for the tasks that need more than a label: mixtures to separate, masks to paint, places to find."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from deepavfusion.training.data.clips import sample_generator
from deepavfusion.training.data.scenes_clips import SceneClips, amplify, as_pixels, crop_and_flip
from deepavfusion.training.data.scenes_config import CLASS_TIMBRE, COMPATIBLE_SHAPES
from deepavfusion.training.data.scenes_generation import generate_members, generate_scene, sounding_map

SCENE_TASKS = ("separation", "segmentation", "localization")
NEGATIVE_SHARE = 0.3
_FULL_SCALE = 32767
_PARTNER_TRIALS = 200
_NEGATIVE_STREAM = 1 << 33
_PARTNER_STREAM = 1 << 32  # keeps a pair's draw apart from those of augmentations


class SceneTask(SceneClips):
    """
    A split of sounding scenes with the ground truth of a task.

    Samples hold `pixel_values`, `input_features`, `index`, `path`, and

    - separation: `labels` (1, mels, frames), the log-mel of the source that the frame shows; `input_features`, of its
      scene's sound and another's together. Training item i is scene i with a partner drawn anew in every epoch;
      evaluation items 2k and 2k + 1 are the two sources of a fixed pair, and hold `waveforms` (2, N): the wanted
      source, the other. A partner's sound could not come from the wanted scene's objects (no shape in sight is
      compatible with it), nor the other way round: so the frame always tells which source is meant.
    - segmentation: `labels` (H, W), 1.0 where an object that sounds is seen, else 0.0; silent objects are ground. With
      `semantic`, long class indices: 0 ground, c + 1 where class c sounds.
    - localization: `labels` (H, W), 1.0 within the tight boxes of what sounds and is seen, else 0.0; in evaluation also
      `sounding`. With `negatives`, evaluation items come in pairs: 2k is a scene as it is (`sounding` 1), 2k + 1 the
      same frame with the sound of another scene that nothing in it can make (or, where the split has none, with
      background noise alone): `sounding` 0, `labels` all 0.

    Args:
        task: `"separation"`, `"segmentation"` or `"localization"`.
        semantic: Whether segmentation names classes.
        negatives: Whether localization is evaluated with silent pictures, too, and segmentation and localization are
            trained with some (`NEGATIVE_SHARE`): without them, a lone object would be the answer to any sound.

    The rest are those of [`SceneClips`].
    """

    def __init__(
        self, config, processor, split, size, train, seed, cache_dir=None, *, task, semantic=False, negatives=True
    ):
        if task not in SCENE_TASKS:
            raise ValueError(f"task must be one of {', '.join(SCENE_TASKS)}, got {task!r}")
        if config.num_frames > 1:
            raise ValueError(f"{task} on scenes needs num_frames = 1, got {config.num_frames}")
        self.task, self.semantic, self.negatives = task, semantic, negatives
        super().__init__(config, processor, split, size, train, seed, cache_dir)
        self.card = f"{self.card}, {task}"
        self.ceilings = None
        if task == "segmentation" and not semantic:
            self.label_names, self.multi_label = None, False
        self.in_pairs = not train and (task == "separation" or (task == "localization" and negatives))
        if self.in_pairs and size < 2:
            raise ValueError(f"{task} is evaluated in pairs of scenes: expected a size of at least 2, got {size}")

    def __len__(self) -> int:
        return self.size // 2 * 2 if self.in_pairs else self.size

    def _about(self) -> dict:
        return {"task": "separation" if self.task == "separation" else "masks"}

    def _layout(self) -> dict:
        layout = super()._layout()
        if self.task == "separation":
            del layout["features"]
            return layout | {"waveforms": ((self.config.num_samples,), np.int16)}
        return layout | {"classes_seen": (self.config.size, np.uint8)}

    def _make(self, items: list[int]) -> dict[str, np.ndarray]:
        scenes = [generate_scene(self.config, self.scene_index(i)) for i in items]
        made = {
            "frames": np.stack([scene.frames for scene in scenes]),
            "classes": self._class_rows([scene.class_ids[scene.sounding] for scene in scenes]),
        }
        waveforms = [scene.waveform for scene in scenes]
        if self.task == "separation":
            # Kept as a wav file would keep it; without a store the same, so that a store changes nothing.
            rounded = np.clip(np.round(np.stack(waveforms) * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE)
            return made | {"waveforms": rounded.astype(np.int16)}
        return made | {
            "features": self._log_mels(waveforms),
            "classes_seen": np.stack([sounding_map(scene) for scene in scenes]),
        }

    def __getitems__(self, items: Sequence[int]) -> list[dict]:
        items = self._check(items)
        if self.task == "separation":
            return self._mixtures(items)
        if self.in_pairs:
            samples = self._maps([i // 2 for i in items], items)
            foreign = [(i // 2, sample) for i, sample in zip(items, samples, strict=True) if i % 2]
        else:
            samples, foreign = self._maps(items, items), []
            if self.train and self.negatives:
                draws = [sample_generator(self.seed + _NEGATIVE_STREAM, self.epoch, i) for i in items]
                drawn = [float(torch.rand((), generator=generator)) < NEGATIVE_SHARE for generator in draws]
                foreign = [pair for pair, chosen in zip(zip(items, samples, strict=True), drawn, strict=True) if chosen]
        for i, sample in foreign:
            self._silence(i, sample)
        return samples

    def _maps(self, items: list[int], names: list[int]) -> list[dict]:
        made = self._media(items)
        pixels = as_pixels(made["frames"])
        maps = torch.from_numpy(made["classes_seen"]).float()[:, None, None]
        if self.train:
            draws = [self._draw(i) for i in items]
            boxes, flips = [box for box, _, _ in draws], [flip for _, flip, _ in draws]
            pixels, maps = crop_and_flip(pixels, boxes, flips), crop_and_flip(maps, boxes, flips, mode="nearest")
            features = amplify(torch.from_numpy(made["features"]), [decibels for _, _, decibels in draws])
        else:
            features = torch.from_numpy(made["features"])
        pixels, maps = self.pictures.normalize(pixels)[:, 0], maps[:, 0, 0]
        samples = []
        for k, name in enumerate(names):
            sample = {"pixel_values": pixels[k], "input_features": features[k]}
            if self.task == "localization":
                sample["labels"] = boxes_of(maps[k])
                if not self.train:
                    sample["sounding"] = 1
            else:
                sample["labels"] = maps[k].long() if self.semantic else (maps[k] > 0).float()
            samples.append(sample | {"path": self._name(items[k]), "index": name})
        return samples

    def _silence(self, i: int, sample: dict) -> None:
        """Gives the sample of scene i a sound that nothing in it can make."""
        other = self._partner(i, self.epoch if self.train else 0)
        if other is None:
            features = self._log_mels([generate_scene(self.config, self.scene_index(i)).background])[0]
            name = "background noise alone"
        else:
            features, name = self._media([other])["features"][0], f"the sound of {self._name(other)}"
        sample["input_features"] = torch.from_numpy(features)
        sample["labels"] = torch.zeros_like(sample["labels"])
        sample["path"] += f" with {name}"
        if "sounding" in sample:
            sample["sounding"] = 0

    def _mixtures(self, items: list[int]) -> list[dict]:
        if self.train:
            pairs = [(i, self._mixture_partner(i, self.epoch)) for i in items]
        else:
            # The partners of pairs come from the half of the split that is in no other pair.
            halves = [(i // 2, self._mixture_partner(i // 2, epoch=0, low=self.size // 2)) for i in items]
            pairs = [pair[:: -1 if i % 2 else 1] for i, pair in zip(items, halves, strict=True)]
        wanted, other = (self._media([pair[k] for pair in pairs]) for k in (0, 1))
        pixels = as_pixels(wanted["frames"])
        waveforms = np.stack([wanted["waveforms"], other["waveforms"]], axis=1).astype(np.float32) / _FULL_SCALE
        waveforms = torch.from_numpy(waveforms)  # (B, 2, N)
        if self.train:
            draws = [self._draw(i) for i in items]
            pixels = crop_and_flip(pixels, [box for box, _, _ in draws], [flip for _, flip, _ in draws])
            second = [self._draw(self.size + i)[2] for i in items]
            decibels = torch.tensor([(draw[2], level) for draw, level in zip(draws, second, strict=True)])
            waveforms = waveforms * 10 ** (decibels[..., None] / 20)
        pixels = self.pictures.normalize(pixels)[:, 0]
        log_mel = self.feature_extractor.log_mel
        samples = []
        for k, (i, (first, second)) in enumerate(zip(items, pairs, strict=True)):
            sample = {
                "pixel_values": pixels[k],
                "input_features": log_mel(waveforms[k].sum(0))[None],
                "labels": log_mel(waveforms[k, 0])[None],
            }
            if not self.train:
                sample["waveforms"] = waveforms[k]
            samples.append(sample | {"path": f"{self._name(first)} + {self._name(second)}", "index": i})
        return samples

    def _name(self, i: int) -> str:
        return f"scene {self.split}/{i}"

    @cached_property
    def _members(self) -> list[tuple[frozenset, frozenset]]:
        """For every scene: the shapes that could make what is heard in it, and the shapes that are seen."""
        members = []
        for i in range(self.size):
            classes, shapes = generate_members(self.config, self.scene_index(i))
            heard = frozenset().union(*(COMPATIBLE_SHAPES[CLASS_TIMBRE[c]] for c in classes))
            members.append((heard, frozenset(shapes.tolist())))
        return members

    def _fits(self, i: int, j: int) -> bool:
        """Whether nothing seen in scene i could make what is heard in j; for mixtures, also the other way round."""
        (heard_here, seen_here), (heard_there, seen_there) = self._members[i], self._members[j]
        return not (heard_there & seen_here or (self.task == "separation" and heard_here & seen_there))

    def _partner(self, i: int, epoch: int, low: int = 0) -> int | None:
        """A scene that fits to scene i, of index `low` or above, or None; evaluation's are the same for every seed."""
        generator = sample_generator(_PARTNER_STREAM + (self.seed if self.train else 0), epoch, i)
        for _ in range(_PARTNER_TRIALS):
            j = int(torch.randint(low, self.size, (), generator=generator))
            if j != i and self._fits(i, j):
                return j
        return None

    def _mixture_partner(self, i: int, epoch: int, low: int = 0) -> int:
        partner = self._partner(i, epoch, low)
        if partner is None:
            raise ValueError(
                f"{self.card}: no sound fits beside {self._name(i)}: expected more scenes, or fewer objects"
            )
        return partner


def boxes_of(classes_seen: torch.Tensor) -> torch.Tensor:
    """(H, W) with c + 1 where class c sounds -> (H, W) float, 1 within the tight box of each class, else 0."""
    result = torch.zeros_like(classes_seen, dtype=torch.float32)
    for value in classes_seen.unique().tolist():
        if value:
            rows, columns = (classes_seen == value).nonzero().T
            result[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
    return result
