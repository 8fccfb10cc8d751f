"""The beginnings of large local files: a rehearsal needs a few rows and not the gigabytes behind them."""

import gzip
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from alignment.data.files import data_suffix, hash_file
from alignment.data.sources import FoundSource
from alignment.errors import DataError

TOO_LARGE = 64 * 2**20  # bytes of all files of a source; less is read whole in a second
_NUM_LINES = 4000
_MAX_FILES = 4


def total_size(files: Sequence[Path]) -> int:
    """Bytes on disk."""
    return sum(file.stat().st_size for file in files)


def cut_heads(found: FoundSource, folder: Path) -> FoundSource:
    """The same source with the first rows of its first files. A slice of the split (`train[-500:]`) is then not cut.

    Raises:
        DataError: a file of a kind whose beginning is not a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = tuple(_cut(file, folder / f"{number}-{file.name}") for number, file in enumerate(found.files[:_MAX_FILES]))
    split = found.split.partition("[")[0] if found.split else None
    hashes = "\n".join(f"{file.name} {hash_file(file)}" for file in files)
    return replace(found, files=files, split=split, content_hash=hashes)


def _cut(file: Path, target: Path) -> Path:
    suffix = data_suffix(file)
    if suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        batch = next(pyarrow.parquet.ParquetFile(file).iter_batches(_NUM_LINES // 2), None)
        pyarrow.parquet.write_table(pa.Table.from_batches([batch] if batch is not None else []), target)
        return target
    if suffix == ".json":
        raise DataError(
            f"{file}: a JSON array of {file.stat().st_size / 2**20:.0f} MB has no beginning that could be read alone; jsonl was expected. "
            "Convert it: one object a line."
        )
    opened = gzip.open if file.suffix == ".gz" else open
    with opened(file, "rt", encoding="utf-8-sig") as whole, opened(target, "wt", encoding="utf-8") as head:
        head.writelines(islice(whole, _NUM_LINES))
    return target
