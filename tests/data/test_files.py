"""Files to rows: what is read, and what is refused with its line."""

import csv
from pathlib import Path

import pytest

from alignment.data.files import read_file
from alignment.errors import DataError


def write(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    return tmp_path / name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "recursion"),
        ('{"a": ' + "7" * 5000 + "}", "4300 digits"),
    ],
    ids=["nesting", "digits"],
)
def test_json_that_python_gives_up_on_is_a_bad_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(DataError, match=rf"a\.jsonl:2: .*{said}.*; an ordinary JSON object was expected"):
        read_file(write(tmp_path, "a.jsonl", f'{{"a": 1}}\n{line}\n'))
    with pytest.raises(DataError, match=rf"a\.json: .*{said}.*; a JSON array of ordinary rows was expected"):
        read_file(write(tmp_path, "a.json", f"[{line}]"))


def test_a_csv_cell_may_be_as_long_as_a_line(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    found = read_file(write(tmp_path, "a.csv", f"text,n\n{'x' * 200_000},1\n"))
    assert found.rows == [{"text": "x" * 200_000, "n": "1"}]
    assert csv.field_size_limit() == before


def test_a_csv_row_is_named_by_the_line_it_begins_on(tmp_path: Path) -> None:
    """Names over two lines, an empty line, and a cell over two lines."""
    found = read_file(write(tmp_path, "a.csv", '"te\nxt",n\r\n\r\n"a\nb",1\r\nc,2\r\n'))
    assert found.rows == [{"te\nxt": "a\nb", "n": "1"}, {"te\nxt": "c", "n": "2"}]
    assert found.lines == [4, 6]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('a,b\n1,2\n\n"3"x,4\n', r":4: ',' expected after '\"', in the row that begins on line 4"),
        ('a,b\n1,2\n"3,4\n5,6\n', r":4: unexpected end of data, in the row that begins on line 3"),
        ("a,b\n1,2\n\n3\n", ":4: found a row of 1 cells; 2 cells were expected"),
        ("a,b\n1,2,3\n", ":2: found a row of 3 cells; 2 cells were expected"),
        ("a,b,a\n1,2,3\n", ":1: found several columns 'a'; names that differ were expected"),
    ],
)
def test_a_csv_file_that_is_wrong_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_file(write(tmp_path, "a.csv", text))
