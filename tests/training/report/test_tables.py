"""Tables as Markdown and text, and their replacement between two marker comments."""

import os

import numpy as np
import pytest
import torch

from deepavfusion.training.report.tables import (
    aligned,
    format_cell,
    markdown_table,
    numeric_columns,
    replace_between,
)

TEXT = "# Title\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nThe rest, with an ü.\n"


def test_table_aligns_numbers_and_escapes_cells():
    table = markdown_table(["stream", "top-1", "note"], [["a|b", "37.9 %", "x\ny"], ["<i>", None, "z"]])
    assert table.split("\n") == [
        "| stream | top-1 | note |",
        "|---|---:|---|",
        "| a\\|b | 37.9 % | x y |",
        "| &lt;i> | – | z |",
    ]


def test_cells():
    values = [
        None,
        True,
        12345,
        0.123456,
        98765.4,
        float("inf"),
        float("-inf"),
        np.float64("nan"),
        torch.tensor(2),
        "x",
    ]
    assert [format_cell(v) for v in values] == ["–", "yes", "12,345", "0.1235", "98,765", "∞", "−∞", "–", "2", "x"]
    with pytest.raises(TypeError, match="dict"):
        format_cell({"a": 1})


@pytest.mark.parametrize(
    ("column", "numeric"),
    [
        (["1.85 ± 0.24 dB", "-3.37 ± 0.15 dB"], True),
        (["48.5 %", "-"], True),
        (["1,234", "–", "∞"], True),
        (["1", "two"], False),
        (["–", "–"], False),
    ],
)
def test_numeric_columns(column, numeric):
    assert numeric_columns([[text] for text in column]) == [numeric]


def test_aligned_columns():
    assert aligned([["stream", "top-1"], ["image", 0.5]]) == "stream  top-1\nimage   0.5"


def test_tables_refuse_ragged_rows():
    with pytest.raises(ValueError, match=r"Expected 2 cells .* got rows of \[1, 3\]"):
        markdown_table(["a", "b"], [[1], [1, 2], [1, 2, 3]])
    with pytest.raises(ValueError, match="Expected 0 cells"):
        markdown_table([], [])


def test_replaces_only_what_is_between_and_once(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(TEXT, encoding="utf-8")
    assert replace_between(path, "results", "new\n\nlines\n")
    first = path.read_text(encoding="utf-8")
    assert first == TEXT.replace("\nold\n", "\n\nnew\n\nlines\n\n")
    assert not replace_between(path, "results", "new\n\nlines\n")
    assert path.read_text(encoding="utf-8") == first
    assert os.listdir(tmp_path) == ["README.md"]


def test_keeps_line_ends(tmp_path):
    path = tmp_path / "README.md"
    path.write_bytes(TEXT.replace("\n", "\r\n").encode())
    replace_between(path, "results", "a\nb")
    content = path.read_bytes()
    assert b"a\r\nb\r\n" in content
    assert content.count(b"\n") == content.count(b"\r\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TEXT.replace("<!-- results:begin -->", ""), "results:begin --> once .* found it 0 times"),
        (TEXT.replace("<!-- results:end -->", ""), "results:end --> once .* found it 0 times"),
        (TEXT + TEXT, "found it 2 times"),
        ("<!-- results:end -->\n<!-- results:begin -->\n", "in reverse order"),
    ],
)
def test_markers_must_be_there_once_and_in_order(tmp_path, text, message):
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        replace_between(path, "results", "new")
    assert path.read_text(encoding="utf-8") == text


def test_a_text_must_not_bring_markers(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(ValueError, match="without <!-- results:end -->"):
        replace_between(path, "results", "a <!-- results:end -->")


def test_a_write_that_fails_leaves_the_old_text(tmp_path, monkeypatch):
    path = tmp_path / "README.md"
    path.write_text(TEXT, encoding="utf-8")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        replace_between(path, "results", "new")
    assert path.read_text(encoding="utf-8") == TEXT
