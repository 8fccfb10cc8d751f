"""Reading files that may be hostile: a small file that unpacks into gigabytes is refused before memory is full.

Text and parquet each say how large they become while, or before, they are read. What the rows hold is not looked at here.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.errors import DataError

# Chat rows and web text shrink to a quarter or a tenth; 298 kB that become 300 MB are a thousand times.
MAX_RATIO = 200
FREE_BYTES = 64 * 2**20  # below this size nothing is asked
MAX_LINE_BYTES = 64 * 2**20
_CHUNK = 2**20


def read_bytes(path: Path) -> bytes:
    """The file's bytes, unpacked when its name ends in .gz.

    Raises:
        DataError: a broken archive, one that unpacks into more than MAX_RATIO times its size, or a line that is no row.
    """
    raw = _unpack(path) if path.name.endswith(".gz") else path.read_bytes()
    if len(raw) > MAX_LINE_BYTES and path.name.removesuffix(".gz").endswith(".jsonl"):
        _check_lines(path, raw)
    return raw


@contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Inside, what pyarrow says of a file that is no parquet is a DataError. So is parquet that is packed once more."""
    import pyarrow as pa

    if path.name.endswith(".gz"):
        raise DataError(
            f"{path}: found parquet inside gzip; parquet, which is packed in itself, was expected. Unpack it: gunzip {path.name}"
        )
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"{path}: {said[0]}; a whole parquet file was expected. Copy it again, or convert it."
        ) from error


def check_parquet_size(path: Path) -> None:
    """Raises DataError when the columns are more than MAX_RATIO times the file."""
    import pyarrow.parquet

    metadata = pyarrow.parquet.read_metadata(path)
    size = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    if is_bomb(size, path.stat().st_size):
        raise _bomb(path, size)


def _unpack(path: Path) -> bytes:
    packed = path.stat().st_size
    parts, size = [], 0
    try:
        with gzip.open(path) as file:
            while part := file.read(_CHUNK):
                parts.append(part)
                size += len(part)
                if is_bomb(size, packed):
                    raise _bomb(path, size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: {error} after {size} unpacked bytes; a whole gzip file was expected. Copy it again."
        ) from error
    return b"".join(parts)


def _check_lines(path: Path, raw: bytes) -> None:
    start, number = 0, 1
    while start < len(raw):
        end = raw.find(b"\n", start)
        end = len(raw) if end < 0 else end
        if end - start > MAX_LINE_BYTES:
            raise DataError(
                f"{path}:{number}: found a line of {end - start} bytes; at most {MAX_LINE_BYTES} were expected. Split the row."
            )
        start, number = end + 1, number + 1


def is_bomb(size: int, packed: int) -> bool:
    """Whether so many bytes out of so few are an attack rather than data."""
    return size > FREE_BYTES and size > MAX_RATIO * packed


def _bomb(path: Path, size: int) -> DataError:
    return DataError(
        f"{path}: {path.stat().st_size} bytes unpack into {size} or more; at most {MAX_RATIO} times its size was expected."
        " If the rows are really so much alike, unpack the file yourself."
    )
