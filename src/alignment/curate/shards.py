"""Input files as shards, and the rows of a shard one after another.

A shard is one file: the unit of work and of output, so that results do not depend on how many processes share the shards. Rows
are streamed; what is no row is a DataError with its line, or, where the recipe says so, a removed row.
"""

import bz2
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.curate.html import decode_page, html_to_text
from alignment.curate.wikipedia import read_articles
from alignment.data.bounded import MAX_LINE_BYTES, check_parquet_size, is_bomb, reading_parquet
from alignment.data.files import hash_file, read_file
from alignment.data.row_messages import BadRow, check_values
from alignment.data.sources import check_exists, expand_path, match_files
from alignment.errors import DataError
from alignment.recipe.curate_spec import CurateSourceSpec, EvalSetSpec
from alignment.recipe.places import data_suffix, place_data
from alignment.recipe.schema import CurateRecipe

SUFFIXES = (".jsonl", ".json", ".csv", ".txt", ".parquet", ".warc", ".wet", ".xml")
_STREAMED = (".jsonl",)
_PAGES = ("text/plain", "text/html", "application/xhtml+xml")
_OPEN = {".bz2": bz2.open, ".gz": gzip.open}
_BATCH = 1000  # rows of a parquet batch


@dataclass(frozen=True)
class Shard:
    """One input file. `number` orders shards as the recipe and the file names do."""

    number: int
    source: int
    label: str  # the source's path as the recipe writes it
    path: Path
    content_hash: str

    @property
    def name(self) -> str:
        """What its output files are called."""
        return f"{self.number:05d}"


@dataclass(frozen=True)
class RawRow:
    """A row of a file and its line (its number in parquet and archives). `row` is None for what is no row."""

    line: int
    row: dict[str, Any] | None
    mistake: str = ""


def find_shards(sources: tuple[CurateSourceSpec, ...], recipe_dir: Path) -> list[Shard]:
    """The files of all sources. Raises DataError for files that are not there or that nobody can read."""
    shards: list[Shard] = []
    for source, spec in enumerate(sources):
        path = place_data(expand_path(spec.path), recipe_dir)
        check_exists(spec.path, path)
        for file in _files(spec, path):
            shards.append(Shard(len(shards), source, spec.path, file, hash_file(file)))
    return shards


def eval_files(evals: Sequence[EvalSetSpec], recipe_dir: Path) -> list[Path]:
    """The files of the evaluation sets. Raises DataError for what is not there."""
    files: list[Path] = []
    for spec in evals:
        path = place_data(expand_path(spec.path), recipe_dir)
        found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if data_suffix(file))
        if not found or any(data_suffix(file) is None for file in found):
            raise DataError(f"{spec.path}: no data file {path}; evaluation items were expected. Correct 'evals'.")
        files += found
    return files


def describe_inputs(recipe: CurateRecipe, recipe_dir: Path, shards: Sequence[Shard] = ()) -> dict[str, list[dict]]:
    """The files of sources and of evaluation sets with their content, as a receipt names them.

    Args:
        shards: of the recipe, where they are found already.

    Raises DataError for files that are not there.
    """
    steps = [step.decontaminate for step in recipe.curate.steps if step.decontaminate is not None]
    return {
        "sources": [
            {"path": shard.label, "file": shard.path.name, "sha256": shard.content_hash}
            for shard in shards or find_shards(recipe.data.train, recipe_dir)
        ],
        "evals": [
            {"path": spec.path, "file": file.name, "sha256": hash_file(file)}
            for step in steps
            for spec in step.evals
            for file in eval_files([spec], recipe_dir)
        ],
    }


def data_kind(path: Path) -> str | None:
    """`.jsonl` for `a.jsonl.gz`; None for what is not data."""
    suffix = Path(path.name.removesuffix(".gz").removesuffix(".bz2")).suffix.lower()
    return suffix if suffix in SUFFIXES else None


def read_shard(shard: Shard) -> Iterator[RawRow]:
    """The rows of a file. Raises DataError for a file that cannot be read at all."""
    return map(_checked, _read(shard))


def _checked(raw: RawRow) -> RawRow:
    """The row; of one that no file of results can hold, or no step walk through, only its line and why."""
    try:
        check_values(raw.row, "row")
    except BadRow as error:
        return RawRow(raw.line, None, error.found)
    return raw


