"""Frames with a map of their sounding objects: masks (segmentation) and boxes (localization), as model inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..wording import count
from .clips import ClipDataset, ClipMedia
from .files import training_window
from .frames import Still, StillFiles, Stills, name_of
from .random import Stream, generator
from .sets.groups import name_order
from .views import View, evaluation_view, training_view

# Largest shift of the audio's window against the frame in training, as a fraction of the window's length.
_MAX_SHIFT = 0.33


class StillClips(ClipDataset):
    """Base class of `MaskClips` and `BoxClips`.

    Samples hold `pixel_values` (3, H, W), `input_features` (1, mels, frames), `index`, `path`, and, where `target`
    returns one, `labels` (H, W) in the model's view; with `has_sounding` also `sounding`, 0 where the map is empty.

    In training, samples are augmented with `ClipAugmentation`, drawn from (seed, epoch, index): a random resized crop
    and a flip, the same for the map, and a random volume. With `temporal_jitter`, the window of the audio is shifted by
    up to a third of its length; of videos without annotations, a random window and frame are drawn.

    Args:
        rows: The frames, or `Stills`.
        processor: A `DeepAVFusionProcessor` of the model's sizes.
        train: Whether to augment.
        seed: Seed of the augmentations.
        size: Maximum number of items: the first in `order_by_name`. None takes all.
        name: Name of the dataset in its card.
        temporal_jitter: Whether training draws frames and windows; otherwise every frame is an item, as in evaluation.
        reader: What reads frames, audio and masks; by default, a `StillFiles`.

    Raises:
        ValueError: No rows, or a model of videos.
    """

    has_sounding = False
    draws_frames = False

    def __init__(
        self,
        rows: Sequence[Still],
        processor,
        train: bool,
        seed: int,
        size: int | None,
        name: str,
        temporal_jitter: bool = True,
        reader: Any = None,
    ):
        from .augmentation import ClipAugmentation

        super().__init__(seed)
        self.reader = reader or StillFiles()
        if not rows:
            raise ValueError(f"Expected at least one frame in {name}, got none.")
        if processor.video_processor is not None:
            raise ValueError(
                f"{name} holds single frames: expected a model with num_frames=1, got {processor.num_frames}."
            )
        self.jitter = train and temporal_jitter
        # The frames of item i are `rows` from starts[i] to starts[i + 1].
        self.rows, self.starts = rows if isinstance(rows, Stills) else Stills(rows), np.arange(len(rows) + 1)
        if self.jitter and self.draws_frames:
            order, self.starts = _by_first(self.rows.groups("audio").numbers)
            self.rows = self.rows.select(order)
        if size is not None and size < len(self):
            chosen = np.sort(name_order(self.rows.select(self.starts[:-1]).names())[:size])
            lengths = np.diff(self.starts)
            kept = np.isin(np.repeat(np.arange(len(lengths)), lengths), chosen)
            self.rows = self.rows.select(np.flatnonzero(kept))
            self.starts = np.append(0, np.cumsum(lengths[chosen]))
        self.processor, self.train = processor, train
        self.augmentation = ClipAugmentation(processor.visual_processor)
        self.card = f"{name}: {count(len(self.rows), 'frame')}"
        if len(self) < len(self.rows):
            self.card += f" of {count(len(self), 'clip')}"

    def __len__(self) -> int:
        return len(self.starts) - 1

    def frame(self, i: int) -> Still:
        """The frame of item i in this epoch."""
        start, stop = (int(place) for place in self.starts[int(i) : int(i) + 2])
        if stop - start == 1:
            return self.rows[start]
        draws = generator(self.seed, Stream.LABELED_FRAMES, self.epoch, int(i))
        return self.rows[start + int(torch.randint(stop - start, (), generator=draws))]

    def describe(self, i: int) -> str:
        """The name of item i's frame."""
        return name_of(self.frame(i))

    def annotations(self):
        """The items as a `datasets.Dataset` with `path`, `image`, `audio`, `timestamp`, `mask` and `boxes`."""
        from datasets import Dataset, Features, List, Value

        text, number = Value("string"), Value("float64")
        features = {"path": text, "image": text, "audio": text, "timestamp": number, "mask": text}
        features["boxes"] = List(List(number))
        rows = list(self.rows) if len(self) == len(self.rows) else [self.frame(i) for i in range(len(self))]
        columns = {name: [getattr(row, name) for row in rows] for name in features if name != "path"}
        columns["path"] = [name_of(row) for row in rows]
        return Dataset.from_dict({name: columns[name] for name in features}, features=Features(features))

    def target(self, row: Still, view: View, shape: tuple[int, int]) -> torch.Tensor | None:
        """The map of a frame of `shape` (height, width) in the model's view, (H, W); None where there is none."""
        raise NotImplementedError

    def read(self, i: int) -> dict:
        """The inputs of item i and its map."""
        row, visual = self.frame(i), self.processor.visual_processor
        window, seconds = self._window(row, i), self.processor.feature_extractor.seconds
        image, waveform, rate = self.reader.load(row, window, seconds)
        if self.train:
            draws, same = (generator(self.seed, Stream.AUGMENTATION, self.epoch, i) for _ in range(2))
            view = training_view(self.augmentation, *image.shape[:2], same)
            pixels = self.augmentation.frames(image[None], draws)[0]
            waveform = self.augmentation.waveform(waveform, draws)
        else:
            view = evaluation_view(visual, *image.shape[:2])
            pixels = visual.transform(torch.from_numpy(image).permute(2, 0, 1))
        features = self.processor.feature_extractor([waveform], sampling_rate=rate)["input_features"][0]
        sample = {"pixel_values": pixels, "input_features": features}
        labels = self.target(row, view, image.shape[:2])
        if labels is not None:
            sample["labels"] = labels
            if self.has_sounding:
                sample["sounding"] = int(bool(labels.any()))
        return sample

    def media(self, i: int) -> ClipMedia:
        """The whole frame and the audio of item i."""
        row = self.frame(i)
        window, seconds = self._window(row, i), self.processor.feature_extractor.seconds
        image, waveform, rate = self.reader.load(row, window, seconds)
        return ClipMedia(image, waveform.mean(0), rate)

    def _window(self, row: Still, i: int):
        """Timestamp of the audio's window and, if the frame is from the same file, of the frame, for `load_clip`."""
        if not self.jitter and row.image == row.audio:
            return row.timestamp
        seconds, shift = self.processor.feature_extractor.seconds, 0.0
        if self.jitter:
            draws = generator(self.seed, Stream.WINDOWS, self.epoch, i, 0)
            if row.mask is None and row.boxes is None and row.image == row.audio:
                return training_window(draws, seconds)
            shift = _MAX_SHIFT * seconds * (2 * torch.rand((), generator=draws, dtype=torch.float64).item() - 1)

        def place(info) -> tuple[float, float]:
            frame = sum(info.span) / 2 if row.timestamp is None else row.timestamp
            # Audio is often a little shorter than its frames suggest.
            last = info.end if row.image != row.audio else max(info.end, frame)
            return min(max(frame + shift, 0.0), last), frame

        return place


