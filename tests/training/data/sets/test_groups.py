"""Groups and orders of millions of clips: those of earlier versions, without a Python object for each clip."""

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset

from deepavfusion.processors import DeepAVFusionProcessor
from deepavfusion.training.data.mixtures import MixtureClips
from deepavfusion.training.data.random import Stream, generator
from deepavfusion.training.data.sets import groups as groups_file
from deepavfusion.training.data.sets.folder import divide, hold_out, make_rows, order_by_name
from deepavfusion.training.data.sets.groups import arrow_column, group, label_arrays, labels_of, name_order

from ..disk import MODEL


def earlier_order(paths):
    """The order by names, from its definition."""
    keys = [
        hashlib.sha256("/".join(Path(path).parts[-2:]).encode("utf-8", "surrogateescape")).digest() for path in paths
    ]
    return sorted(range(len(keys)), key=lambda i: (keys[i], i))


def earlier_hold_out(groups, fraction, held_out, classes=None):
    """The choice of earlier versions, on which trained models depend, in sets and lists."""
    names = sorted(set(groups))
    labels = {names[i]: set() for i in earlier_order(names)}
    for name, found in zip(groups, classes if classes is not None else [()] * len(groups), strict=True):
        labels[name].update(found)
    members = {}
    for name, found in labels.items():
        for label in found or {None}:
            members.setdefault(label, []).append(name)
    left, chosen = {label: len(found) for label, found in members.items()}, set()
    for label in sorted(members, key=lambda label: (len(members[label]), label is None, label or 0)):
        total = len(members[label])
        for name in members[label]:
            own = labels[name] or {None}
            if total - left[label] >= max(1, round(fraction * total)):
                break
            if name not in chosen and all(left[other] > 1 for other in own):
                chosen.add(name)
                for other in own:
                    left[other] -= 1
    return [i for i, name in enumerate(groups) if (name in chosen) == held_out]


ODD = ["a", "/a", "a/b", "/a/b", "x/a//b", "x/./b", "x/b/", "a\udce9/b", "../b", "x/../b", "é/ü", "//b", "c/a/b", "./b"]
ODD += ["", "/", "..", "a/..", "///a", "//a/b", "/c/b/a/", "c/b/./a"]


def test_the_order_by_name_is_the_earlier_one(monkeypatch):
    assert order_by_name(ODD * 2) == earlier_order(ODD * 2)
    monkeypatch.setattr(groups_file, "_AT_ONCE", 7)
    names = [f"/videos/{i % 5}/{i}.mp4" for i in range(100)] + [f"/elsewhere/videos/{i % 5}/{i}.mp4" for i in range(9)]
    assert order_by_name(names) == earlier_order(names)
    assert name_order(pa.chunked_array([names[:50], names[50:]])).tolist() == earlier_order(names)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("seed", range(8))
def test_held_out_clips_are_the_earlier_ones(seed, fraction):
    random = np.random.default_rng(seed)
    number = int(random.integers(2, 200))
    # Some recordings have the same last two parts.
    groups = [f"{'xyz'[random.integers(3)]}/{random.integers(4)}/{random.integers(20)}" for _ in range(number)]
    several = [random.integers(0, 6, random.integers(0, 3)).tolist() for _ in range(number)]
    for classes in (None, several, [[row[0]] if row else [5] for row in several]):
        for held_out in (True, False):
            expected = earlier_hold_out(groups, fraction, held_out, classes)
            assert hold_out(groups, fraction, held_out, classes) == expected
            arrow = group(pa.chunked_array([groups[: number // 2], groups[number // 2 :]]))
            labels = None if classes is None else labels_of(classes)
            assert hold_out(arrow, fraction, held_out, labels) == expected


@pytest.mark.parametrize("several", [True, False])
def test_labels_are_those_of_the_rows(several):
    names = [["b", "a", "b"], ["c"], [], ["a", "c"]] if several else ["b", "c", "a", "a"]
    rows = make_rows([{"path": f"{i}", "label": name} for i, name in enumerate(names)], ["a", "b", "c"])
    for part in (rows, rows.select([3, 0]), rows.select(range(1, 3))):
        listed = [label if several else [label] for label in part["label"][:]]
        found = label_arrays(part)
        assert list(zip(*map(np.ndarray.tolist, found), strict=True)) == [
            (i, label) for i, row in enumerate(listed) for label in sorted(set(row))
        ]


def test_partners_in_mixtures_are_the_earlier_ones():
    paths = [f"/v/{i % 3}/{i}.mp4" for i in range(12)]
    recordings = [f"r{i // 5}" for i in range(12)]
    rows = make_rows([{"path": path} for path in paths])
    clips = MixtureClips(rows, DeepAVFusionProcessor.from_config(MODEL), True, 3, 9, groups=recordings)
    kept = sorted(earlier_order(paths)[:9])
    assert clips.rows["path"][:] == [paths[i] for i in kept]
    own = [recordings[i] for i in kept]
    for i in range(len(clips)):
        draws = generator(3, Stream.MIXTURE_PARTNERS, 0, i)
        other = i
        while own[other] == own[i]:
            other = int(torch.randint(len(own), (), generator=draws))
        assert clips.sources(i) == (i, other)


def large(number: int) -> Dataset:
    """Rows without splits, each a recording of its own."""
    columns = {
        "path": pa.array([f"videos/{i % 300}/{i:011d}.mp4" for i in range(number)]),
        "recording": pa.array([f"{i:011d}" for i in range(number)]),
        "split": pa.nulls(number, pa.string()),
        "label": pa.array(np.arange(number) % 300),
    }
    return Dataset(pa.table(columns)).cast_column("label", ClassLabel(num_classes=300))


def test_millions_of_clips_take_no_objects(monkeypatch):
    """A set of classes for each recording, and the recording's name in lists, would take 400 bytes."""
    monkeypatch.setattr(groups_file, "_AT_ONCE", 500)
    number, processor = 20_000, DeepAVFusionProcessor.from_config(MODEL)

    def open_clips(rows):
        train, note = divide(rows, "train", 0.1, "videos")
        return MixtureClips(train, processor, True, 0, groups=arrow_column(train, "recording")), note

    open_clips(large(600))  # what is imported meanwhile does not count
    rows = large(number)
    tracemalloc.start()
    try:
        clips, note = open_clips(rows)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert note == "2100 of 20,000 clips held out by class"
    assert len(clips) == 17_900
    assert kept < 40 * number
    assert peak < 200 * number
