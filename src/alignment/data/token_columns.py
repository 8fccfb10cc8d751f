"""Columns of token lists as flat arrays: rows are chosen, joined and written without a Python list for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa

# Rows to one arrow chunk: list offsets of a chunk are 32-bit, so it may hold 2**31 tokens.
_CHUNK_ROWS = 100_000


@dataclass(frozen=True)
class TokenColumn:
    """`values[offsets[i]:offsets[i + 1]]` is row i; values are int32, offsets int64 with one more entry than rows."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> "TokenColumn":
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(lengths.sum()))
        return cls(values, _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return np.diff(self.offsets)

    def take(self, indices: np.ndarray) -> "TokenColumn":
        """The rows `indices`, in that order."""
        lengths = self.lengths[indices]
        offsets = _offsets(lengths)
        source = np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return TokenColumn(self.values[source], offsets)

    def join(self, sizes: np.ndarray) -> "TokenColumn":
        """Consecutive rows joined: the first `sizes[0]` are row 0, and so on."""
        return TokenColumn(self.values, self.offsets[np.concatenate([[0], np.cumsum(sizes)])])

    def to_arrow(self) -> pa.ChunkedArray:
        """A column of lists of int32."""
        chunks = []
        for start in range(0, max(len(self), 1), _CHUNK_ROWS):
            offsets = self.offsets[start : start + _CHUNK_ROWS + 1]
            values = pa.array(self.values[offsets[0] : offsets[-1]], type=pa.int32())
            chunks.append(pa.ListArray.from_arrays(pa.array((offsets - offsets[0]).astype(np.int32)), values))
        return pa.chunked_array(chunks, type=pa.list_(pa.int32()))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])
