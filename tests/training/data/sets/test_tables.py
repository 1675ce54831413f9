"""Text files and tables in other encodings and with other delimiters."""

import pytest

from deepavfusion.training.data.sets.tables import read_records, read_table, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
def test_text_is_read_in_any_encoding(tmp_path, encoding, caplog):
    path = tmp_path / "list.csv"
    path.write_bytes("file,label\r\na.mp4,Bär\r\n".encode(encoding))
    assert read_records(path) == (["file", "label"], [(2, {"file": "a.mp4", "label": "Bär"})])
    assert ("is not UTF-8" in caplog.text) == (encoding == "cp1252")


@pytest.mark.parametrize("content", [b"PK\x03\x04 a spreadsheet", b"a,b\0c", b"\xff\xfe\x00", b"a\x81\x8d"])
def test_what_is_no_text_is_told(tmp_path, content):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"list\.csv is not a text file: expected UTF-8"):
        read_text(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_are_those_of_the_first_line(tmp_path, delimiter):
    path = tmp_path / "list.csv"
    path.write_text(f'\nfile{delimiter} label\n\n"a{delimiter}b"{delimiter}dog big\n{delimiter}\n')
    assert read_table(path, ",;\t")[-1][1][0] == f"a{delimiter}b"
    assert read_records(path, ",;\t")[0] == ["file", "label"]


def test_a_row_with_more_fields_than_the_header_is_told_with_its_line(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("file,label\na.mp4,violin,\nb.mp4\n")
    assert [row for _, row in read_records(path)[1]] == [{"file": "a.mp4", "label": "violin"}, {"file": "b.mp4"}]
    path.write_text("file,label\na.mp4,violin, fiddle\n")
    with pytest.raises(
        ValueError, match=r"line 2: expected at most 2 fields, as in the header, got 3, among them 'fiddle'"
    ):
        read_records(path)


def test_a_missing_quote_is_told_with_its_line(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text('a,b\n"c,d\n' + "x" * 200_000)
    with pytest.raises(ValueError, match=r"list\.csv, line \d: not a table"):
        read_table(path)
    path.write_text("# no, table\na,b\n#c\n")
    assert read_table(path, comment="#") == [(1, ["a", "b"])]
    path.write_text("")
    assert read_records(path) == ([], [])
