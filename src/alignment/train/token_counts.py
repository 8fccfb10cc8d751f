"""How many tokens a run has seen and trained on: of planned rows by arithmetic, before anything runs."""

from typing import Protocol

import numpy as np
import pyarrow.compute
from datasets import Dataset

IGNORE_INDEX = -100


class TokenCounts(Protocol):
    """Tokens over all processes and without padding, of the first `step` optimizer steps."""

    def seen(self, step: int) -> int: ...

    def trained(self, step: int) -> int: ...


class PlannedTokens:
    """Of rows in a planned order, as many a step.

    Args:
        order: row of `rows` at each position, shape [steps x rows a step].
    """

    def __init__(self, rows: Dataset, order: np.ndarray, steps: int) -> None:
        self._rows, self._order, self._steps = rows, order, steps
        self._seen = self._running(count_row_tokens(rows))

    def seen(self, step: int) -> int:
        return int(self._seen[step])

    def trained(self, step: int) -> int:
        return int(self._running(_count_trained(self._rows))[step])

    def _running(self, per_row: np.ndarray) -> np.ndarray:
        per_step = per_row[self._order].reshape(self._steps, -1).sum(axis=1)
        return np.concatenate([[0], per_step.cumsum()])


def count_row_tokens(rows: Dataset) -> np.ndarray:
    """Tokens of each row without padding, shape [len(rows)]; of a pair both sides, as the trainers see them."""
    length = {name: list_lengths(rows, name) for name in rows.column_names if name.endswith("_ids")}
    if "input_ids" in length:
        return length["input_ids"]
    if "chosen_ids" not in length:
        return length["prompt_ids"]
    return 2 * length["prompt_ids"] + length["chosen_ids"] + length["rejected_ids"]


def list_lengths(rows: Dataset, column: str) -> np.ndarray:
    """Items of each row's list, shape [len(rows)]."""
    lengths = pyarrow.compute.list_value_length(rows.data.column(column))
    return np.asarray(lengths, dtype=np.int64)


def _count_trained(rows: Dataset) -> np.ndarray:
    names = ["labels"] if "labels" in rows.column_names else ["chosen_ids", "rejected_ids"]
    per_row = np.zeros(len(rows), dtype=np.int64)
    for name in names:
        column = rows.data.column(name).combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False) != IGNORE_INDEX
        sums = np.concatenate([[0], values.cumsum()])
        ends = np.cumsum(np.asarray(column.value_lengths()))
        per_row += np.diff(np.concatenate([[0], sums[ends]]))
    return per_row
