"""A rehearsed stage on its ranks: run until it is killed, run again, and what either left behind.

It is the stage itself, through the worker that every launch uses. A rank is killed as a machine kills it: SIGKILL, at a moment
that nothing in the stage knows of.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import LaunchError
from alignment.launch.configs import LaunchConfig
from alignment.launch.request import TrainRequest
from alignment.launch.worker import run_worker
from alignment.report.run_files import read_json
from alignment.train.run_folder import EXIT

LIMIT_SECONDS = 300
_POLL_SECONDS = 0.003
_METRICS = "metrics.jsonl"
# Of a line of metrics.jsonl, what another run of the same steps measures differently.
_MEASURED = ("time", "second", "runtime", "memory")


@dataclass(frozen=True)
class Launch:
    """How one launch ended."""

    code: int
    killed: bool  # by the rehearsal, on purpose
    reason: str  # of a code other than 0
    seconds: float


def launch(
    request: TrainRequest, config: LaunchConfig | None, num_processes: int, log: Path, kill_at: int | None = None
) -> Launch:
    """Runs the request's stage in forked ranks, as `alignment train` would.

    Args:
        log: where everything that the ranks say goes.
        kill_at: step whose line in metrics.jsonl is the sign to kill all ranks; None lets them end.
    """
    from alignment.launch.ranks import run_ranks

    run_dir = Path(request.out)
    marks = log.with_suffix("")
    begun = time.perf_counter()

    def work() -> int:
        _speak_into(log)
        threading.Thread(target=_watch, args=(run_dir / _METRICS, kill_at, marks), daemon=True).start()
        return run_worker(request)

    with _logging_into(log):
        code = run_ranks(
            work, config=config.path if config else None, num_processes=num_processes, log_dir=log.with_suffix(".ranks")
        )
    killed, hung = marks.with_suffix(".killed").exists(), marks.with_suffix(".hung").exists()
    for mark in (marks.with_suffix(".killed"), marks.with_suffix(".hung")):
        mark.unlink(missing_ok=True)
    if hung:
        code = LaunchError.code
    reason = "" if code == 0 or killed else f"no end after {LIMIT_SECONDS} s" if hung else _find_reason(run_dir, log)
    return Launch(code, killed and not hung, reason, time.perf_counter() - begun)


def in_one_process(work: Callable[[], int], log: Path) -> tuple[int, str]:
    """Runs `work` in a forked process; its exit code, and the last line that it said where that is not 0."""
    from alignment.launch.ranks import run_ranks

    def speaking() -> int:
        _speak_into(log)
        return work()

    with _logging_into(log):
        code = run_ranks(speaking, config=None, num_processes=1, log_dir=log.parent)
    return code, _last_line(log) if code else ""


def _watch(metrics: Path, kill_at: int | None, marks: Path) -> None:
    """In each rank: kills this process when a step is logged, or when it takes far too long."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < deadline:
        if kill_at is not None and _last_step(metrics) >= kill_at:
            marks.with_suffix(".killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(_POLL_SECONDS if kill_at is not None else 1.0)
    marks.with_suffix(".hung").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def _last_step(metrics: Path) -> int:
    return max((line["step"] for line in read_lines(metrics)), default=0)


def read_lines(metrics: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl; nothing where it is not there."""
    try:
        text = metrics.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


# ------------------------------------------------------------------------------------------------ what is compared


def read_steps(run_dir: Path) -> dict[int, dict[str, float]]:
    """Step to the numbers that a training step logged."""
    lines = (line for line in read_lines(run_dir / _METRICS) if "loss" in line)
    return {line["step"]: {name: value for name, value in line.items() if _is_compared(name, value)} for line in lines}


def read_times(run_dir: Path, last: int) -> list[tuple[int, float]]:
    """When each step up to `last` was logged. A run that goes on keeps these lines; one that begins anew writes its own."""
    lines = read_lines(run_dir / _METRICS)
    return [(line["step"], line["time"]) for line in lines if "loss" in line and line["step"] <= last]


def _is_compared(name: str, value: Any) -> bool:
    return isinstance(value, int | float) and not any(part in name for part in _MEASURED)


def compare_steps(before: dict[int, dict[str, float]], after: dict[int, dict[str, float]]) -> tuple[float, str]:
    """The greatest difference of steps that both have, relative where a value is above 1, and which number it is of."""
    worst, name = 0.0, ""
    for step in before.keys() & after.keys():
        for key in before[step].keys() | after[step].keys():
            one, other = before[step].get(key), after[step].get(key)
            gap = float("inf") if one is None or other is None else abs(one - other) / max(1.0, abs(one))
            if gap > worst:
                worst, name = gap, f"{key} of step {step}"
    return worst, name


# ------------------------------------------------------------------------------------------------ what was said


def _find_reason(run_dir: Path, log: Path) -> str:
    """Why a stage failed, in its own words."""
    said = read_json(run_dir / EXIT).get("reason", "")
    return said if said and "see the traceback" not in said else _last_line(log)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"


def _speak_into(log: Path) -> None:
    """In a rank: what it says goes to the end of a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


@contextmanager
def _logging_into(log: Path) -> Iterator[None]:
    """What this process's own launcher says goes there too: that ranks were lost is what was wanted."""
    logger = logging.getLogger("alignment")
    log.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log, encoding="utf-8")
    before, propagates, level = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagates
        logger.setLevel(level)
        handler.close()