def _read(shard: Shard) -> Iterator[RawRow]:
    kind = data_kind(shard.path)
    if kind in _STREAMED:
        yield from _whole(_read_jsonl, shard.path)
    elif kind == ".parquet":
        yield from _read_parquet(shard.path)
    elif kind in (".warc", ".wet"):
        yield from _whole(_read_warc, shard.path)
    elif kind == ".xml":
        with _OPEN.get(shard.path.suffix, open)(shard.path, "rb") as file:
            yield from (RawRow(number, row) for number, row in enumerate(read_articles(file, shard.path), 1))
    else:
        read = read_file(shard.path)
        for line, row in zip(read.lines, read.rows, strict=True):
            yield RawRow(line, row)


def _files(spec: CurateSourceSpec, path: Path) -> list[Path]:
    if path.is_file():
        files = [path]
    elif spec.data_files:
        files = sorted({file for pattern in spec.data_files for file in match_files(spec.path, path, pattern)})
    else:
        files = sorted(file for file in path.rglob("*") if file.is_file() and data_kind(file))
    if unknown := [file.name for file in files if data_kind(file) is None]:
        raise DataError(f"{spec.path}: {unknown[0]}: one of {', '.join(SUFFIXES)} was expected. Correct 'path'.")
    if not files:
        raise DataError(f"{spec.path}: found no data files; {', '.join(SUFFIXES)} were expected. Correct 'path'.")
    return files


def _whole(read: Callable[[Path], Iterator[RawRow]], path: Path) -> Iterator[RawRow]:
    """What `read` gives. Raises DataError where a packed file or an archive is cut, or is none."""
    from warcio.exceptions import ArchiveLoadFailed

    try:
        yield from read(path)
    except (EOFError, gzip.BadGzipFile, zlib.error, ArchiveLoadFailed) as error:
        raise DataError(f"{path}: {str(error)[:80]!r}; a whole file was expected. Copy it again.") from error


def _read_jsonl(path: Path) -> Iterator[RawRow]:
    packed, size, number = path.stat().st_size, 0, 0
    with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            size += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise DataError(
                    f"{path}:{number}: found a line of more than {MAX_LINE_BYTES} bytes; shorter ones were expected. Split it."
                )
            if path.name.endswith(".gz") and is_bomb(size, packed):
                raise DataError(
                    f"{path}: {packed} bytes unpack into {size} or more. Unpack it yourself if that is right."
                )
            if line.strip():
                yield _parse(line, number)


def _parse(line: bytes, number: int) -> RawRow:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        return RawRow(number, None, f"byte {line[error.start]:#04x} is not UTF-8")
    except (ValueError, RecursionError) as error:  # also digits by the thousand, and nesting without end
        return RawRow(number, None, f"no JSON: {error}")
    return (
        RawRow(number, row)
        if isinstance(row, dict)
        else RawRow(number, None, f"{type(row).__name__} in place of an object")
    )


def _read_parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow.parquet

    number = 0
    with reading_parquet(path):
        check_parquet_size(path)
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield RawRow(number, row)


def _read_warc(path: Path) -> Iterator[RawRow]:
    """Text of WET `conversion` records, and of plain text and HTML pages of `response` records, with id, url and date."""
    from warcio.archiveiterator import ArchiveIterator

    with path.open("rb") as file:
        for number, record in enumerate(ArchiveIterator(file), 1):
            kind = _text_kind(record)
            if kind is None:
                continue
            raw = record.content_stream().read(MAX_LINE_BYTES + 1)
            if len(raw) > MAX_LINE_BYTES:
                yield RawRow(number, None, f"more than {MAX_LINE_BYTES} bytes in a record")
                continue
            try:  # what was extracted already is UTF-8 by definition; pages are what they say
                text = raw.decode("utf-8") if record.rec_type == "conversion" else decode_page(raw, kind)
            except UnicodeDecodeError as error:
                yield RawRow(number, None, f"record is not UTF-8: {error.reason}")
                continue
            headers = {"id": "WARC-Record-ID", "url": "WARC-Target-URI", "date": "WARC-Date"}
            facts = {name: record.rec_headers.get_header(header) for name, header in headers.items()}
            is_page = "html" in kind.partition(";")[0]
            yield RawRow(number, {"id": facts.pop("id"), "text": html_to_text(text) if is_page else text, **facts})


def _text_kind(record: Any) -> str | None:
    """The Content-Type of a record that holds text; None for what is none, or was not found."""
    if record.rec_type == "conversion":
        kind = record.rec_headers.get_header("Content-Type") or ""
    elif record.rec_type == "response" and record.http_headers and record.http_headers.get_statuscode() == "200":
        kind = record.http_headers.get_header("Content-Type") or ""
    else:
        return None
    return kind if kind.partition(";")[0].strip().lower() in _PAGES else None
