"""How well rows were removed, where a column says what is wrong with them: a sum over all rows, kept and removed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from alignment.errors import DataError

KEPT, CLEAN = "kept", "clean"


class Score:
    """Counts rows by what was wrong with them and what became of them."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.counts: Counter = Counter()
        self.is_known = False  # whether a row has the column

    def add(self, row: Mapping[str, Any], became: str) -> None:
        """Counts a row that was kept, or removed for the reason `became`."""
        self.is_known |= self.column in row
        self.counts[str(row.get(self.column) or CLEAN), became] += 1

    def result(self) -> dict[str, Any]:
        """`truth`: what was wrong to what became of it to rows; `metrics`: recall and precision, where there is something to measure.

        Recall is the share of the rows with something wrong that were removed, precision the share of the removed rows with
        something wrong.

        Raises:
            DataError: no row has the column.
        """
        if self.counts and not self.is_known:
            raise DataError(
                f"curate.truth: no row has a column '{self.column}'; what is wrong with each row was expected there. Correct it."
            )
        truth: dict[str, dict[str, int]] = {}
        for (wrong, became), count in sorted(self.counts.items()):
            truth.setdefault(wrong, {})[became] = count
        planted = sum(count for (wrong, _), count in self.counts.items() if wrong != CLEAN)
        removed = sum(count for (_, became), count in self.counts.items() if became != KEPT)
        both = sum(count for (wrong, became), count in self.counts.items() if wrong != CLEAN and became != KEPT)
        metrics = {"recall": both / planted} if planted else {}
        metrics |= {"precision": both / removed} if removed else {}
        return {"metrics": metrics, "truth": truth}
