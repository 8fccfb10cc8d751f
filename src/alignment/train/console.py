"""Progress for people: one live line on a terminal, otherwise one plain line every 30 s.

A log file or a batch job gets whole lines without control characters; ranks other than 0 get a Console that is silent.
Nothing here decides what is logged, and metrics.jsonl does not depend on it.
"""

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

PLAIN_INTERVAL_SECONDS = 30.0
LIVE_INTERVAL_SECONDS = 0.1
# Metric name to its name on the line, in this order; the line shows those that have been logged.
SHOWN = {
    "loss": "loss",
    "eval_loss": "eval loss",
    "rewards/accuracies": "accuracy",
    "objective/scores": "score",
    "objective/kl": "kl",
    "grad_norm": "grad norm",
    "tokens_per_second": "tok/s",
}
_CLEAR_LINE = "\r\x1b[2K"


class Console:
    """Shows how far a run is.

    Args:
        speaks: False makes every method do nothing; it is True on rank 0 alone.
        stream: where to write; a terminal gets the live line.
        clock: seconds that only ever grow.
    """

    def __init__(
        self, speaks: bool, *, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._speaks = speaks
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._live = speaks and self._stream.isatty()
        self._total_steps = 0
        self._first: tuple[int, float] | None = None  # step and time that the speed is measured from
        self._step = 0
        self._latest: dict[str, float] = {}
        self._spoken_at: float | None = None
        self._pending = False  # something was said to us that was not said on

    def start(self, total_steps: int, first_step: int = 0) -> None:
        """Begins at `first_step`: 0, or the step of the checkpoint that a run continues from."""
        self._total_steps, self._step = total_steps, first_step
        self._first = (first_step, self._clock())
        self._latest, self._spoken_at, self._pending = {}, None, False

    def update(self, step: int, logs: Mapping[str, Any] | None = None) -> None:
        """Takes the metrics of a step and writes when it is time to. The first update is always written."""
        if not self._speaks:
            return
        self._step = step
        self._latest |= {name: float(value) for name, value in (logs or {}).items() if name in SHOWN}
        interval = LIVE_INTERVAL_SECONDS if self._live else PLAIN_INTERVAL_SECONDS
        now = self._clock()
        if self._spoken_at is None or now - self._spoken_at >= interval:
            self._write(now)
        else:
            self._pending = True

    def close(self) -> None:
        """Writes the last line, if it was not, and leaves the terminal at the start of a line."""
        if not self._speaks:
            return
        if self._pending:
            self._write(self._clock())
        if self._live and self._spoken_at is not None:
            self._stream.write("\n")
            self._stream.flush()
        self._spoken_at = None

    def _write(self, now: float) -> None:
        line = self._make_line(now)
        if self._live:
            width = shutil.get_terminal_size().columns
            self._stream.write(_CLEAR_LINE + line[: width - 1])
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
        self._spoken_at, self._pending = now, False

    def _make_line(self, now: float) -> str:
        parts = [f"step {self._step}/{self._total_steps}"]
        for name, label in SHOWN.items():
            if name in self._latest:
                value = self._latest[name]
                parts.append(f"{make_short_number(value)} {label}" if label == "tok/s" else f"{label} {value:.4g}")
        if self._first and self._first[0] < self._step < self._total_steps:
            first_step, first_time = self._first
            left = (now - first_time) / (self._step - first_step) * (self._total_steps - self._step)
            parts.append(f"{make_duration(left)} left")
        return "  ".join(parts)


def make_duration(seconds: float) -> str:
    """42s, 3m05s, 2h03m, 4d01h: the two largest units."""
    whole = math.ceil(seconds) if seconds < 60 else round(seconds)
    for unit, size, smaller, smaller_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // smaller_size:02d}{smaller}"
    return f"{whole}s"


def make_short_number(value: float) -> str:
    """987, 12.1k, 3.4M."""
    for suffix, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.1f}{suffix}"
    return f"{value:.0f}"
