"""Markdown tables of results, and their place between two marker comments."""

import json
import os

import pytest

from deepavfusion.training.report.tables import format_value, main, markdown_table, render, replace_between

TEXT = "# Title\n\n<!-- results:begin -->\nold\n<!-- results:end -->\n\nThe rest, with an ü.\n"


def test_table_aligns_numbers_and_escapes_cells():
    table = markdown_table(
        ["stream", "top-1", "note"], [["a|b", 0.379, "x\ny"], ["<i>", None, "z"]], [None, ".1%", None]
    )
    assert table.split("\n") == [
        "| stream | top-1 | note |",
        "|---|---:|---|",
        "| a\\|b | 37.9 % | x y |",
        "| &lt;i> | – | z |",
    ]


def test_cells():
    assert [format_value(v) for v in (1234567, 0.123456, None, float("nan"), True, "x")] == [
        "1,234,567",
        "0.1235",
        "–",
        "–",
        "yes",
        "x",
    ]
    assert format_value(5.789, ".2f") == "5.79"
    with pytest.raises(TypeError, match="dict"):
        format_value({"a": 1})


def test_table_refuses_ragged_rows_and_stray_formats():
    with pytest.raises(ValueError, match=r"Expected 2 cells .* got \[1, 3\]"):
        markdown_table(["a", "b"], [[1], [1, 2], [1, 2, 3]])
    with pytest.raises(ValueError, match="a format"):
        markdown_table(["a"], [[1]], [None, None])
    with pytest.raises(ValueError, match="headings"):
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
        ("<!-- results:end -->\n<!-- results:begin -->\n", "the other order"),
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


def test_render_orders_columns_and_adds_a_note():
    rows = [{"stream": "fusion", "top1": 0.5}, {"stream": "audio", "top5": 0.75}]
    assert render({"task": "Recognition", "rows": rows}).split("\n") == [
        "**Recognition**",
        "",
        "| stream | top1 | top5 |",
        "|---|---:|---:|",
        "| fusion | 0.5 | – |",
        "| audio | – | 0.75 |",
    ]
    text = render(
        {"task": "R", "rows": rows, "columns": ["top5", "stream"], "formats": {"top5": ".0%"}, "note": "One clip."}
    )
    assert "| top5 | stream |" in text
    assert "| 75 % | audio |" in text
    assert text.endswith("\n\nOne clip.")


@pytest.mark.parametrize(
    "results",
    [
        {"rows": []},
        {"task": "a"},
        {"task": "a", "rows": [[1]]},
        {"task": "a", "rows": {"b": 1}},
        {"task": "a", "rows": []},
    ],
)
def test_render_says_what_it_expected(results):
    with pytest.raises(ValueError, match="Expected"):
        render(results)


def test_render_refuses_columns_that_no_row_has():
    with pytest.raises(ValueError, match="top9"):
        render({"task": "a", "rows": [{"b": 1}], "formats": {"top9": ".1f"}})


def test_command(tmp_path, capsys):
    (tmp_path / "README.md").write_text(TEXT, encoding="utf-8")
    for name in ("one", "two"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"task": name, "rows": [{"n": 1}]}))
    files = [str(tmp_path / name) for name in ("README.md", "two.json", "one.json")]
    assert main(files) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.index("**two**") < text.index("**one**")
    assert "old" not in text
    assert "changed" in capsys.readouterr().out
    main(files)
    assert "as it was" in capsys.readouterr().out
    (tmp_path / "one.json").write_text("[]")
    with pytest.raises(ValueError, match=r"one\.json"):
        main(files)
