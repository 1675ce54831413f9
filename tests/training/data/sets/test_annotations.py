"""Annotation files of folders of videos."""

import json

import pytest

from deepavfusion.training.data.sets.annotations import read_annotations, split_name
from deepavfusion.training.data.sets.folder import label_info, read_folder


def written(path, row):
    text = json.dumps(row) if path.suffix == ".jsonl" else ",".join(row) + "\n" + ",".join(map(str, row.values()))
    path.write_text(text + "\n")
    return path


@pytest.mark.parametrize("name", ["list.csv", "LIST.CSV", "list.jsonl"])
@pytest.mark.parametrize("column", ["file", "file_name", "filename", "File_Name", " file "])
def test_the_file_column_has_the_names_that_others_give_it(tmp_path, name, column):
    path = written(tmp_path / name, {column: "a.mp4", "label": "dog", "start": "1", "other": "x"})
    assert read_annotations(path) == [{"file": "a.mp4", "label": "dog", "start": 1.0}]


@pytest.mark.parametrize(
    ("label", "expected"), [(3, "3"), (0, "0"), (3.0, "3"), ("3", "3"), ([0, "dog"], ["0", "dog"]), ([], [])]
)
def test_numbers_in_jsonl_are_names_of_classes(tmp_path, label, expected):
    (row,) = read_annotations(written(tmp_path / "list.jsonl", {"file": "a.mp4", "label": label}))
    assert row["label"] == expected


def test_classes_that_are_numbers_are_sorted_as_numbers(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.mp4").touch()
    (tmp_path / "list.jsonl").write_text(
        "\n".join(json.dumps({"file_name": f"{i}.mp4", "label": i}) for i in range(12))
    )
    rows = read_folder(tmp_path)
    assert label_info(rows) == ([str(i) for i in range(12)], False)
    assert rows["label"] == list(range(12))


@pytest.mark.parametrize("key", ["start", "end"])
@pytest.mark.parametrize("value", ["soon", "nan", "inf", -1, "1e400", True, [1], {}])
def test_times_are_seconds(tmp_path, key, value):
    path = written(tmp_path / "list.jsonl", {"file": "a.mp4", key: value})
    with pytest.raises(
        ValueError,
        match=rf"list\.jsonl, line 1: expected {key} in seconds, a number of at least 0 and at most \d+, got ",
    ):
        read_annotations(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "a.mp4"}, r"'file' \(or 'file_name'\), got the columns video"),
        ({"file": 3}, "'file'"),
        ({"file": " "}, "'file'"),
        (["a.mp4"], "got a list"),
        ({"file": "a.mp4", "label": True}, "expected a name as label, got True"),
        ({"file": "a.mp4", "label": {"name": "dog"}}, "expected a name as label"),
        ({"file": "a.mp4", "label": 0.5}, "expected a name as label, got 0.5"),
        ({"file": "a.mp4", "label": ["dog", None]}, "expected a name as label, got None"),
        ({"file": "a.mp4", "split": ["train"]}, "expected a name as split"),
        ({"file": "a.mp4", "start": 2, "end": 2}, "expected end after start"),
    ],
)
def test_other_values_are_answered_with_what_was_expected(tmp_path, row, message):
    path = tmp_path / "list.jsonl"
    path.write_text("\n" + json.dumps(row))
    with pytest.raises(ValueError, match=rf"list\.jsonl, line 2: expected .*{message}|line 2: .*{message}"):
        read_annotations(path)


def test_line_separators_within_json_end_no_line(tmp_path):
    (tmp_path / "list.jsonl").write_text('{"file": "a\u2028b.mp4"}\r\n{"file": "c.mp4"', encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: expected one JSON object"):
        read_annotations(tmp_path / "list.jsonl")


@pytest.mark.parametrize(
    ("name", "split"), [("val", "validation"), ("Train", "train"), ("dev", "validation"), ("x", "x")]
)
def test_splits_have_the_names_of_build_dataset(name, split):
    assert split_name(name) == split
