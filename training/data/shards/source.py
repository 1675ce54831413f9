"""The splits of a prepared data set, for `build_dataset`."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..checked import digest
from ..clips import ClipDataset
from ..files import FileClips
from ..frames import Still, Stills
from ..identity.unseen import without_training_clips
from ..mixtures import MixtureClips
from ..sets.folder import HELD_OUT, divide
from ..sets.groups import Groups, arrow_column, equals, group
from ..stills import BoxClips, MaskClips
from .index import read_shards, rows_of_split
from .reading import ShardReader, read_about
from .stills import FRAME_COLUMNS, ShardStills, stills_of

# Options that choose clips when a data set is prepared. Later, they say what is expected.
CHOSEN = ("subset", "annotations", "train_list", "test_list", "drop_overlap")
_FILES = ("annotations", "train_list", "test_list")
_AT_ONCE = 1000  # frames that are Python objects at a time
_WINDOWS = ("windows_per_clip", "seconds_per_window")


def chosen_options(options: dict) -> dict[str, Any]:
    """The options that choose clips, as a prepared data set repeats them: of files, their names."""
    given = {key: options[key] for key in CHOSEN if options.get(key) is not None}
    return {key: Path(value).name if key in _FILES else value for key, value in given.items()}


def list_digests(options: dict) -> dict[str, str]:
    """Digests of the files among the options that choose clips, by which lists of one name are distinguished."""
    return {key: digest(options[key]) for key in _FILES if options.get(key) is not None}


def build_shards(request, held_out: Callable[[Any, bool], Any]) -> ClipDataset:
    """Build the clips of a split of a prepared data set.

    Args:
        request: The arguments of `build_dataset`, a `Request`.
        held_out: Function from the groups of clips, and whether the validation split is taken out of them, to the
            positions of the split's clips.

    Raises:
        FileNotFoundError: There is no prepared data set.
        ValueError: There are no clips of the split, or the data set was prepared for other tasks, or with other
            options.
    """
    root, cache = str(request.options["path"]), request.get("cache_dir")
    about = read_about(root, cache)
    _check(about, request, root)
    rows = read_shards(root, cache)
    size = request.processor.visual_processor.output_size if request.train else None
    reader = ShardReader(root, cache, size, request.get("cache_gb"))
    title = f"shards, split {request.split}, prepared from {about['data']}"
    build = _build_videos if about["kind"] == "videos" else _build_stills
    return build(request, about, rows, reader, title, held_out)


def _check(about: dict, request, root: str) -> None:
    """Compare the task and the options that choose clips with those of the preparation."""
    tasks = about["tasks"]
    if request.task not in tasks:
        raise ValueError(
            f"{root} was prepared from {about['data']}, which supports {' and '.join(tasks)}, not {request.task!r}."
        )
    for key, value in chosen_options(request.options).items():
        stored = about["options"].get(key, False if value is False else None)
        if value != stored:
            found = f"with data.{key}={stored}" if stored is not None else f"without data.{key}"
            raise ValueError(
                f"data.{key}={value}, but {root} was prepared from {about['data']} {found}. Prepare it with that "
                f"option, or set data.{key}=null to use the clips that are there."
            )
        known, file = about.get("digests", {}).get(key), request.options[key]
        if known is not None and Path(file).is_file() and digest(file) != known:
            raise ValueError(
                f"data.{key}={file} has changed since {root} was prepared with a file of that name. "
                f"Prepare it again, or set data.{key}=null to use the clips that are there."
            )


def choose_split(rows, split: str, fraction: float | None, root: str):
    """Choose the rows of a split of a table in which `split` is that of `build_dataset`, or null where there are none.

    Args:
        rows: The rows of all splits.
        split: `"train"`, `"validation"` or `"test"`.
        fraction: Fraction of the clips to hold out.
        root: Where the rows are from, for messages.

    Returns:
        The rows; a note for their card; and whether they are the clips of training, of which the split has still to be
        taken.

    Raises:
        ValueError: There are no clips of the split.
    """
    if None in rows.data.column("split").unique().to_pylist():
        rows, note = divide(rows, split, HELD_OUT if fraction is None else fraction, root)
        return rows, note, False
    given = rows_of_split(rows, split)
    if (split == "validation" and not len(given)) or (split == "train" and fraction is not None):
        return rows_of_split(rows, "train"), "", True
    if not len(given):
        raise ValueError(f"Expected clips of the split {split!r} in {root}, found none.")
    return given, "", False


def _build_videos(request, about: dict, rows, reader: ShardReader, title: str, held_out) -> FileClips:
    fraction = request.get("validation_fraction")
    rows, note, divided = choose_split(rows, request.split, fraction, reader.files.root)
    if divided:
        chosen = held_out(group(arrow_column(rows, "recording")), True)
        rows = rows if len(chosen) == len(rows) else rows.select(chosen)
    pairs, unseen = about.get("pairs", {}).get(request.split), ""
    if pairs is None:
        chosen, unseen = without_training_clips(rows, f"{title} at {reader.files.root}", stored=True)
        rows = rows if len(chosen) == len(rows) else rows.select(chosen)
    common = {key: request.options[key] for key in ("temporal_jitter", *_WINDOWS) if key in request.options}
    common |= {"train": request.train, "seed": request.seed, "size": request.size, "reader": reader}
    common["name"] = ", ".join(filter(None, (title, note, unseen)))
    if request.task == "recognition":
        return FileClips(rows, request.processor, **common)
    return MixtureClips(rows, request.processor, **common, pairs=pairs, groups=arrow_column(rows, "recording"))


class ShardFrames(Stills):
    """Frames of prepared clips, each read from the index when it is asked for.

    Args:
        rows: The index, mapped into memory, all frames of which are taken.
    """

    def __init__(self, rows: Any):
        super().__init__(rows)
        self._table = rows.data
        self._read = rows.select_columns(["path", "recording", *FRAME_COLUMNS])
        lengths = _lengths(self._table.column("image"))
        self._firsts = np.cumsum(lengths) - lengths  # where the frames of each row start among those of all
        self._number = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)
        self._frame = (np.arange(len(self._number)) - self._firsts[self._number]).astype(np.int32)
        self._last: tuple[int, list[Still]] = (-1, [])  # a row, and its frames

    def __len__(self) -> int:
        return len(self._number)

    def __getitem__(self, i: int) -> Still:
        number, frame = int(self._number[i]), int(self._frame[i])
        last, stills = self._last
        if number != last:
            stills = stills_of(self._read[number], number)
            self._last = number, stills
        return stills[frame]

    def __iter__(self) -> Iterator[Still]:
        for start in range(0, len(self), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            numbers = np.unique(self._number[part]).tolist()
            read = dict(zip(numbers, map(stills_of, self._read.select(numbers), numbers), strict=True))
            for number, frame in zip(self._number[part].tolist(), self._frame[part].tolist(), strict=True):
                yield read[number][frame]

    def select(self, places: np.ndarray) -> "ShardFrames":
        """The frames at some places (n,), in their order."""
        found = copy.copy(self)
        found._number, found._frame = self._number[places], self._frame[places]
        return found

    def of_rows(self, chosen: np.ndarray) -> "ShardFrames":
        """The frames of rows, given which of all rows they are, (R,) bool."""
        return self.select(np.flatnonzero(chosen[self._number]))

    def names(self) -> Any:
        """Name of each frame, as an Arrow array."""
        return _taken(_flat(self._table.column("name")), self._places())

    def groups(self, field: str) -> Groups:
        """Groups of the frames with the same `audio` or `recording`."""
        rows, own = np.unique(self._number, return_inverse=True)
        column = self._table.column("path" if field == "audio" else field)
        groups = group(_taken(column, rows))
        return groups._replace(numbers=groups.numbers[own])

    def num_boxes(self) -> np.ndarray:
        """Number of boxes of each frame, (N,); -1 where they are unknown."""
        return _lengths(_flat(self._table.column("boxes")))[self._places()]

    def _places(self) -> np.ndarray:
        """Places (N,) of the frames among those of all rows."""
        return self._firsts[self._number] + self._frame


def _flat(column: Any) -> Any:
    """The entries of the lists of an Arrow array."""
    from pyarrow import compute

    return compute.call_function("list_flatten", [column])


def _lengths(column: Any) -> np.ndarray:
    """Lengths (N,) of the lists of an Arrow array; -1 where there is none."""
    from pyarrow import compute

    return compute.call_function("list_value_length", [column]).fill_null(-1).to_numpy().astype(np.int64)


def _taken(column: Any, places: np.ndarray) -> Any:
    """Entries of an Arrow array, without a copy if they follow each other."""
    if len(places) and places[-1] - places[0] + 1 == len(places) and (np.diff(places) == 1).all():
        return column.slice(int(places[0]), len(places))
    return column.take(places)


def stills_of_split(
    stills: dict[str, Stills],
    split: str,
    boxes: bool,
    held_out: Callable[[Any, bool], Any],
    root: str,
) -> tuple[Stills, str]:
    """Choose the frames of a split.

    Args:
        stills: Frames by the split that they are given as.
        split: `"train"`, `"validation"` or `"test"`.
        boxes: Whether they have boxes: validation is then held out of the clips of training, or, where these have no
            boxes, of those of the test.
        held_out: See `build_shards`.
        root: Where they are from, for messages.

    Returns:
        The frames, and the split that they are given as.

    Raises:
        ValueError: There are none.
    """
    source, labeled = split, False
    if boxes:
        labeled = "train" in stills and stills["train"][0].boxes is not None
        source = "train" if split == "train" or (split == "validation" and labeled) else "test"
    found = stills.get(source)
    if boxes and found:
        found = found.select(held_out(found.groups("recording"), labeled == (source == "train")))
    if not found:
        raise ValueError(f"Expected frames of the split {split!r} in {root}, found none.")
    return found, source


def _build_stills(request, about: dict, rows, reader: ShardReader, title: str, held_out) -> ClipDataset:
    if given := [f"data.{key}" for key in _WINDOWS if key in request.options]:
        raise ValueError(f"{given[0]} is for videos; {reader.files.root} was prepared from {about['data']}.")
    frames, column = ShardFrames(rows), rows.data.column("split")
    stills = {name: frames.of_rows(equals(column, name)) for name in column.unique().to_pylist()}
    boxes = about["kind"] == "boxes"
    found, _ = stills_of_split(stills, request.split, boxes, held_out, reader.files.root)
    common = (found, request.processor, request.train, request.seed, request.size, title)
    more = {"temporal_jitter": request.get("temporal_jitter", True), "reader": ShardStills(reader, rows)}
    if boxes:
        return BoxClips(*common, required_boxes=about["required_boxes"], **more)
    if request.semantic and about["classes"] is None:
        raise ValueError(f"task.semantic needs masks with classes; {reader.files.root} was prepared without.")
    return MaskClips(*common, label_names=about["classes"] if request.semantic else None, task=request.task, **more)


__all__ = ["CHOSEN", "ShardFrames", "build_shards", "choose_split", "chosen_options", "list_digests", "stills_of_split"]
