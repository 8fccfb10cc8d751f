"""Whether a text holds an item of an evaluation: n words in a row that both share, compared without case and punctuation.

Numbers all count as one word, so an item with other numbers is still found; for the same reason stretches of few different words
(tables of numbers, lists of choices) never count. Items shorter than n words are found whole.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignment.curate.hashing import WordHashes, ngram_hashes
from alignment.curate.shards import eval_files
from alignment.curate.words import fold
from alignment.data.files import read_file
from alignment.errors import DataError
from alignment.recipe.curate_spec import DecontaminateSpec, EvalSetSpec

MIN_WORDS = 6  # of a short item that is looked for inside other text


@dataclass(frozen=True)
class Hit:
    """The item that a text holds: file and line, and the shared words."""

    item: str
    words: str


@dataclass(frozen=True)
class _Length:
    """All stretches of one length: sorted hashes, and the item of each."""

    n: int
    hashes: np.ndarray
    items: np.ndarray


class EvalIndex:
    """The stretches of words of all evaluation items."""

    def __init__(self, spec: DecontaminateSpec, recipe_dir: Path):
        """Raises DataError for evaluation files that are not there or hold no text."""
        self.spec = spec
        self.hashes = WordHashes()
        self.names: list[str] = []
        found: dict[int, dict[int, int]] = {}
        for name, text in _items(spec.evals, recipe_dir):
            words = fold(text)
            n = min(spec.ngram, len(words))
            if n < MIN_WORDS:
                continue
            self.names.append(name)
            grams = ngram_hashes(self.hashes.of(words), n)
            for place, gram in enumerate(grams.tolist()):
                if len(set(words[place : place + n])) >= min(spec.min_distinct_words, n):
                    found.setdefault(n, {}).setdefault(gram, len(self.names) - 1)
        if not found:
            raise DataError(
                "curate.decontaminate: the evaluation sets hold no text; items were expected. Correct 'evals'."
            )
        self.lengths = [_make_length(n, grams) for n, grams in sorted(found.items(), reverse=True)]

    def search(self, text: str) -> Hit | None:
        """The first item that the text holds, or None."""
        words = fold(text)
        hashes = self.hashes.of(words)
        for length in self.lengths:
            grams = ngram_hashes(hashes, length.n)
            if not len(grams):
                continue
            places = np.searchsorted(length.hashes, grams)
            places[places == len(length.hashes)] = 0
            hits = np.flatnonzero(length.hashes[places] == grams)
            if len(hits):
                first = int(hits[0])
                shared = b" ".join(words[first : first + length.n]).decode("utf-8", "replace")
                return Hit(self.names[length.items[places[first]]], shared)
        return None


def _make_length(n: int, grams: dict[int, int]) -> _Length:
    hashes = np.array(list(grams), dtype=np.uint64)
    order = np.argsort(hashes)
    return _Length(n, hashes[order], np.array(list(grams.values()), dtype=np.int64)[order])


def _items(evals: Sequence[EvalSetSpec], recipe_dir: Path) -> Iterator[tuple[str, str]]:
    """`file:line field` and the text of every field of every item."""
    for spec in evals:
        for file in eval_files([spec], recipe_dir):
            read = read_file(file)
            for line, row in zip(read.lines, read.rows, strict=True):
                missing = [name for name in spec.fields if name not in row]
                if missing:
                    raise DataError(
                        f"{spec.path}:{line}: no column '{missing[0]}'; it has {', '.join(row)}. Correct 'fields'."
                    )
                for field in spec.fields or row:
                    value = row[field]
                    if isinstance(value, list | dict):
                        value = json.dumps(value, ensure_ascii=False)
                    if isinstance(value, str):
                        yield f"{file.name}:{line} {field}", value
