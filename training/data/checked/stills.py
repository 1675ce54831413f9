"""Frames with masks or boxes in lists of usable clips: rows of a table, and back."""

from collections.abc import Iterator, Sequence

from ..frames import Still


def still_rows(stills: Sequence[Still]):
    """Rows of frames as a `datasets.Dataset`, with `path` (the image), `audio` and `mask` as files."""
    from datasets import Dataset, Features, List, Value

    text, number = Value("string"), Value("float64")
    features = {"path": text, "audio": text, "mask": text, "timestamp": number, "boxes": List(List(number))}
    features |= {"paired": Value("bool"), "recording": text, "scene": text, "source": text, "visible": List(text)}
    columns = {name: [getattr(still, name, None) for still in stills] for name in features}
    columns["path"] = [still.image for still in stills]
    columns["paired"] = [still.name not in ("", still.image) for still in stills]
    return Dataset.from_dict(columns, features=Features(features))


def stills_of(rows) -> Iterator[Still]:
    """The frames of rows that `still_rows` made."""
    for row in rows:
        boxes = None if row["boxes"] is None else tuple(map(tuple, row["boxes"]))
        name = f"{row['path']} with {row['audio']}" if row["paired"] else row["path"]
        about = {key: row[key] for key in ("timestamp", "mask", "recording", "scene", "source")}
        yield Still(row["path"], row["audio"], boxes=boxes, name=name, visible=tuple(row["visible"]), **about)


__all__ = ["still_rows", "stills_of"]
