"""What a person should know of rows that are each right alone: pairs, answers and labels that disagree with each other.

Works on examples, before any token: it says what is there and how often, with the first places, and refuses nothing. Rows that
are wrong by themselves are the formats' and the encoder's.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alignment.data.mixer import ExampleRow, content_digest, prompt_key, said
from alignment.data.sources import Source

# A pair whose answers share this part of their words teaches the difference of a few words.
NEAR_IDENTICAL = 0.95
# Beyond this a model of length alone orders most pairs.
LENGTH_BIAS = 0.7
_NUM_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing found. `text` is a sentence that goes on after the number of rows."""

    kind: str
    rows: int
    of: int
    text: str
    examples: tuple[str, ...]


def examine(sources: Sequence[Source], rows: Sequence[ExampleRow]) -> list[dict[str, Any]]:
    """Findings about the training rows as plain dicts, the most frequent first."""
    findings = [*_roles(sources, rows), *_contradictions(sources, rows)]
    pairs = [row for row in rows if row.example.kind == "pair"]
    if pairs:
        findings += [*_near_identical(sources, pairs), *_length_bias(sources, pairs), *_label_conflicts(sources, pairs)]
    return [asdict(finding) for finding in sorted(findings, key=lambda finding: -finding.rows)]


def similarity(one: str, other: str) -> float:
    """Part of the words that two texts share, counted with repetition (Jaccard of multisets); 1 for two empty texts."""
    words, others = Counter(one.split()), Counter(other.split())
    both = (words | others).total()
    return (words & others).total() / both if both else 1.0


def _where(sources: Sequence[Source], rows: Sequence[ExampleRow]) -> tuple[str, ...]:
    return tuple(sources[row.source].where(row.row) for row in rows[:_NUM_SHOWN])


def _answer(messages: Sequence[dict]) -> str:
    return " ".join(said(messages))


def _near_identical(sources: Sequence[Source], pairs: Sequence[ExampleRow]) -> Iterator[Finding]:
    near = [
        row for row in pairs if similarity(_answer(row.example.chosen), _answer(row.example.rejected)) >= NEAR_IDENTICAL
    ]
    if near:
        text = f"pairs have answers that share {NEAR_IDENTICAL:.0%} of their words or more"
        yield Finding("near_identical_pair", len(near), len(pairs), text, _where(sources, near))


def _length_bias(sources: Sequence[Source], pairs: Sequence[ExampleRow]) -> Iterator[Finding]:
    chosen, rejected = (
        np.array([len(_answer(side(row))) for row in pairs])
        for side in (lambda row: row.example.chosen, lambda row: row.example.rejected)
    )
    for name, favoured in (("longer", chosen > rejected), ("shorter", chosen < rejected)):
        if len(pairs) >= 10 and favoured.mean() > LENGTH_BIAS:
            medians = f"medians {int(np.median(chosen))} and {int(np.median(rejected))} characters"
            text = f"pairs have the {name} answer chosen ({favoured.mean():.0%}; {medians}): length alone orders them"
            shown = [row for row, is_one in zip(pairs, favoured, strict=True) if is_one]
            yield Finding("length_bias", int(favoured.sum()), len(pairs), text, _where(sources, shown))


def _label_conflicts(sources: Sequence[Source], pairs: Sequence[ExampleRow]) -> Iterator[Finding]:
    """Answers that one row prefers and another rejects, for the same prompt."""
    chosen: dict[tuple, ExampleRow] = {}
    for row in pairs:
        chosen.setdefault((prompt_key(row.example), content_digest(row.example.chosen)), row)
    found = [
        (row, other)
        for row in pairs
        if (other := chosen.get((prompt_key(row.example), content_digest(row.example.rejected)))) is not None
    ]
    if found:
        across = sum(row.source != other.source for row, other in found)
        text = f"pairs reject an answer that another row of the same prompt prefers ({across} across sources)"
        places = tuple(f"{_where(sources, [row])[0]} against {_where(sources, [other])[0]}" for row, other in found[:3])
        yield Finding("label_conflict", len(found), len(pairs), text, places)


def _contradictions(sources: Sequence[Source], rows: Sequence[ExampleRow]) -> Iterator[Finding]:
    """Conversations of one prompt with several answers."""
    chats = [row for row in rows if row.example.kind == "chat"]
    answers: dict[bytes, set[bytes]] = {}
    keys = [(prompt_key(row.example), content_digest(row.example.messages[-1:])) for row in chats]
    for prompt, answer in keys:
        answers.setdefault(prompt, set()).add(answer)
    several = [row for row, (prompt, _) in zip(chats, keys, strict=True) if len(answers[prompt]) > 1]
    if several:
        text = "rows have a prompt that other rows answer differently"
        yield Finding("several_answers", len(several), len(chats), text, _where(sources, several))


def _roles(sources: Sequence[Source], rows: Sequence[ExampleRow]) -> Iterator[Finding]:
    """Messages written with from and value, which are converted without being asked for."""
    converted = [row for row in rows if _is_converted(sources[row.source], row.row)]
    if converted:
        text = "rows have from/value messages, which were read as role/content (human as user, gpt as assistant)"
        yield Finding("converted_roles", len(converted), len(rows), text, _where(sources, converted))


def _is_converted(source: Source, row: int) -> bool:
    if source.spec.format != "messages":
        return False
    messages = source.rows[row].get(source.spec.columns.get("messages", "messages"))
    return isinstance(messages, list) and any(isinstance(one, dict) and "from" in one for one in messages)
