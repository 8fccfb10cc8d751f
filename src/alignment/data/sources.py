"""A recipe's sources to rows: which files or which Hub revision a source is, and its rows in order.

`find_source` is cheap and settles the content hash; `read_source` reads the rows. Local files are never given to the
cache of `datasets`, so rows that were edited in place are never served stale. Choosing and mixing rows is the mixer's.

Rows that are streamed are stream.py's. A txt file has one row a paragraph. A path is local when it exists, begins with `.`, `/`,
`~` or `$`, or ends like a data file; every other path is a Hub id.
"""

import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alignment.data.files import hash_file, read_file
from alignment.errors import DataError, RecipeError
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.places import DATA_SUFFIXES, RUNS, SPLIT, data_suffix, means_local_data, place_data

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_COMMIT = re.compile("[0-9a-f]{40}")
_SPLIT_STEMS = re.compile(r"(train|test|valid|validation|val|dev|eval)(?![a-z])")


@dataclass(frozen=True)
class FoundSource:
    """A source whose content is settled and not yet read. `files` is empty for a Hub dataset."""

    spec: SourceSpec
    split: str | None
    files: tuple[Path, ...]
    revision: str | None  # commit of a Hub dataset
    content_hash: str


@dataclass(frozen=True)
class Source:
    """The rows of a source that its `where` keeps. `rows[i]` is a dict of the original columns."""

    spec: SourceSpec
    split: str | None
    rows: Sequence[Mapping[str, Any]]
    first: int = 0  # number of the slice's first row in the whole split
    kept: np.ndarray | None = None  # of each row its place in the slice or stream; None: all of them are kept
    files: tuple[Path, ...] = ()
    starts: tuple[int, ...] = ()  # of each file, the number of its first row
    lines: tuple[list[int], ...] = ()

    @property
    def label(self) -> str:
        """Path and split as the recipe writes them."""
        return f"{self.spec.path}[{self.split}]" if self.split else self.spec.path

    def number(self, row: int) -> int:
        """The number of `rows[row]` in the whole split, from 0."""
        return self.first + (row if self.kept is None else int(self.kept[row]))

    def where(self, row: int) -> str:
        """`file:line` of a row, or path and number of a Hub row (from 0)."""
        number = self.number(row)
        if not self.files:
            return f"{self.label} row {number}"
        index = bisect_right(self.starts, number) - 1
        return f"{_show(self.files[index], self.spec)}:{self.lines[index][number - self.starts[index]]}"


def find_source(spec: SourceSpec, recipe_dir: Path, default_split: str | None) -> FoundSource:
    """Settles what a source is without reading its rows.

    Args:
        default_split: split of a Hub dataset when the recipe names none; None where one must be named.

    Raises:
        RecipeError: a variable that is not set, a split that cannot be understood or must be named.
        DataError: files or a dataset that are not there.
    """
    path = expand_path(spec.path)
    if spec.split is not None and not SPLIT.fullmatch(spec.split):
        raise RecipeError(
            f"{spec.path}: split {spec.split!r}; a name, or a slice of it such as train[:90%] or train[100:200], was expected. Correct it."
        )
    if _is_local(path, recipe_dir):
        return _find_local(spec, place_data(path, recipe_dir))
    return _find_hub(spec, path, spec.split or default_split)


def read_source(found: FoundSource) -> Source:
    """The rows of the split that the source names, in file order. Raises DataError naming file and line."""
    source = _read_slice(found)
    return _keep_where(source) if found.spec.where else source


def _read_slice(found: FoundSource) -> Source:
    if not found.files:
        return Source(found.spec, found.split, load_hub(found))
    read = [read_file(path) for path in found.files]
    rows = [row for file in read for row in file.rows]
    starts = tuple(sum(len(file.rows) for file in read[:index]) for index in range(len(read)))
    lines = tuple(file.lines for file in read)
    start, end = _slice_bounds(found.split, len(rows))
    return Source(found.spec, found.split, rows[start:end], start, None, found.files, starts, lines)


def _keep_where(source: Source) -> Source:
    """The source with only the rows whose columns have the values of `where`; types count: 1 is not "1" nor true."""
    wanted = dict(source.spec.where)
    if len(source.rows) and (absent := [name for name in wanted if not any(name in row for row in source.rows)]):
        raise absent_column(source.label, absent[0], source.rows[0])
    kept = [index for index, row in enumerate(source.rows) if has_values(row, wanted)]
    if len(source.rows) and not kept:
        raise DataError(
            f"{source.label}: where: none of {len(source.rows)} rows has {wanted}; at least one was expected. Correct 'where'."
        )
    rows = source.rows.select(kept) if not source.files else [source.rows[index] for index in kept]
    return replace(source, rows=rows, kept=np.array(kept, dtype=np.int64))


