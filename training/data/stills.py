"""Frames with a map of what sounds in them: masks (segmentation) and boxes (localization), as model inputs."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .clips import Clips
from .random import Stream, generator
from .sets.folder import is_video, order_by_name
from .views import Box, View, evaluation_view, read_class_map, read_mask, read_picture, training_view


class Still(NamedTuple):
    """A frame and the sound that is heard when it is seen."""

    picture: str
    """A picture file, or the clip of which it is the frame at `time`."""
    sound: str
    """A sound file, or the clip."""
    time: float | None = None
    """The middle of the window in the sound or clip, in seconds; None is the middle of the file."""
    mask: str | None = None
    """Picture file with the mask."""
    boxes: tuple[Box, ...] | None = None
    """(x1, y1, x2, y2) in shares of the picture: none where nothing in sight sounds, None where nobody looked."""
    name: str = ""
    """What to call it; the picture's path by default."""


class StillClips(Clips):
    """
    What `MaskClips` and `BoxClips` share. Samples hold `pixel_values` (3, H, W), `input_features` (1, mels, frames),
    `index`, `path`, and, where `target` gives one, `labels` (H, W) in the model's view; with `says_sounding` also
    `sounding`, 0 where the map is empty.

    Augmentations, when training, are `ClipAugmentation`'s, from (seed, epoch, index): a random resized crop and a flip,
    the same for the map, and another volume.

    Args:
        rows: The frames.
        processor: A `DeepAVFusionProcessor` of the model's sizes.
        train: Whether to augment.
        seed: Of the augmentations.
        size: How many frames at most: the first in `order_by_name`. None takes all.
        name: What to call the data set.

    Raises:
        ValueError: No rows, or a model of videos.
    """

    says_sounding = False

    def __init__(self, rows: Sequence[Still], processor, train: bool, seed: int, size: int | None, name: str):
        from .augmentation import ClipAugmentation

        super().__init__(seed)
        if not rows:
            raise ValueError(f"{name} has no frames")
        if processor.video_processor is not None:
            raise ValueError(f"{name}: its frames are single, but the model sees {processor.num_frames}: expected 1")
        if size is not None and size < len(rows):
            rows = [rows[i] for i in sorted(order_by_name(row.name or row.picture for row in rows)[:size])]
        self.rows, self.processor, self.train = list(rows), processor, train
        self.augmentation = ClipAugmentation(processor.visual_processor)
        self.card = f"{name}: {len(self.rows)} frames"

    def __len__(self) -> int:
        return len(self.rows)

    def describe(self, i: int) -> str:
        row = self.rows[int(i)]
        return row.name or row.picture

    def target(self, row: Still, view: View) -> torch.Tensor | None:
        """The map of a frame in the model's view, (H, W); None where there is none."""
        raise NotImplementedError

    def read(self, i: int) -> dict:
        row, visual = self.rows[i], self.processor.visual_processor
        picture, waveform, rate = self._media(row)
        if self.train:
            draws, again = (generator(self.seed, Stream.AUGMENTATION, self.epoch, i) for _ in range(2))
            view = training_view(self.augmentation, *picture.shape[:2], again)
            pixels = self.augmentation.pictures(picture[None], draws)[0]
            waveform = self.augmentation.sound(waveform, draws)
        else:
            view = evaluation_view(visual, *picture.shape[:2])
            pixels = visual.transform(torch.from_numpy(picture).permute(2, 0, 1))
        features = self.processor.feature_extractor(waveform, sampling_rate=rate)["input_features"][0]
        sample = {"pixel_values": pixels, "input_features": features}
        labels = self.target(row, view)
        if labels is not None:
            sample["labels"] = labels
            if self.says_sounding:
                sample["sounding"] = int(bool(labels.any()))
        return sample

    def _media(self, row: Still):
        from deepavfusion.processors import load_clip, probe_clip

        seconds = self.processor.feature_extractor.seconds
        if row.picture == row.sound:
            frames, waveform, rate = load_clip(row.picture, row.time, seconds=seconds, require="both")
            return frames[0], waveform, rate
        time = row.time
        if is_video(row.picture):
            picture = load_clip(row.picture, time, seconds=seconds, require="image").frames[0]
        else:
            picture = read_picture(row.picture)
        if time is not None:  # sounds are often a little shorter than the frames' seconds
            time = min(time, probe_clip(row.sound).end)
        sound = load_clip(row.sound, time, seconds=seconds, require="audio")
        return picture, sound.waveform, sound.sampling_rate


class MaskClips(StillClips):
    """
    Frames with masks of what sounds.

    `labels` is float, 1 in the foreground and 0 in the ground; with `label_names`, long class indices (the mask's pixel
    values; 255 is ignored). For localization (`task`), which takes no classes, evaluation samples also hold `sounding`.

    Args:
        rows: With `mask`.
        label_names: Names of the classes by pixel value, 0 being the ground; None for what sounds against the rest.
        task: `"segmentation"` or `"localization"`.

    The rest are those of [`StillClips`].
    """

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
    ):
        super().__init__(rows, processor, train, seed, size, name)
        if task == "localization" and label_names is not None:
            raise ValueError(f"{name}: localization knows no classes, got {len(label_names)}")
        self.label_names = label_names
        self.says_sounding = task == "localization" and not train
        self.card += ", what sounds" if label_names is None else f", {len(label_names)} classes with the ground"

    def target(self, row: Still, view: View) -> torch.Tensor:
        if self.label_names is None:
            return view.of_map(read_mask(row.mask)).float()
        return view.of_map(read_class_map(row.mask, len(self.label_names))).long()


class BoxClips(StillClips):
    """
    Frames with boxes around what sounds: `labels` is the consensus map min(boxes / needed, 1).

    Evaluation samples also hold `sounding`: 0 where no box lies in the model's view, be it that nothing in sight sounds
    (negatives) or that the crop leaves it out; the card counts the former. Without boxes (training without labels)
    samples hold neither. Rows must all have `boxes`, or none of them.

    Args:
        rows: With `boxes`, or, for training without labels, all without.
        needed: How many boxes make a place certain.

    The rest are those of [`StillClips`].
    """

    def __init__(
        self,
        rows: Sequence[Still],
        processor,
        train: bool,
        seed: int,
        size: int | None = None,
        name: str = "boxes",
        needed: int = 1,
    ):
        super().__init__(rows, processor, train, seed, size, name)
        without = [row for row in rows if row.boxes is None]
        if without and (len(without) < len(rows) or not train):
            first = without[0].name or without[0].picture
            raise ValueError(f"{name}: {len(without)} of {len(rows)} frames have no annotation, first: {first}")
        self.needed, self.says_sounding, self.annotated = needed, not train, not without
        negatives = sum(row.boxes == () for row in self.rows)
        self.card += ", no labels" if without else f", {negatives} of them with nothing in sight that sounds"

    def target(self, row: Still, view: View) -> torch.Tensor | None:
        return None if row.boxes is None else view.of_boxes(row.boxes, self.needed)
