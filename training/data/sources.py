"""The data sets on disk, by name: tasks, options, and the clips of a split.

The validation split exists where the data set has one (AVSBench) or with `validation_fraction`. It is then taken out of
the training clips, or, where these have no annotations (VGG-SS, Flickr-SoundNet trained without boxes), out of the test
clips. Which clips it holds depends on a hash of their names, and parts of one video stay together.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepavfusion_cli.early.data import (
    AUDIOSET_SUBSETS,
    AUDIOSET_TEST,
    SUBSETS,
    TRAIN_LIST,
    check_subset,
    vggsound_music_list,
    vggss_json,
)

from ..wording import count
from .clips import ClipDataset
from .files import FileClips
from .frames import Stills
from .identity.unseen import without_training_clips
from .mixtures import MixtureClips
from .sets.boxes.is3 import build_is3
from .sets.folder import HELD_OUT, divide, read_folder
from .sets.groups import Groups, arrow_column, group
from .sets.lists import ImageAudioPair, read_list, read_test_pairs, report_overlap
from .sets.names import published_name, youtube_id
from .sets.requests import Request, held_out
from .stills import BoxClips, MaskClips

_LISTS = {"train_list", "test_list", "drop_overlap"}
_LISTING = "checked_list"
WINDOWS = frozenset({"temporal_jitter", "windows_per_clip", "seconds_per_window"})


def with_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """Section `data` of a recipe with the part that is taken by default, for data sets of several parts."""
    name = options["name"]
    return {"subset": SUBSETS[name], **options} if name in SUBSETS else dict(options)


class Videos(NamedTuple):
    """Clips of a split."""

    rows: Any
    """A `datasets.Dataset` of `make_rows`."""
    note: str = ""
    """A note for the card."""
    groups: Groups | None = None
    """Groups of the rows; parts of one recording form a group."""
    pairs: list[tuple[int, int]] | None = None
    """Positions in `rows` of pairs to mix."""


def _select(videos: Videos, chosen: Sequence[int] | np.ndarray) -> Videos:
    if len(chosen) == len(videos.rows):
        return videos
    groups = videos.groups
    if isinstance(groups, Groups):
        groups = groups._replace(numbers=groups.numbers[chosen])
    return videos._replace(rows=videos.rows.select(chosen), groups=groups)


def _folder(request: Request) -> Videos:
    rows = read_folder(request.path, request.get("annotations"), bool(request.get("allow_outside")))
    rows, note = divide(rows, request.split, request.get("validation_fraction", HELD_OUT), str(request.path))
    return Videos(rows, note, _recordings(rows))


def _recordings(rows) -> Groups:
    return group(arrow_column(rows, "recording"))


def _vggsound(request: Request) -> Videos:
    from .sets.vggsound import read_vggsound

    side = "test" if request.split == "test" else "train"
    listed = request.get(f"{side}_list")
    rows = read_vggsound(request.path, side if listed is None else None, request.get("annotations"))
    keys, note = rows["clip"][:], ""
    if listed is not None:
        names = {published_name(entry.key) for entry in read_list(listed)}
        chosen = [i for i, key in enumerate(keys) if key in names]
        if not chosen:
            raise ValueError(
                f"{listed} names {count(len(names), 'clip')}, none of which is among VGGSound's "
                f"{count(len(keys), 'clip')} on disk."
            )
        rows, keys, note = rows.select(chosen), [keys[i] for i in chosen], f"of {Path(listed).name}"
    if side == "train":
        test_list = request.get("test_list")
        test = {published_name(entry.key) for entry in read_list(test_list)} if test_list else set()
        test.update(key for key, split in zip(keys, rows["split"][:], strict=True) if split == "test")
        chosen, overlap = report_overlap("VGGSound", keys, test, bool(request.get("drop_overlap")))
        rows = rows.select(chosen)
        note = ", ".join(part for part in (note, overlap) if part)
    groups = _recordings(rows)
    videos = Videos(rows, note, groups)
    return _select(videos, held_out(groups, request, side == "train"))


def _audioset(request: Request) -> Videos:
    from .sets.audioset import read_audioset

    test, subset = request.split == "test", request.get("subset")
    check_subset("audioset", subset)
    rows = read_audioset(request.path, (AUDIOSET_TEST,) if test else AUDIOSET_SUBSETS[subset])
    groups = _recordings(rows)
    note = "" if test or subset == "all" else f"{subset} subset"
    return _select(Videos(rows, note, groups), held_out(groups, request, not test))


def _music(request: Request) -> Videos:
    from .sets.music import read_music

    side, subset = "test" if request.split == "test" else "train", request.get("subset")
    rows = read_music(request.path, subset, side)
    groups = _recordings(rows)
    return _select(Videos(rows, f"subset {subset}", groups), held_out(groups, request, side == "train"))


def _vggsound_music(request: Request) -> Videos:
    from .sets import vggsound_music as music

    if request.split == "test":
        names = None
        if request.task == "recognition":  # the classes of training
            listed = vggsound_music_list(request.path, request.get("train_list"), TRAIN_LIST)
            names = sorted(set(music.read_instruments(listed).values()))
        rows, pairs = music.read_evaluation_pairs(request.path, request.get("test_list"), names)
        return Videos(rows, pairs=pairs)
    training = music.read_training_clips(request.path, request.get("train_list"))
    keys = training["clip"][:]
    drop = bool(request.get("drop_overlap"))
    tests = music.read_test_keys(request.path, request.get("annotations"), request.get("test_list"), drop)
    chosen, note = report_overlap("VGGSound-Music", keys, tests, drop)
    videos = _select(Videos(training, note, _recordings(training)), chosen)
    return _select(videos, held_out(videos.groups, request, True))


def _checked(request: Request) -> Videos:
    from .checked.source import read_checked

    fraction = request.get("validation_fraction", HELD_OUT if request.options["name"] == "folder" else None)
    found = read_checked(request.get(_LISTING), request.options, request.split, fraction)
    rows, note, groups, pairs, divided = found
    videos = Videos(rows, note, groups, pairs)
    return _select(videos, held_out(groups, request, True)) if divided else videos


_VIDEOS: dict[str, Callable[[Request], Videos]] = {
    "folder": _folder,
    "vggsound": _vggsound,
    "audioset": _audioset,
    "music": _music,
    "vggsound_music": _vggsound_music,
}


def _build_videos(request: Request) -> ClipDataset:
    name = request.options["name"]
    videos = (_checked if request.get(_LISTING) else _VIDEOS[name])(request)
    title, unseen = f"{name}, split {request.split}", ""
    if videos.pairs is None:
        chosen, unseen = without_training_clips(videos.rows, f"{title} of {request.path}")
        videos = _select(videos, chosen)
    title = ", ".join(filter(None, (title, videos.note, unseen)))
    common = {"train": request.train, "seed": request.seed, "size": request.size, "name": title}
    common |= {key: request.options[key] for key in WINDOWS & request.options.keys()}
    if request.task == "recognition":
        clips = FileClips(videos.rows, request.processor, **common)
        clips.pairs = videos.pairs
        return clips
    return MixtureClips(videos.rows, request.processor, **common, pairs=videos.pairs, groups=videos.groups)


def _checked_stills(request: Request) -> tuple[Stills, str, list[str] | None]:
    from .checked.source import read_checked_stills

    def divide(groups: Any, divided: bool) -> np.ndarray:
        return held_out(groups, request, divided)

    return read_checked_stills(request.get(_LISTING), request.options, request.split, divide)


def _build_masks(request: Request) -> ClipDataset:
    from .sets.avsbench import read_avsbench

    subset = request.get("subset")
    frames = request.get(f"{request.split}_list")
    if request.get(_LISTING):
        rows, _, names = _checked_stills(request)
    else:
        rows, names = read_avsbench(request.path, subset, request.split, frames)
    if request.semantic and names is None:
        raise ValueError(
            f"task.semantic needs AVSBench with metadata.csv; {request.path} is the older release, without classes."
        )
    title = f"avsbench {subset}, split {request.split}"
    common = (rows, request.processor, request.train, request.seed, request.size, title)
    jitter = request.get("temporal_jitter", True)
    own = names if request.semantic else None
    clips = MaskClips(*common, label_names=own, task=request.task, temporal_jitter=jitter)
    clips.mask_classes = names
    return clips


def _build_boxes(request: Request) -> ClipDataset:
    from .sets import vggsound
    from .sets.boxes import flickr_soundnet, vggss

    name, root, split = request.options["name"], request.path, request.split
    flickr = name == "flickr_soundnet"
    required = flickr_soundnet.REQUIRED_BOXES if flickr else 1
    jitter = request.get("temporal_jitter", True)
    if request.get(_LISTING):
        rows, note, _ = _checked_stills(request)
        common = (rows, request.processor, request.train, request.seed, request.size)
        title = ", ".join(filter(None, (f"{name}, split {split}", note)))
        return BoxClips(*common, title, required_boxes=required, temporal_jitter=jitter)
    if name == "is3":
        return build_is3(request)
    if flickr:
        boxes = flickr_soundnet.read_annotations(root)
        sources = {key: key for key in boxes}
    else:
        annotations = vggss_json(root, request.get("annotations"))
        boxes, sources = vggss.read_vggss(annotations), vggss.read_classes(annotations)
    listed = request.get("test_list")
    tests = [ImageAudioPair(key, key, False) for key in boxes] if listed is None else read_test_pairs(listed)
    training = [entry.key for entry in read_list(request.get("train_list"))] if request.get("train_list") else []
    labeled = bool(training) and all(key in boxes for key in training)
    title = f"{name}, split {split}"
    if split == "train" or (split == "validation" and labeled):
        if not training:
            raise ValueError(
                f"Dataset {name!r} has boxes of test clips only; set data.train_list to a list of training clips."
            )
        test_keys = {pair.image for pair in tests} | (set() if flickr else vggsound.find_test_keys(root))
        chosen, note = report_overlap(name, training, test_keys, bool(request.get("drop_overlap")))
        pairs = [ImageAudioPair(training[i], training[i], False) for i in chosen]
        boxes, title = boxes if labeled else None, f"{title}, {note}" if note else title
    else:
        pairs = tests
    groups = [pair.image if flickr else youtube_id(pair.image) for pair in pairs]
    chosen = held_out(groups, request, labeled == (pairs is not tests))
    keys = {key for pair in pairs for key in (pair.image, pair.audio)}
    find = vggss.locator(root, None if flickr else vggss.TIMESTAMP, keys)
    recordings = {pair.image: group for pair, group in zip(pairs, groups, strict=True)}
    rows = vggss.make_stills(title, [pairs[i] for i in chosen], find, boxes, sources, recordings)
    common = (rows, request.processor, request.train, request.seed, request.size, title)
    return BoxClips(*common, required_boxes=required, temporal_jitter=jitter)


def _build_shards(request: Request) -> ClipDataset:
    from .shards.source import build_shards

    return build_shards(request, lambda groups, divided: held_out(groups, request, divided))


class DataSet(NamedTuple):
    """A data set on disk: the tasks it supports, its options besides `path` and sizes, and how to build its clips."""

    tasks: tuple[str, ...]
    options: frozenset[str]
    build: Callable[[Request], ClipDataset]


_LABELS, _MAPS = ("recognition", "separation"), ("segmentation", "localization")
_HELD_OUT, _FRAMES = frozenset({"validation_fraction"}), frozenset({"temporal_jitter", _LISTING})
_CHECKED = _HELD_OUT | {_LISTING}
DATA_SETS = {
    "folder": DataSet(_LABELS, _CHECKED | {"annotations", "allow_outside"} | WINDOWS, _build_videos),
    "vggsound": DataSet(_LABELS, _CHECKED | {"annotations"} | _LISTS | WINDOWS, _build_videos),
    "audioset": DataSet(("recognition",), _CHECKED | {"subset"} | WINDOWS, _build_videos),
    "music": DataSet(_LABELS, _CHECKED | {"subset"} | WINDOWS, _build_videos),
    "vggsound_music": DataSet(_LABELS, _CHECKED | {"annotations"} | _LISTS | WINDOWS, _build_videos),
    "shards": DataSet(
        (*_LABELS, *_MAPS),
        _HELD_OUT | {"cache_dir", "cache_gb", "subset", "annotations"} | _LISTS | WINDOWS,
        _build_shards,
    ),
    "avsbench": DataSet(_MAPS, _FRAMES | {"subset", "train_list", "test_list"}, _build_masks),
    "vggss": DataSet(("localization",), _HELD_OUT | {"annotations"} | _LISTS | _FRAMES, _build_boxes),
    "flickr_soundnet": DataSet(("localization",), _HELD_OUT | _LISTS | _FRAMES, _build_boxes),
    "is3": DataSet(("localization",), frozenset({"annotations", _LISTING}), _build_boxes),
}