def absent_column(label: str, name: str, first: Mapping[str, Any]) -> DataError:
    """The error of a `where` that names a column which rows do not have."""
    known = ", ".join(map(str, first))
    return DataError(f"{label}: where: no row has a column '{name}'; the first has {known}. Correct 'where'.")


def has_values(row: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a row's columns have these values and types."""
    # A CSV cell is text, whatever it spells.
    return all(name in row and type(row[name]) is type(value) and row[name] == value for name, value in wanted.items())


# ------------------------------------------------------------------------------------------------ paths


def expand_path(path: str) -> str:
    """The path with its ${VARIABLES} replaced. Raises RecipeError for one that is not set."""

    def value(match: re.Match) -> str:
        if not os.environ.get(match[1]):
            raise RecipeError(
                f"{path}: the environment variable {match[1]} is not set; a folder was expected. Set it: export {match[1]}=..."
            )
        return os.environ[match[1]]

    return _VARIABLE.sub(value, path)


def check_exists(name: str, path: Path) -> None:
    """Raises DataError for a source that is not there, with what makes it where that is known."""
    if path.exists():
        return
    if name.startswith(RUNS):
        raise DataError(
            f"{name}: no file or folder of that name in the current folder; the result of a run was expected. Run the recipe that "
            "makes it first, or correct 'path'."
        )
    raise DataError(f"{name}: no file or folder {path}; one was expected, relative to the recipe. Correct 'path'.")


def _is_local(path: str, recipe_dir: Path) -> bool:
    return means_local_data(path) or (recipe_dir / path).exists()


def _show(path: Path, spec: SourceSpec) -> str:
    """The file as the recipe writes it: the path itself, or the file's name inside that folder."""
    return spec.path if path.name == Path(spec.path).name else f"{spec.path.rstrip('/')}/{path.name}"


# ------------------------------------------------------------------------------------------------ local files


def _find_local(spec: SourceSpec, path: Path) -> FoundSource:
    for key in ("name", "revision", "stream"):
        if getattr(spec, key) not in (None, False):
            raise RecipeError(
                f"{spec.path}: '{key}' belongs to a Hub dataset, and this is a local path. Remove the key."
            )
    check_exists(spec.path, path)
    files = _folder_files(spec, path) if path.is_dir() else _single_file(spec, path)
    hashes = [f"{file.name} {hash_file(file)}" for file in files]
    return FoundSource(spec, spec.split, tuple(files), None, "\n".join(hashes))


def _single_file(spec: SourceSpec, path: Path) -> list[Path]:
    if spec.data_files:
        raise RecipeError(
            f"{spec.path}: 'data_files' chooses files inside a folder, and this is a file. Remove the key."
        )
    if data_suffix(path) is None:
        raise DataError(
            f"{spec.path}: not a data file; one of {', '.join(DATA_SUFFIXES)}, also with .gz, was expected. Convert it."
        )
    name = _split_name(spec)
    if name not in (None, "train") and not _is_of_split(path, name):
        raise RecipeError(
            f"{spec.path}: split '{name}' of a single file; 'train' (all of it) or a slice such as train[90%:] was expected. Correct 'split'."
        )
    return [path]


def _folder_files(spec: SourceSpec, folder: Path) -> list[Path]:
    if spec.data_files:
        files = [file for pattern in spec.data_files for file in _match(spec, folder, pattern)]
    else:
        files = [
            file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".") and data_suffix(file)
        ]
    files = sorted(set(files))
    name = _split_name(spec)
    names = ", ".join(file.name for file in files[:8]) or "no data files"
    if name is not None:
        files = [file for file in files if _is_of_split(file, name)]
        if not files:
            raise DataError(
                f"{spec.path}: found {names}; files whose names begin with the split '{name}' were expected. Give 'data_files'."
            )
    elif len({match[1] if (match := _SPLIT_STEMS.match(file.stem)) else None for file in files}) > 1:
        raise RecipeError(
            f"{spec.path}: found files of several splits ({names}); which of them was not said. Give 'split' or 'data_files'."
        )
    if not files:
        raise DataError(
            f"{spec.path}: found no data files in {folder}; {', '.join(DATA_SUFFIXES)} were expected. Correct 'path'."
        )
    if len(kinds := sorted({data_suffix(file) for file in files})) > 1:
        raise DataError(
            f"{spec.path}: found files of several kinds ({', '.join(kinds)}: {names}); one was expected. Give 'data_files'."
        )
    return files


