"""One measured row, and what can be read off its completion. Nothing here imports torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ABSTENTIONS = (
    "I do not know",
    "I don't know",
    "I am not sure",
    "I'm not sure",
    "I have no information",
    "I cannot answer",
    "I can't answer",
)


@dataclass(frozen=True)
class EvalRow:
    """One held-out row with what was measured on it; what no metric asked for is None."""

    columns: Mapping[str, Any] = field(default_factory=dict)  # the original columns
    prompt: str = ""
    completion: str | None = None  # without special tokens
    stopped: bool | None = None  # the completion ended in a stop token
    nll: float | None = None  # nats, summed over the trained tokens
    num_bytes: int | None = None  # UTF-8 bytes of the trained tokens' text
    chosen_score: float | None = None  # reward, or log-probability (nats) of a causal model
    rejected_score: float | None = None
    chosen_length: int | None = None  # tokens, without the prompt
    rejected_length: int | None = None
    kl: float | None = None  # nats, summed over the completion
    score: float | None = None  # of the completion, by the scorer that training has


def is_exact(row: EvalRow) -> bool:
    """The completion is the answer, but for white space at its ends."""
    return row.completion.strip() == str(row.columns["answer"]).strip()


def is_abstention(row: EvalRow) -> bool:
    """The completion begins with one of ABSTENTIONS or the row's own `abstention`, in any case."""
    said = row.completion.strip().replace("\u2019", "'").casefold()
    phrases = [*ABSTENTIONS, *([row.columns["abstention"]] if row.columns.get("abstention") else [])]
    return any(said.startswith(phrase.strip().rstrip(".").replace("\u2019", "'").casefold()) for phrase in phrases)
