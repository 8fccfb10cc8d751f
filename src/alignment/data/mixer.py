"""Which rows of which sources, in which order; and whether held-out rows are among those trained on.

Everything is drawn from the recipe's seed and the sources' own names: the plan is the same on every rank and machine, and
a source that is added or reordered does not change the rows that another one gives. Reading rows is the sources'; what
they hold is the formats'.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alignment.data.draw import draw_sources, find_share, generator, identify
from alignment.data.formats import BadRow, Example, make_example
from alignment.data.quotas import Sharing
from alignment.data.sources import Source
from alignment.errors import DataError
from alignment.recipe.data_spec import SourceSpec

# Shorter documents, such as headings, are found in two texts without one being copied from the other.
MIN_SHARED_CHARACTERS = 100
_NUM_SHOWN = 3
NO_SHARES = Sharing()


@dataclass(frozen=True)
class MixRow:
    """What one source gave to one split, in rows."""

    split: Literal["train", "eval"]
    source: str
    format: str
    asked: str  # as the recipe says it: "40000 rows", "2.5 times", "all"
    available: int
    obtained: int
    unique: int


@dataclass(frozen=True)
class Mixture:
    """The plan of one split: `source_index[i]` (int32), `row_index[i]` (int64) name the i-th row."""

    split: Literal["train", "eval"]
    sources: tuple[Source, ...]
    source_index: np.ndarray
    row_index: np.ndarray
    report: tuple[MixRow, ...]

    def __len__(self) -> int:
        return len(self.row_index)

    def unique(self) -> tuple["Mixture", np.ndarray]:
        """The distinct rows, by source and number; and for each row of the plan its place among them."""
        starts = np.cumsum([0, *(len(source.rows) for source in self.sources)])
        numbers, place = np.unique(starts[self.source_index] + self.row_index, return_inverse=True)
        source_index = np.searchsorted(starts, numbers, side="right").astype(np.int32) - 1
        return Mixture(self.split, self.sources, source_index, numbers - starts[source_index], self.report), place


@dataclass(frozen=True)
class ExampleRow:
    """An example and the row that it came from."""

    example: Example
    source: int
    row: int


@dataclass(frozen=True)
class BadRows:
    """Rows that were left out before encoding."""

    counts: Counter = field(default_factory=Counter)  # reason: rows
    by_source: Counter = field(default_factory=Counter)  # (source, reason): rows
    shown: dict[str, list[str]] = field(default_factory=dict)  # reason: the first few, with file:line

    def add(self, source: int, where: str, error: BadRow) -> None:
        self.counts[error.reason] += 1
        self.by_source[source, error.reason] += 1
        if self.counts[error.reason] <= _NUM_SHOWN:
            self.shown.setdefault(error.reason, []).append(f"{where}, {error}")


# ------------------------------------------------------------------------------------------------ the plan


def mix(
    sources: Sequence[Source],
    seed: int,
    split: Literal["train", "eval"],
    sharing: Sharing = NO_SHARES,
    tokens: Sequence[np.ndarray] | None = None,
) -> Mixture:
    """Draws the rows of every source and lays training rows out evenly; held-out rows stay in file order.

    The k-th of a source's n rows lies at (k + phase) / n of the mixture, so that any stretch of it holds every source in its
    share, and a source's rows keep their order whichever others there are.

    Args:
        tokens: of each source, the tokens of each of its rows; needed where tokens are shared.

    Raises:
        DataError: a source that has no rows, or fewer than asked.
    """
    for source in sources:
        if not len(source.rows):
            raise DataError(
                f"{source.label}: found no rows; at least one was expected. Correct 'path', 'split' or 'where', or remove the source."
            )
    drawn = draw_sources(sources, seed, sharing, tokens)
    report = [_report(split, source, rows, sharing) for source, rows in zip(sources, drawn, strict=True)]
    if split == "eval":
        drawn = [np.sort(rows, kind="stable") for rows in drawn]
    source_index = np.repeat(np.arange(len(drawn), dtype=np.int32), [len(rows) for rows in drawn])
    row_index = np.concatenate(drawn)
    if split == "train":
        # Each source's places rise, which a stable sort makes use of.
        order = np.argsort(_places(sources, drawn, seed), kind="stable")
        source_index, row_index = source_index[order], row_index[order]
    return Mixture(split, tuple(sources), source_index, row_index, tuple(report))


def take_all(sources: Sequence[Source], split: Literal["train", "eval"]) -> Mixture:
    """Every row of every source once, in file order."""
    sizes = [len(source.rows) for source in sources]
    source_index = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    row_index = np.concatenate([np.arange(size, dtype=np.int64) for size in sizes])
    return Mixture(split, tuple(sources), source_index, row_index, ())


def _places(sources: Sequence[Source], drawn: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """Where each row lies in the mixture, from 0 to 1; entries of the same files have phases of their own."""
    before: Counter = Counter()
    places = []
    for source, rows in zip(sources, drawn, strict=True):
        identity = identify(source.spec)
        phase = generator(seed, f"phase {before[identity]}\n{identity}").random()
        before[identity] += 1
        places.append((np.arange(len(rows)) + phase) / max(len(rows), 1))
    return np.concatenate(places)


def _report(split: Literal["train", "eval"], source: Source, rows: np.ndarray, sharing: Sharing) -> MixRow:
    unique = int(np.count_nonzero(np.bincount(rows, minlength=1)))
    asked = _asked(source.spec, sharing)
    return MixRow(split, source.label, source.spec.format, asked, len(source.rows), len(rows), unique)


def _asked(spec: SourceSpec, sharing: Sharing) -> str:
    if (share := find_share(spec)) is not None:
        return f"{100 * share:g} % of {sharing.share_of}"
    if sharing.temperature is not None:
        return f"temperature {sharing.temperature:g} of {sharing.share_of}"
    if spec.stream:
        return f"{spec.rows} rows, the first of a stream of shards in seeded order"
    if spec.rows is not None:
        return f"{spec.rows} rows"
    return "all" if spec.repeat is None else f"{spec.repeat:g} times"


# ------------------------------------------------------------------------------------------------ examples


def read_examples(mixture: Mixture, on_bad_row: Literal["error", "drop"]) -> tuple[list[ExampleRow], BadRows]:
    """The examples of a plan, and the rows that were no examples.

    Raises DataError that lists every kind of bad row with its first places, unless bad rows are to be dropped; and when a
    source has nothing else.
    """
    examples, bad = [], BadRows()
    good: Counter = Counter()
    for source_index, row_index in zip(mixture.source_index.tolist(), mixture.row_index.tolist(), strict=True):
        source = mixture.sources[source_index]
        try:
            example = make_example(source.rows[row_index], source.spec)
        except BadRow as error:
            bad.add(source_index, source.where(row_index), error)
            continue
        good[source_index] += 1
        examples.append(ExampleRow(example, source_index, row_index))
    if bad.counts and on_bad_row == "error":
        raise_bad_rows(bad, len(mixture), "Mend the rows, or drop them with data.on_bad_row: drop.")
    for index, source in enumerate(mixture.sources):
        if not good[index]:
            raise_bad_rows(
                bad, len(mixture), f"Nothing is left of {source.label}: correct its 'format', 'columns' or 'roles'."
            )
    return examples, bad


def raise_bad_rows(bad: BadRows, num_rows: int, advice: str) -> None:
    """Raises DataError with each reason's first row and how many rows share it."""
    reasons = [
        f"{bad.shown[reason][0]} ({count} of {num_rows} rows: {reason})" for reason, count in bad.counts.most_common(5)
    ]
    raise DataError(f"{'; '.join(reasons)}. {advice}")