def _match(spec: SourceSpec, folder: Path, pattern: str) -> list[Path]:
    files = match_files(spec.path, folder, pattern)
    if not files:
        raise DataError(
            f"{spec.path}: data_files: nothing in {folder} matches '{pattern}'; files were expected. Correct the pattern."
        )
    if unknown := [file.name for file in files if data_suffix(file) is None]:
        raise DataError(
            f"{spec.path}: data_files: '{pattern}' matches {unknown[0]}; one of {', '.join(DATA_SUFFIXES)} was expected. Correct the pattern."
        )
    return files


def match_files(label: str, folder: Path, pattern: str) -> list[Path]:
    """The files inside a folder that a pattern of `data_files` matches. Raises DataError for what is no pattern of files in it."""
    try:
        return [file for file in folder.glob(pattern) if file.is_file()]
    except (ValueError, NotImplementedError) as error:  # an empty pattern, an absolute one (pathlib of Python 3.11)
        raise DataError(
            f"{label}: data_files: found '{pattern}'; a pattern relative to {folder}, such as *.jsonl, was expected."
            " Correct the pattern."
        ) from error


def _split_name(spec: SourceSpec) -> str | None:
    return SPLIT.fullmatch(spec.split)["name"] if spec.split else None


def _is_of_split(file: Path, name: str) -> bool:
    """Whether the file's name begins with the split: `train` has train.jsonl and train-00000.parquet, not trainer.csv."""
    return re.match(rf"{re.escape(name)}(?![a-zA-Z])", file.name) is not None


def _slice_bounds(split: str | None, num_rows: int) -> tuple[int, int]:
    """First row and end of a slice, as `datasets` rounds them: percentages to the nearest row."""
    match = SPLIT.fullmatch(split) if split else None
    if match is None:
        return 0, num_rows

    def bound(text: str | None, default: int) -> int:
        if text is None:
            return default
        value = round(int(text[:-1]) * num_rows / 100) if text.endswith("%") else int(text)
        return min(max(value + num_rows if value < 0 else value, 0), num_rows)

    return bound(match["start"], 0), bound(match["end"], num_rows)


# ------------------------------------------------------------------------------------------------ the Hub


def _find_hub(spec: SourceSpec, path: str, split: str | None) -> FoundSource:
    if split is None:
        raise RecipeError(
            f"{spec.path}: no 'split' for a held-out Hub dataset; one was expected, for example test. Give 'split'."
        )
    if spec.stream and _COMMIT.fullmatch(spec.revision or ""):
        # Rows that were streamed once are on this disk: with a commit, the Hub need not be asked whether they still are its own.
        return FoundSource(spec, split, (), spec.revision, f"{path} {spec.name} {spec.revision}")
    import datasets

    arguments = {"name": spec.name, "revision": spec.revision, "data_files": list(spec.data_files) or None}
    builder = _call_hub(spec, datasets.load_dataset_builder, path, **arguments)
    # With a network and without one alike, this is the dataset's commit (datasets 5.2, load.py).
    return FoundSource(spec, split, (), builder.hash, f"{path} {spec.name} {builder.hash}")


def load_hub(found: FoundSource, *, streaming: bool = False):
    """The split as `datasets` gives it: all of its rows on this disk, or a stream of them."""
    import datasets

    spec = found.spec
    # The commit whose hash was taken, even when the branch has moved on since.
    revision = found.revision if _COMMIT.fullmatch(found.revision or "") else spec.revision
    arguments = {"name": spec.name, "revision": revision, "data_files": list(spec.data_files) or None}
    arguments |= {"split": found.split, "streaming": streaming}
    return _call_hub(spec, datasets.load_dataset, expand_path(spec.path), **arguments)


def _call_hub(spec: SourceSpec, function, path: str, **arguments):
    try:
        return function(path, **arguments)
    except hub_errors() as error:
        raise DataError(
            f"{spec.path}: not a local path, and as a Hub dataset: {first_line(error)}; a dataset that can be loaded was expected."
            " Correct 'path', 'name', 'revision' or 'split', or connect to the Hub."
        ) from error


def hub_errors() -> tuple[type[Exception], ...]:
    """What `datasets` and the Hub's client raise for a dataset that cannot be had (datasets 5.2, huggingface_hub 2.4)."""
    import httpx2
    import pyarrow as pa
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    return OSError, ValueError, HfHubHTTPError, HFValidationError, httpx2.HTTPError, DatasetsError, pa.ArrowException


def first_line(error: Exception) -> str:
    """The first line of what an error says; its name where it says nothing."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
