"""Frames in a prepared data set are read from its index: they are those of a list, without an object for each."""

import tracemalloc

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data.frames import Still, Stills
from deepavfusion.training.data.random import Stream, generator
from deepavfusion.training.data.sets.folder import order_by_name
from deepavfusion.training.data.shards import source
from deepavfusion.training.data.shards.source import ShardFrames
from deepavfusion.training.data.shards.stills import stills_of
from deepavfusion.training.data.stills import BoxClips, MaskClips

from ..disk import MODEL

PROCESSOR = DeepAVFusionProcessor.from_config(MODEL)
BOXES = [[[0.0, 0.0, 0.5, 0.5]], [], [[0.1, 0.1, 0.2, 0.2], [0.3, 0.3, 0.9, 0.9]]]


def index(number: int, frames: int = 3, boxes: bool = True) -> Dataset:
    """Rows of clips with up to so many frames each; the audio of every fifth is that of the first."""
    text, value = Value("string"), Value("float64")
    kinds = {"image": text, "mask": text, "timestamp": value, "boxes": List(List(value)), "name": text}
    kinds |= {"scene": text, "source": text, "visible": List(text)}
    features = {"path": text, "recording": text, **{name: List(kind) for name, kind in kinds.items()}}
    rows: dict[str, list] = {name: [] for name in features}
    for i in range(number):
        own = range(1 + i % frames)
        rows["path"].append(f"set/{0 if i % 5 == 0 else i}.wav")
        rows["recording"].append(f"video{i // 2}")
        rows["image"].append([f"set/{i}/{k}.jpg" for k in own])
        rows["mask"].append([None if boxes else f"set/{i}/{k}.png" for k in own])
        rows["timestamp"].append([k + 0.5 for k in own])
        rows["boxes"].append([BOXES[(i + k) % 3] if boxes else None for k in own])
        rows["name"].append([f"set/{i}/{k}.jpg" for k in own])
        rows["scene"].append([f"scene{i}" for _ in own])
        rows["source"].append([f"class{i % 4}" for _ in own])
        rows["visible"].append([[f"class{i % 4}"] for _ in own])
    return Dataset.from_dict(rows, features=Features(features))


def listed(rows: Dataset) -> list[Still]:
    return [still for i, row in enumerate(rows) for still in stills_of(row, i)]


def same(found: Stills, expected: list[Still]) -> None:
    """The same frames, and the same of all of them at once."""
    other = Stills(expected)
    assert [found[i] for i in range(len(found))] == list(found) == expected
    assert [str(name) for name in found.names()] == other.names()
    assert found.num_boxes().tolist() == other.num_boxes().tolist()
    for field in ("audio", "recording"):
        groups, given = found.groups(field), other.groups(field)
        assert sorted(map(str, groups.names)) == sorted(given.names)
        names = [str(groups.names[int(number)]) for number in groups.numbers]
        assert names == [getattr(row, field) for row in expected]


@pytest.mark.parametrize("boxes", [True, False])
def test_frames_of_an_index_are_those_of_a_list(boxes, monkeypatch):
    monkeypatch.setattr(source, "_AT_ONCE", 7)
    rows = index(23, boxes=boxes)
    frames, expected = ShardFrames(rows), listed(rows)
    same(frames, expected)
    places = np.random.default_rng(0).permutation(len(expected))[:20]
    for chosen in (places, np.sort(places), np.arange(5, 12)):
        same(frames.select(chosen), [expected[i] for i in chosen])
        same(frames.select(chosen).select(np.arange(3, 6)), [expected[i] for i in chosen[3:6]])
    own = np.arange(23) % 3 == 1
    same(frames.of_rows(own), [still for still in expected if own[still.place[0]]])
    assert len(frames.of_rows(np.zeros(23, bool))) == 0


def drawn(frames: list[Still], epoch: int, i: int) -> Still:
    """The frame of an item in an epoch, of seed 0."""
    draws = generator(0, Stream.LABELED_FRAMES, epoch, i)
    return frames[0] if len(frames) == 1 else frames[int(torch.randint(len(frames), (), generator=draws))]


@pytest.mark.parametrize("size", [None, 1, 6])
@pytest.mark.parametrize("train", [True, False])
def test_items_are_the_earlier_ones(train, size):
    """Clips with all of their frames in training, in the order of their first ones; the first `size` by name."""
    rows = index(23, boxes=False)
    items: dict[object, list[Still]] = {}
    for i, row in enumerate(listed(rows)):
        items.setdefault(row.audio if train else i, []).append(row)
    expected = list(items.values())
    if size is not None:
        expected = [expected[i] for i in sorted(order_by_name(frames[0].image for frames in expected)[:size])]
    for given in (ShardFrames(rows), listed(rows)):
        clips = MaskClips(given, PROCESSOR, train, 0, size)
        assert len(clips) == len(expected)
        assert list(clips.rows) == sum(expected, [])
        for epoch in range(3):
            clips.set_epoch(epoch)
            assert [clips.frame(i) for i in range(len(clips))] == [
                drawn(row, epoch, i) for i, row in enumerate(expected)
            ]
        assert clips.annotations()["image"][:] == [clips.frame(i).image for i in range(len(clips))]


def test_boxes_and_sounds_of_others_are_those_of_a_list():
    rows = index(23)
    found, expected = (BoxClips(given, PROCESSOR, False, 0, 30) for given in (ShardFrames(rows), listed(rows)))
    assert found.card == expected.card
    assert "of them without a visible sounding object" in found.card
    assert list(found.rows) == list(expected.rows)
    others = [found.offscreen(i) for i in range(30)]
    assert others == [expected.offscreen(i) for i in range(30)]
    assert all(found.rows[other].source not in found.rows[i].visible for i, other in enumerate(others))
    with pytest.raises(ValueError, match=r"45 of 45 frames have no annotation, first: set/0/0\.jpg"):
        BoxClips(ShardFrames(index(23, boxes=False)), PROCESSOR, False, 0)


def test_frames_take_no_objects():
    """As objects, with their boxes, they would take more than 1,000 bytes each."""
    rows = index(20_000, frames=1)
    tracemalloc.start()
    try:
        clips = BoxClips(ShardFrames(rows), PROCESSOR, False, 0)
        masks = MaskClips(ShardFrames(rows), PROCESSOR, True, 0)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(clips) == 20_000
    assert len(masks) == 16_001
    assert kept < 150 * 20_000
    assert peak < 400 * 20_000
