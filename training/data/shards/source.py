"""The splits of a prepared data set, for `build_dataset`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checked import digest
from ..clips import ClipDataset
from ..files import FileClips
from ..frames import Still
from ..mixtures import MixtureClips
from ..sets.folder import HELD_OUT, divide
from ..sets.groups import arrow_column, group
from ..stills import BoxClips, MaskClips
from .index import read_shards, rows_of_split
from .reading import ShardReader, read_about
from .stills import FRAME_COLUMNS, ShardStills, stills_of

# Options that choose clips when a data set is prepared. Later, they say what is expected.
CHOSEN = ("subset", "annotations", "train_list", "test_list", "drop_overlap")
_FILES = ("annotations", "train_list", "test_list")
_WINDOWS = ("windows_per_clip", "seconds_per_window")


def chosen_options(options: dict) -> dict[str, Any]:
    """The options that choose clips, as a prepared data set repeats them: of files, their names."""
    given = {key: options[key] for key in CHOSEN if options.get(key) is not None}
    return {key: Path(value).name if key in _FILES else value for key, value in given.items()}


def list_digests(options: dict) -> dict[str, str]:
    """Digests of the files among the options that choose clips, by which lists of one name are told apart."""
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
    common = {key: request.options[key] for key in ("temporal_jitter", *_WINDOWS) if key in request.options}
    common |= {"train": request.train, "seed": request.seed, "size": request.size, "reader": reader}
    common["name"] = ", ".join(filter(None, (title, note)))
    if request.task == "recognition":
        return FileClips(rows, request.processor, **common)
    pairs = about.get("pairs", {}).get(request.split)
    return MixtureClips(rows, request.processor, **common, pairs=pairs, groups=arrow_column(rows, "recording"))


def stills_of_split(
    stills: dict[str, list[Still]],
    split: str,
    boxes: bool,
    held_out: Callable[[Any, bool], Any],
    root: str,
) -> tuple[list[Still], str]:
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
    found = stills.get(source, [])
    if boxes and found:
        found = [found[i] for i in held_out([still.recording for still in found], labeled == (source == "train"))]
    if not found:
        raise ValueError(f"Expected frames of the split {split!r} in {root}, found none.")
    return found, source


def _build_stills(request, about: dict, rows, reader: ShardReader, title: str, held_out) -> ClipDataset:
    if given := [f"data.{key}" for key in _WINDOWS if key in request.options]:
        raise ValueError(f"{given[0]} is for videos; {reader.files.root} was prepared from {about['data']}.")
    stills: dict[str, list[Still]] = {}
    for i, row in enumerate(rows.select_columns(["split", "path", "recording", *FRAME_COLUMNS])):
        stills.setdefault(row["split"], []).extend(stills_of(row, i))
    boxes = about["kind"] == "boxes"
    found, _ = stills_of_split(stills, request.split, boxes, held_out, reader.files.root)
    common = (found, request.processor, request.train, request.seed, request.size, title)
    more = {"temporal_jitter": request.get("temporal_jitter", True), "reader": ShardStills(reader, rows)}
    if boxes:
        return BoxClips(*common, required_boxes=about["required_boxes"], **more)
    if request.semantic and about["classes"] is None:
        raise ValueError(f"task.semantic needs masks with classes; {reader.files.root} was prepared without.")
    return MaskClips(*common, label_names=about["classes"] if request.semantic else None, task=request.task, **more)


__all__ = ["CHOSEN", "build_shards", "choose_split", "chosen_options", "list_digests", "stills_of_split"]
