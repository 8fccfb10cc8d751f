"""Hashes of word sequences, vectorised: what near duplicates and decontamination compare."""

from collections.abc import Sequence

import numpy as np
import xxhash

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_MAX_WORDS = 1_000_000


class WordHashes(dict):
    """64-bit hash of each word, computed once. Emptied when it has grown to a million words (0.15 GB)."""

    def __missing__(self, word: bytes) -> int:
        if len(self) >= _MAX_WORDS:
            self.clear()
        value = self[word] = xxhash.xxh64_intdigest(word)
        return value

    def of(self, words: Sequence[bytes]) -> np.ndarray:
        """uint64 [len(words)]."""
        return np.fromiter(map(self.__getitem__, words), dtype=np.uint64, count=len(words))


def ngram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """uint64 hash of every n consecutive words; empty when there are fewer."""
    if len(hashes) < n:
        return np.zeros(0, dtype=np.uint64)
    last = len(hashes) - n + 1
    out = hashes[:last].copy()
    for offset in range(1, n):
        out *= _MULTIPLIER
        out += hashes[offset : offset + last]
    # A polynomial of words keeps what they have in common; two rounds of mixing spread it.
    out ^= out >> np.uint64(29)
    out *= _MIX
    out ^= out >> np.uint64(32)
    return out