# ------------------------------------------------------------------------------------------------ overlap


@dataclass(frozen=True)
class Overlap:
    """What training and held-out rows share without being the same, in held-out rows."""

    prompts: int  # the same prompt with another answer
    short_texts: int  # the same document of fewer than MIN_SHARED_CHARACTERS characters


def check_overlap(
    train: tuple[Mixture, Sequence[ExampleRow]], held_out: tuple[Mixture, Sequence[ExampleRow]]
) -> Overlap:
    """Counts what is shared. Raises DataError when a held-out row, prompt and answer, is also trained on.

    Rows are compared without case, white space and Unicode variants; system messages do not count.
    """
    trained_on = _first_by(_content_key, train[1])
    prompts = set(_first_by(prompt_key, train[1]))
    same, short, shared_prompts = [], 0, 0
    for row in held_out[1]:
        other = trained_on.get(_content_key(row.example))
        if other is None:
            shared_prompts += prompt_key(row.example) in prompts
        elif row.example.kind == "text" and len(row.example.text) < MIN_SHARED_CHARACTERS:
            short += 1
        else:
            same.append((row, other))
    if same:
        places = [f"{_where(held_out[0], row)} is {_where(train[0], other)}" for row, other in same[:_NUM_SHOWN]]
        raise DataError(
            f"data.eval: {len(same)} of {len(held_out[1])} held-out rows are also trained on ({'; '.join(places)}); none was expected."
            " Remove them from one side."
        )
    return Overlap(shared_prompts, short)


def _first_by(key: Callable[[Example], bytes | None], rows: Iterable[ExampleRow]) -> dict[bytes, ExampleRow]:
    first: dict[bytes, ExampleRow] = {}
    for row in rows:
        if (found := key(row.example)) is not None:
            first.setdefault(found, row)
    return first


def _where(mixture: Mixture, row: ExampleRow) -> str:
    return mixture.sources[row.source].where(row.row)


def _content_key(example: Example) -> bytes:
    if example.kind == "text":
        return _digest(["text", example.text])
    parts = example.messages if example.kind == "chat" else (*example.prompt, *example.chosen, None, *example.rejected)
    return _digest(said(parts))


def prompt_key(example: Example) -> bytes | None:
    """Key of what stands before the last answer; None for a document."""
    if example.kind == "text":
        return None
    return _digest(said(example.asked))


def content_digest(messages: Iterable[Any]) -> bytes:
    """Key of what messages say, whatever case, white space and Unicode variant they are written in."""
    return _digest(said(messages))


def said(messages: Iterable[Any]) -> list[str]:
    """Roles, contents and tool calls of messages, without system messages; None parts two answers."""
    parts = []
    for message in messages:
        if message is None:
            parts.append("")
        elif message["role"] not in ("system", "developer"):
            parts += [message["role"], str(message["content"]), str(message.get("tool_calls", ""))]
    return parts


def _digest(parts: Iterable[str]) -> bytes:
    text = "\0".join(" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in parts)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
