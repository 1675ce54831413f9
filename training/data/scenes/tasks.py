"""Sounding scenes for the tasks that need more than a label: separation, segmentation and localization."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from ..clips import ClipMedia
from ..random import Stream, generator
from ..sets.folder import make_rows
from .clips import SceneClips, amplify, as_pixels, crop_and_flip
from .generation import generate_members, generate_scene, shape_map

SCENE_TASKS = ("separation", "segmentation", "localization")
SWAP_FRACTION = 0.8  # of the foreign audio, where a frame has silent objects: audio that one of those could make
_FULL_SCALE = 32767
_PARTNER_TRIALS = 200


class SceneTask(SceneClips):
    """A split of sounding scenes with the ground truth of a task.

    Samples hold `pixel_values`, `input_features`, `index`, `path`, and

    - separation: `labels` (1, mels, frames), the log-mel of the source that the frame shows; `input_features` is that
      of the sum of two scenes' audio. Items 2k and 2k + 1 are the two sources of pair k, each with its own frame. In
      training the pairs are drawn anew in every epoch; in evaluation they are fixed, and samples hold `waveforms`
      (2, N): target and interfering source. No object of either scene is compatible with the audio of the other, so
      the frame always determines the target.
    - segmentation: `labels` (H, W), 1.0 where a sounding object is visible, else 0.0; silent objects are background,
      and evaluation samples hold `silent_objects` (H, W) bool, where those are. With `semantic`, long class indices: 0
      is background, c + 1 sounding class c.
    - localization: `labels` (H, W), 1.0 within the tight boxes of visible sounding objects, else 0.0; in evaluation
      also `sounding`, and with `foreign_sounds` items come in pairs: 2k is a scene itself (`sounding` 1), 2k + 1 the
      same frame with the audio of another scene that no object in it can make (or, where the split has none, with
      background noise alone): `sounding` 0, `labels` all 0.

    With `foreign_sounds`, segmentation and localization are trained in pairs too: 2k is a scene itself, 2k + 1 the same
    frame with another scene's audio. Where the frame has silent objects, that audio mostly (`SWAP_FRACTION`) fits
    exactly one of them, which then is the sounding object; else it fits no visible object. So the answer depends on
    frame and audio together, and never on the frame alone.

    `in_pairs` says whether items 2k and 2k + 1 belong together, into one batch.

    Args:
        config, processor, split, size, train, seed, cache_dir, augment: See [`SceneClips`].
        task: `"separation"`, `"segmentation"` or `"localization"`.
        semantic: Whether segmentation has classes.
        foreign_sounds: Whether frames also come with the audio of other scenes, as above. Training that learns from
            whether frame and audio belong together must go without.
    """

    def __init__(
        self,
        config,
        processor,
        split,
        size,
        train,
        seed,
        cache_dir=None,
        augment=True,
        *,
        task,
        semantic=False,
        foreign_sounds=True,
    ):
        if task not in SCENE_TASKS:
            raise ValueError(f"Expected a task of {', '.join(SCENE_TASKS)}, got {task!r}.")
        if config.num_frames > 1:
            raise ValueError(f"Expected num_frames=1 for {task} on scenes, got {config.num_frames}.")
        self.task, self.semantic = task, semantic
        super().__init__(config, processor, split, size, train, seed, cache_dir, augment)
        self.card = f"{self.card}, {task}"
        self.ceilings = None
        if task == "segmentation":
            self.label_names = ["background", *self.label_names] if semantic else None
            self.multi_label = False
        self.in_pairs = task == "separation" or (foreign_sounds and (train or task == "localization"))
        if self.in_pairs and size < 2:
            raise ValueError(f"{task} uses pairs of scenes: expected a size of at least 2, got {size}.")
        self._order = (-1, [])

    def __len__(self) -> int:
        return self.size // 2 * 2 if self.in_pairs else self.size

    def _cache_key(self) -> dict:
        return {"task": "separation" if self.task == "separation" else "shapes"}

    def _layout(self) -> dict:
        layout = super()._layout()
        if self.task == "separation":
            del layout["features"]
            return layout | {"waveforms": ((self.config.num_samples,), np.int16)}
        return layout | {"shapes_seen": (self.config.size, np.int16)}

    def _generate(self, items: list[int]) -> dict[str, np.ndarray]:
        scenes = [generate_scene(self.config, self.scene_index(i)) for i in items]
        media = {
            "frames": np.stack([scene.frames for scene in scenes]),
            "classes": self._class_rows([scene.class_ids[scene.sounding] for scene in scenes]),
        }
        waveforms = [scene.waveform for scene in scenes]
        if self.task == "separation":
            # 16 bits as in a wav file, also without a cache, so that a cache changes nothing.
            rounded = np.clip(np.round(np.stack(waveforms) * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE)
            return media | {"waveforms": rounded.astype(np.int16)}
        return media | {
            "features": self._log_mels(waveforms),
            "shapes_seen": np.stack([shape_map(scene) for scene in scenes]),
        }

    def __getitems__(self, items: Sequence[int]) -> list[dict]:
        items = self._check(items)
        return self._mixtures(items) if self.task == "separation" else self._maps(items)

    def _shuffled(self) -> list[int]:
        """The scenes in this epoch's order, by which training pairs are formed."""
        if self._order[0] != self.epoch:
            draws = generator(self.seed, Stream.SCENE_PAIRS, self.epoch, 0)
            self._order = (self.epoch, torch.randperm(self.size, generator=draws).tolist())
        return self._order[1]

    def media(self, i: int) -> ClipMedia | None:
        """The audio of item i, which may be that of another scene, or background noise; None for mixtures."""
        if self.task == "separation":
            return None
        (image,), (audio,) = self._scenes([int(i)])
        if audio is not None:
            return super().media(audio)
        background = generate_scene(self.config, self.scene_index(image)).background
        return ClipMedia(None, background, self.config.sampling_rate)

    def _scenes(self, items: list[int]) -> tuple[list[int], list[int | None]]:
        """Scenes of the images, and of the audio, of items; None for background noise."""
        if not self.in_pairs:
            return items, list(items)
        images = [self._shuffled()[i // 2] if self.train else i // 2 for i in items]
        draw, epoch = (self._foreign_audio, self.epoch) if self.train else (self._partner, 0)
        return images, [draw(j, epoch) if i % 2 else j for i, j in zip(items, images, strict=True)]

    def _maps(self, items: list[int]) -> list[dict]:
        images, audio = self._scenes(items)
        media = self._media(images)
        pixels, features = as_pixels(media["frames"]), self._features(images, audio)
        maps = [self._sounding(shapes, j) for shapes, j in zip(media["shapes_seen"], audio, strict=True)]
        maps = torch.from_numpy(np.stack(maps)).float()[:, None, None]
        if self.augments:
            # Both items of a pair show the same part of the frame: they differ in the audio alone.
            draws = [self._draw(i - i % 2 if self.in_pairs else i) for i in items]
            boxes, flips = [box for box, _, _ in draws], [flip for _, flip, _ in draws]
            pixels, maps = crop_and_flip(pixels, boxes, flips), crop_and_flip(maps, boxes, flips, mode="nearest")
            features = amplify(features, [decibels for _, _, decibels in draws])
        pixels, maps = self.visual_processor.normalize(pixels)[:, 0], maps[:, 0, 0]
        samples = []
        for k, (i, here, there) in enumerate(zip(items, images, audio, strict=True)):
            sample = {"pixel_values": pixels[k], "input_features": features[k]}
            if self.task == "localization":
                sample["labels"] = boxes_of(maps[k])
                if not self.train:
                    sample["sounding"] = int(here == there)
            else:
                sample["labels"] = maps[k].long() if self.semantic else (maps[k] > 0).float()
                if not (self.train or self.semantic):
                    sample["silent_objects"] = torch.from_numpy(media["shapes_seen"][k] > 0) & (maps[k] == 0)
            path = self._name(here)
            if here != there:
                path += f" with {'background noise alone' if there is None else f'the audio of {self._name(there)}'}"
            samples.append(sample | {"path": path, "index": i})
        return samples

    def _features(self, images: list[int], audio: list[int | None]) -> torch.Tensor:
        """(B, 1, mels, frames) of the audio of scenes, or, for None, of the background noise of the image's scene."""
        features = self._media([here if there is None else there for here, there in zip(images, audio, strict=True)])
        features = torch.from_numpy(features["features"]).clone()
        for k, there in enumerate(audio):
            if there is None:
                noise = generate_scene(self.config, self.scene_index(images[k])).background
                features[k] = torch.from_numpy(self._log_mels([noise])[0])
        return features

    def _sounding(self, shapes_seen: np.ndarray, audio: int | None) -> np.ndarray:
        """(H, W), c + 1 where a visible object of class c makes the audio of a scene; all 0 for None."""
        result = np.zeros_like(shapes_seen)
        for timbre in () if audio is None else self._members[audio][0]:
            for shape in self.config.design.compatible_shapes[timbre]:
                result[shapes_seen == shape + 1] = self.config.design.class_of[shape, timbre] + 1
        return result

    def mixed_scenes(self, i: int) -> tuple[int, int]:
        """The scenes whose audio is mixed in item i of separation, target first."""
        if self.train:
            first = self._shuffled()[i // 2]
            pair = first, self._mixture_partner(first, self.epoch)
        else:
            # The partners of pairs come from the half of the split that is in no other pair.
            pair = i // 2, self._mixture_partner(i // 2, epoch=0, low=self.size // 2)
        return (pair[1], pair[0]) if i % 2 else pair

    def _mixtures(self, items: list[int]) -> list[dict]:
        pairs = [self.mixed_scenes(i) for i in items]
        target, other = (self._media([pair[k] for pair in pairs]) for k in (0, 1))
        pixels = as_pixels(target["frames"])
        waveforms = np.stack([target["waveforms"], other["waveforms"]], axis=1).astype(np.float32) / _FULL_SCALE
        waveforms = torch.from_numpy(waveforms)  # (B, 2, N)
        if self.augments:
            draws = [self._draw(i) for i in items]
            pixels = crop_and_flip(pixels, [box for box, _, _ in draws], [flip for _, flip, _ in draws])
            # Each source has its own level, the same in both samples of the pair.
            decibels = torch.tensor([(self._draw(i)[2], self._draw(i + 1 - i % 2 * 2)[2]) for i in items])
            waveforms = waveforms * 10 ** (decibels[..., None] / 20)
        pixels = self.visual_processor.normalize(pixels)[:, 0]
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

    def annotations(self):
        """The items as a `datasets.Dataset` with `path` and `split`; their scenes are drawn when they are read."""
        return make_rows([{"path": f"{self.task} {self.split}/{i}", "split": self.split} for i in range(len(self))])

    def _name(self, i: int) -> str:
        return f"scene {self.split}/{i}"

    @cached_property
    def _members(self) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """For every scene: the timbres in its audio, and the shapes of all objects."""
        members, timbre_of = [], self.config.design.class_timbre
        for i in range(self.size):
            classes, shapes = generate_members(self.config, self.scene_index(i))
            members.append((tuple(timbre_of[c] for c in classes), tuple(shapes.tolist())))
        return members

    def _makers(self, i: int, j: int) -> list[int]:
        """For each timbre in the audio of scene j, how many of the visible objects of scene i could make it."""
        shapes, compatible = self._members[i][1], self.config.design.compatible_shapes
        return [sum(shape in compatible[t] for shape in shapes) for t in self._members[j][0]]

    def _fits(self, i: int, j: int) -> bool:
        """Whether no object of scene i could make the audio of scene j; for mixtures, also the other way round."""
        return not (any(self._makers(i, j)) or (self.task == "separation" and any(self._makers(j, i))))

    def _foreign_audio(self, i: int, epoch: int) -> int | None:
        """A scene whose audio comes with the frame of scene i in training; None for background noise."""
        draws = generator(self.seed, Stream.FOREIGN_AUDIO, epoch, i)
        timbres, shapes = self._members[i]
        compatible = self.config.design.compatible_shapes
        swap = len(shapes) > len(timbres) and float(torch.rand((), generator=draws)) < SWAP_FRACTION
        for _ in range(_PARTNER_TRIALS):
            j = int(torch.randint(self.size, (), generator=draws))
            makers = self._makers(i, j)
            # As in any scene, at most one object may fit a timbre; and it should be another one.
            others = {s for t in self._members[j][0] for s in compatible[t] if s in shapes}
            own = {s for t in timbres for s in compatible[t] if s in shapes}
            if max(makers) <= 1 and (bool(others) if swap else not others) and not others & own:
                return j
        return self._partner(i, epoch)

    def _partner(self, i: int, epoch: int, low: int = 0) -> int | None:
        """A scene that `_fits` scene i, of index `low` or above, or None; in evaluation the same for every seed."""
        if self.train:
            draws = generator(self.seed, Stream.SCENE_PARTNERS, epoch, i)
        else:
            draws = generator(0, Stream.EVALUATION_PARTNERS, i)
        for _ in range(_PARTNER_TRIALS):
            j = int(torch.randint(low, self.size, (), generator=draws))
            if j != i and self._fits(i, j):
                return j
        return None

    def _mixture_partner(self, i: int, epoch: int, low: int = 0) -> int:
        partner = self._partner(i, epoch, low)
        if partner is None:
            raise ValueError(
                f"Found no scene to mix with {self._name(i)} ({self.card}); use more scenes, or fewer objects."
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