def _by_first(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order of rows by groups, in that of the first row of each, and where each of these starts and the last one ends.

    Args:
        numbers: (N,) group of each row.
    """
    _, first, own, lengths = np.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
    groups = np.argsort(first)
    rank = np.empty(len(groups), np.int64)
    rank[groups] = np.arange(len(groups))
    return np.argsort(rank[own], kind="stable"), np.append(0, np.cumsum(lengths[groups]))


class MaskClips(StillClips):
    """Frames with masks of their sounding objects, drawn on the frames as they are shown or stored.

    `labels` is float, 1 in the foreground and 0 in the background; with `label_names`, long class indices (the mask's
    pixel values; 255 is ignored). In training with `temporal_jitter`, an item is a clip, of which one frame is drawn in
    every epoch, as in the published training. For localization, which has no classes, evaluation samples also hold
    `sounding`.

    Args:
        rows: Frames with `mask`.
        processor, train, seed, size, name, temporal_jitter, reader: See [`StillClips`].
        label_names: Names of the classes by pixel value, 0 being the background; None for foreground alone.
        task: `"segmentation"` or `"localization"`.

    Attributes:
        mask_classes: Names of the masks' values, whether or not the task tells classes apart; None if they have none.
    """

    draws_frames = True

    def __init__(
        self,
        rows: Sequence[Still],
        processor,
        train: bool,
        seed: int,
        size: int | None = None,
        name: str = "masks",
        label_names: list[str] | None = None,
        task: str = "segmentation",
        temporal_jitter: bool = True,
        reader: Any = None,
    ):
        super().__init__(rows, processor, train, seed, size, name, temporal_jitter, reader)
        if task == "localization" and label_names is not None:
            raise ValueError(f"{name}: localization has no classes, got {len(label_names)} label_names.")
        self.label_names = self.mask_classes = label_names
        self.has_sounding = task == "localization" and not train
        self.card += ", foreground masks" if label_names is None else f", {len(label_names)} classes with background"

    def target(self, row: Still, view: View, shape: tuple[int, int]) -> torch.Tensor:
        """The mask of a frame in the model's view, (H, W)."""
        if self.label_names is None:
            return view.of_map(self.reader.mask(row, shape, None)).float()
        return view.of_map(self.reader.mask(row, shape, len(self.label_names))).long()


class BoxClips(StillClips):
    """Frames with boxes around their sounding objects: `labels` is the consensus map min(boxes / required_boxes, 1).

    Evaluation samples also hold `sounding`: 0 where no box lies in the model's view, either because no visible object
    sounds (negatives, which the card counts) or because the crop leaves it out. Without boxes (training without labels)
    samples hold neither. Either all rows have `boxes` or none.

    Args:
        rows: Frames with `boxes`, or, for training without labels, all without.
        processor, train, seed, size, name, temporal_jitter, reader: See [`StillClips`].
        required_boxes: Number of boxes required for consensus.
    """

    def __init__(
        self,
        rows: Sequence[Still],
        processor,
        train: bool,
        seed: int,
        size: int | None = None,
        name: str = "boxes",
        required_boxes: int = 1,
        temporal_jitter: bool = True,
        reader: Any = None,
    ):
        super().__init__(rows, processor, train, seed, size, name, temporal_jitter, reader)
        rows = rows if isinstance(rows, Stills) else Stills(rows)
        without = np.flatnonzero(rows.num_boxes() < 0)
        if len(without) and (len(without) < len(rows) or not train):
            first = name_of(rows[int(without[0])])
            raise ValueError(f"{name}: {len(without)} of {len(rows)} frames have no annotation, first: {first}.")
        self.required_boxes, self.has_sounding, self.annotated = required_boxes, not train, not len(without)
        self._order: tuple[np.ndarray, np.ndarray] | None = None  # of the items by name, and the place of each in it
        negatives = np.count_nonzero(self.rows.num_boxes() == 0)
        self.card += ", no boxes" if len(without) else f", {negatives} of them without a visible sounding object"

    def read(self, i: int) -> dict:
        """The inputs of item i and its map; in evaluation also its `scene`, where items have it."""
        scene = self.frame(i).scene
        return super().read(i) | ({"scene": scene} if scene and not self.train else {})

    def offscreen(self, i: int) -> int | None:
        """The item whose audio is taken as that of something that item i's image does not show, if there is one.

        It is the next one, in an order by names, whose source is not visible in the image.
        """
        if self._order is None:
            order = name_order(self.rows.names())
            places = np.empty_like(order)
            places[order] = np.arange(len(order))
            self._order = order, places
        order, places = self._order
        visible = set(self.rows[i].visible) - {""}
        for step in range(1, len(order) if visible else 0):
            other = int(order[(places[i] + step) % len(order)])
            source = self.rows[other].source
            if source and source not in visible:
                return other
        return None

    def target(self, row: Still, view: View, shape: tuple[int, int]) -> torch.Tensor | None:
        """The consensus map of a frame in the model's view, (H, W); None without boxes."""
        return None if row.boxes is None else view.of_boxes(row.boxes, self.required_boxes)
