"""Local data files to rows: jsonl, json, csv, parquet and txt, also gzipped.

Rows are read exactly as they stand (a csv cell is text), because a guessed schema fills absent keys with None and loses
mixed types. Every row keeps its line, so that a message can name it. Files are read whole; nothing is cached.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.bounded import MAX_LINE_BYTES, check_parquet_size, read_bytes, reading_parquet
from alignment.errors import DataError
from alignment.recipe.places import data_suffix

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class FileRows:
    """The rows of one file and the line (from 1) that each begins on; of parquet and json arrays, its number."""

    path: Path
    rows: Rows
    lines: list[int]


def hash_file(path: Path) -> str:
    """sha256 of the bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_file(path: Path) -> FileRows:
    """All rows of a file. Raises DataError, naming file and line, for what is not a row."""
    if data_suffix(path) == ".parquet":
        import pyarrow.parquet

        with reading_parquet(path):
            check_parquet_size(path)
            rows = pyarrow.parquet.read_table(path).to_pylist()
        return FileRows(path, rows, list(range(1, len(rows) + 1)))
    raw = read_bytes(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}: found byte {raw[error.start]:#04x}, which is not UTF-8; UTF-8 text was expected. Convert the file."
        ) from error
    rows, lines = _READERS[data_suffix(path)](path, text)
    return FileRows(path, rows, lines)


def _read_jsonl(path: Path, text: str) -> tuple[Rows, list[int]]:
    rows, lines = [], []
    # Not splitlines: JSON text may hold U+2028 and other characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            rows.append(_parse_row(path, line, number))
            lines.append(number)
    return rows, lines


def _read_json(path: Path, text: str) -> tuple[Rows, list[int]]:
    if not text.lstrip().startswith("["):
        return _read_jsonl(path, text)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: {error.msg}; a JSON array was expected. Mend the file.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: {error}; a JSON array of ordinary rows was expected. Mend the file.") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number}: found {type(row).__name__}; an object was expected. Mend the row.")
    return rows, list(range(1, len(rows) + 1))


def _parse_row(path: Path, line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{number}: {error.msg} at column {error.colno}; one JSON object on each line was expected. Mend the line."
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists without end
        raise DataError(f"{path}:{number}: {error}; an ordinary JSON object was expected. Mend the line.") from error
    if not isinstance(row, dict):
        raise DataError(f"{path}:{number}: found {type(row).__name__}; a JSON object was expected. Mend the line.")
    return row


def _read_csv(path: Path, text: str) -> tuple[Rows, list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines = [], []
    names: list[str] = []
    begin = 1
    try:
        with _long_cells():
            for cells in reader:
                if cells and not names:
                    names = cells
                    _check_names(path, begin, names)
                elif cells:  # an empty line has none
                    rows.append(_name_cells(path, begin, names, cells))
                    lines.append(begin)
                begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{reader.line_num}: {error}, in the row that begins on line {begin}; comma-separated cells were expected."
            " Mend the row."
        ) from error
    return rows, lines


@contextmanager
def _long_cells() -> Iterator[None]:
    """Inside, csv reads cells as long as the lines of other files; by itself it ends at 131,072 characters."""
    before = csv.field_size_limit(MAX_LINE_BYTES)  # the module has one limit for all of its readers
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _name_cells(path: Path, line: int, names: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(names):
        raise DataError(
            f"{path}:{line}: found a row of {len(cells)} cells; {len(names)} cells were expected, as in the first line. Mend the row."
        )
    return dict(zip(names, cells, strict=True))


def _check_names(path: Path, line: int, names: list[str]) -> None:
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise DataError(
            f"{path}:{line}: found several columns '{twice[0]}'; names that differ were expected. Rename or remove all but one."
        )


def _read_txt(path: Path, text: str) -> tuple[Rows, list[int]]:
    """One row, `text`, for each paragraph: lines up to one that is empty or blank."""
    rows, lines = [], []
    number = 1
    for part in re.split(r"((?:\n[^\S\n]*){2,})", text.replace("\r\n", "\n")):
        if paragraph := part.strip():
            rows.append({"text": paragraph})
            lines.append(number + part[: len(part) - len(part.lstrip())].count("\n"))
        number += part.count("\n")
    return rows, lines


_READERS: dict[str, Callable[[Path, str], tuple[Rows, list[int]]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".txt": _read_txt,
}
