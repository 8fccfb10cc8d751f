"""Rows of a Hub dataset that cannot be stored: its first `rows` rows, streamed once into one file, and from there rows like any other.

The seed draws the order of the shards; inside a shard rows keep theirs. There is no sample buffer, so the rows are a function of
commit, seed and source, and nothing of the stream has to be resumed: training reads the file, on any number of ranks.

    CACHE/rows-KEY.arrow    number (of the row in the stream, from 0), row (JSON): the rows that `where` keeps
"""

import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock

from alignment.data.draw import generator, identify
from alignment.data.sources import (
    FoundSource,
    Source,
    absent_column,
    first_line,
    has_values,
    hub_errors,
    load_hub,
    read_source,
)
from alignment.errors import DataError

logger = logging.getLogger(__name__)
_SCHEMA = pa.schema([("number", pa.int64()), ("row", pa.large_string())])
_BATCH = 1000  # rows in memory at once


class StreamedRows(Sequence[Mapping[str, Any]]):
    """Memory-mapped rows. Dates and the like, which JSON has not, are their text."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return json.loads(self._column[int(index)].as_py())


def read_sources(found: Sequence[FoundSource], seed: int, cache_dir: Path) -> list[Source]:
    """The rows of each source of a split; of streams those that their entries ask for together, kept in `cache_dir`.

    Raises:
        DataError: as `read_source` raises it; a stream that breaks off.
    """
    wanted: Counter = Counter()
    for source in found:
        if source.spec.stream:
            wanted[identify(source.spec)] += source.spec.rows
    return [
        _read_stream(source, seed, wanted[identify(source.spec)], cache_dir)
        if source.spec.stream
        else read_source(source)
        for source in found
    ]


def stream_rows(found: FoundSource, seed: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number in the stream and columns of every row that `where` keeps.

    Raises:
        DataError: a dataset that cannot be opened, or breaks off; a `where` of a column that the first row has not.
    """
    spec, label = found.spec, f"{found.spec.path}[{found.split}]"
    dataset = load_hub(found, streaming=True)
    order = generator(seed, f"shards\n{identify(spec)}").permutation(dataset.num_shards).tolist()
    shards = (dataset.shard(num_shards=len(order), index=index) for index in order)
    number = -1
    try:
        for number, row in enumerate(chain.from_iterable(shards)):
            if number == 0 and (absent := [name for name in spec.where if name not in row]):
                raise absent_column(label, absent[0], row)
            if has_values(row, spec.where):
                yield number, row
    except hub_errors() as error:
        raise DataError(
            f"{label} row {number + 1}: the stream broke off: {first_line(error)}; a row was expected. Begin again when the Hub can be "
            "reached, or mend the dataset."
        ) from error


def _read_stream(found: FoundSource, seed: int, count: int, cache_dir: Path) -> Source:
    inputs = [found.content_hash, identify(found.spec), found.split, seed, count]
    key = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
    path = cache_dir / f"rows-{key}.arrow"
    if not path.is_file():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                _write(path, found, seed, count)
    table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    return Source(found.spec, found.split, StreamedRows(table["row"]), kept=table["number"].to_numpy())


def _write(path: Path, found: FoundSource, seed: int, count: int) -> None:
    """The caller holds the lock: a file that a killed process left is written over."""
    begun, temporary = time.perf_counter(), path.with_suffix(".tmp")
    rows, written = islice(stream_rows(found, seed), count), 0
    with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        while batch := list(islice(rows, _BATCH)):
            numbers, texts = zip(*((number, json.dumps(row, default=str)) for number, row in batch), strict=True)
            writer.write_batch(
                pa.record_batch([pa.array(numbers, pa.int64()), pa.array(texts, pa.large_string())], schema=_SCHEMA)
            )
            written += len(batch)
    os.replace(temporary, path)
    logger.info("streamed %d rows of %s in %.1f s", written, found.spec.path, time.perf_counter() - begun)
