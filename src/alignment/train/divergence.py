"""Which rows a step read whose loss or gradient is not a finite number, for the message and for a file in the run folder."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.errors import DivergedError

DIVERGED = "diverged.json"  # in the run folder
_NUM_ROWS_SHOWN, _NUM_TEXTS, _TEXT_LENGTH = 8, 16, 300


def write_rows(run_dir: Path, step: int, passes: Sequence[dict[str, Any]], norm: float, texts: dict[int, str]) -> None:
    """Writes RUN/diverged.json.

    Args:
        step: the optimizer step, from 1.
        passes: one a forward pass of any rank: {rank, rows, loss}; rows are indices into the prepared rows.
        texts: what some of the rows say.
    """
    facts = {
        "step": step,
        "grad_norm": _plain(norm),
        "passes": [one | {"loss": _plain(one["loss"])} for one in passes],
        "texts": {str(row): text[:_TEXT_LENGTH] for row, text in texts.items()},
    }
    path = run_dir / DIVERGED
    path.write_text(json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def suspects(passes: Sequence[dict[str, Any]]) -> list[int]:
    """Rows of the passes whose loss is not finite; all rows of the step where only a gradient is not."""
    bad = [one for one in passes if not math.isfinite(one["loss"])] or passes
    return list(dict.fromkeys(row for one in bad for row in one["rows"]))


def choose_texts(passes: Sequence[dict[str, Any]]) -> list[int]:
    """The rows whose text is worth a look."""
    return suspects(passes)[:_NUM_TEXTS]


def describe(step: int, passes: Sequence[dict[str, Any]], norm: float, run_dir: Path) -> DivergedError:
    """What to raise."""
    bad = next((one["loss"] for one in passes if not math.isfinite(one["loss"])), None)
    what = f"loss is {bad}" if bad is not None else f"grad_norm is {norm}"
    rows = suspects(passes)
    shown = ", ".join(map(str, rows[:_NUM_ROWS_SHOWN])) + (
        f" and {len(rows) - _NUM_ROWS_SHOWN} more" if len(rows) > _NUM_ROWS_SHOWN else ""
    )
    return DivergedError(
        f"step {step}: {what}; expected a finite number. It read prepared rows {shown} ({run_dir / DIVERGED} has them all). Look at "
        "them, or lower train.learning_rate; no weights were saved after it, and the last checkpoint is kept."
    )


def _plain(value: float) -> float | str:
    """JSON has no NaN."""
    return value if math.isfinite(value) else str(value)
