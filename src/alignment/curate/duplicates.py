"""Which rows say the same: keys of exact duplicates, sketches of near ones, and which row of a group is kept.

A sketch is MinHash (Broder 1997) over shingles of words, compared by bands; every candidate pair is verified on the whole sketch.
All rows are compared at once, so the survivors do not depend on how the rows were dealt to processes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignment.curate.hashing import WordHashes, ngram_hashes
from alignment.curate.words import fold
from alignment.recipe.curate_spec import NearDedupSpec

_SEED = 42
_BATCH = 2000


def exact_key(texts: Sequence[str], normalized: bool) -> bytes:
    """16 bytes that equal texts share: 64 bits would join strangers among billions."""
    parts = [b" ".join(fold(text)) if normalized else text.encode("utf-8", "surrogatepass") for text in texts]
    # A text of punctuation alone folds to nothing; it is compared as it is.
    if normalized and not any(parts):
        parts = [b"\1" + text.encode("utf-8", "surrogatepass") for text in texts]
    return hashlib.blake2b(b"\0".join(parts), digest_size=16).digest()


class Sketcher:
    """Collects shingles and sketches them in batches."""

    def __init__(self, spec: NearDedupSpec):
        self.spec = spec
        self.words = WordHashes()
        self.size = spec.bands * spec.band_rows
        self._waiting: list[np.ndarray] = []
        self._done: list[np.ndarray] = []

    def add(self, text: str) -> None:
        """Adds a row; one of fewer words than a shingle has no sketch and is never a near duplicate."""
        self._waiting.append(ngram_hashes(self.words.of(fold(text)), self.spec.ngram))
        if len(self._waiting) == _BATCH:
            self._flush()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """uint32 [rows, bands * band_rows], and whether each row has a sketch."""
        self._flush()
        sketches = np.concatenate(self._done) if self._done else np.zeros((0, self.size), dtype=np.uint32)
        return sketches, (sketches != np.uint32(0xFFFFFFFF)).any(axis=1)

    def _flush(self) -> None:
        if not self._waiting:
            return
        import rensa

        offsets = np.zeros(len(self._waiting) + 1, dtype=np.uint64)
        offsets[1:] = np.cumsum([len(shingles) for shingles in self._waiting])
        rows = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            np.concatenate(self._waiting), offsets, self.size, _SEED
        )
        sketches = np.array(rows.to_rows(), dtype=np.uint32).reshape(len(self._waiting), self.size)
        sketches[np.diff(offsets) == 0] = 0xFFFFFFFF
        self._done.append(sketches)
        self._waiting = []


@dataclass(frozen=True)
class Rank:
    """What decides between rows of a group, an array of each: the source's place, characters, and the row's place."""

    source: np.ndarray
    length: np.ndarray

    def order(self, rules: Sequence[str]) -> np.ndarray:
        """Every row's place when the one to keep comes first."""
        place = np.arange(len(self.source))
        keys = {"source": self.source, "longest": -self.length, "shortest": self.length, "first": place}
        order = np.lexsort([place, *(keys[rule] for rule in reversed(rules))])
        ranks = np.empty(len(order), dtype=np.int64)
        ranks[order] = place
        return ranks


def group_exact(keys: np.ndarray) -> np.ndarray:
    """A group number for each row; `keys` are void of 16 bytes."""
    return np.unique(keys, return_inverse=True)[1].reshape(-1)


def group_near(sketches: np.ndarray, valid: np.ndarray, spec: NearDedupSpec) -> np.ndarray:
    """A group number for each row: rows joined by verified pairs, directly or through others."""
    parent = np.arange(len(sketches))
    rows = np.flatnonzero(valid)
    for band in range(spec.bands):
        part = np.ascontiguousarray(sketches[rows, band * spec.band_rows : (band + 1) * spec.band_rows])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * spec.band_rows))).reshape(-1)
        _, numbers = np.unique(keys, return_inverse=True)
        order = np.argsort(numbers.reshape(-1), kind="stable")
        same = np.flatnonzero(np.diff(numbers.reshape(-1)[order]) == 0)
        left, right = rows[order[same]], rows[order[same + 1]]
        alike = (sketches[left] == sketches[right]).mean(axis=1) >= spec.verify
        for one, other in zip(left[alike].tolist(), right[alike].tolist(), strict=True):
            _join(parent, one, other)
    return np.array([_root(parent, row) for row in range(len(parent))], dtype=np.int64)


def choose_survivors(groups: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """For each row the row of its group that is kept; itself when it is that one."""
    order = np.lexsort([ranks, groups])
    starts = np.flatnonzero(np.concatenate([[True], np.diff(groups[order]) != 0])) if len(order) else order
    sizes = np.diff(np.append(starts, len(order)))
    survivors = np.empty(len(groups), dtype=np.int64)
    survivors[order] = np.repeat(order[starts], sizes)
    return survivors


def _root(parent: np.ndarray, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = int(parent[row])
    return row


def _join(parent: np.ndarray, one: int, other: int) -> None:
    one, other = _root(parent, one), _root(parent, other)
    parent[max(one, other)] = min(one, other)
