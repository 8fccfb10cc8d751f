"""Starting a run again: after a lost or hung rank as often as the recipe allows, and with a smaller micro-batch when memory ran out.

What started the ranks does this, since a process group does not survive one of its ranks.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from alignment.errors import LaunchError, RecipeError
from alignment.recipe.schema import Recipe
from alignment.report.run_files import read_json
from alignment.train.heartbeat import LOGS, RESTING, Watch, read_beats
from alignment.train.incidents import add_incident, read_incidents, read_sizes
from alignment.train.run_folder import EXIT, write_exit

logger = logging.getLogger(__name__)
DEFECT = 1  # a traceback, as the network's in the ranks that another one left
RANK_0_SECONDS = 15.0
MACHINES_SECONDS = 10.0  # before a restart over several machines: until the launchers of all of them have ended
KEPT = (0, RecipeError.code)


def hang_timeout(recipe: Recipe) -> float:
    """Seconds without progress; 0 for a stage without steps."""
    train = getattr(recipe, "train", None)
    return train.hang_timeout if train is not None else 0


def max_restarts(recipe: Recipe) -> int:
    """Restarts that the recipe allows; 0 for a stage without steps."""
    train = getattr(recipe, "train", None)
    return train.max_restarts if train is not None else 0


def supervise(
    attempt: Callable[[Watch], int], *, recipe: Recipe, run_dir: Path, command: str, lost_codes: tuple[int, ...]
) -> int:
    """Runs `attempt` until it ends well or may not be repeated, and returns its exit code, which exit.json has too.

    Args:
        attempt: starts the ranks and returns the code of their launch.
        command: what goes on with the run, for exit.json.
        lost_codes: codes of a launch that lost a rank, or could have; none where other machines take part, whose launchers all
            read in exit.json whether one was lost.
    """
    restarts = 0
    while True:
        before, held = _stamp(run_dir), read_sizes(run_dir)
        watch, began = Watch(run_dir, hang_timeout(recipe)), time.time()
        code = attempt(watch)
        if code == DEFECT and not lost_codes:
            _wait_for_rank_0(run_dir, before)
        written = read_json(run_dir / EXIT).get("code") if _is_new(run_dir, before) else None
        lost = watch.found is not None or (code in lost_codes and written in (None, DEFECT))
        if watch.found is not None:
            code = LaunchError.code
            write_exit(run_dir, code, str(watch.found), command, lost=True)
        elif code not in KEPT:
            code = _settle(run_dir, code, written, command, lost_codes, began)
        if not lost_codes and code == LaunchError.code:
            lost = read_json(run_dir / EXIT).get("lost", False)
        if read_sizes(run_dir) != held and code == LaunchError.code:
            logger.warning("started again: %s", read_incidents(run_dir)["notes"][-1])
            continue
        if not lost or restarts >= max_restarts(recipe):
            return code
        restarts += 1
        if lost_codes:
            reason = read_json(run_dir / EXIT).get("reason", "a rank was lost")
            add_incident(run_dir, f"Restart {restarts} of {max_restarts(recipe)}: {reason}")
        else:
            time.sleep(MACHINES_SECONDS)
        logger.warning("restart %d of %d, from the last checkpoint", restarts, max_restarts(recipe))


def _settle(
    run_dir: Path, code: int, written: int | None, command: str, lost_codes: tuple[int, ...], began: float
) -> int:
    """Makes exit.json say what ended the launch where rank 0 could not know it; returns the code of the command."""
    if not lost_codes:  # one of several machines, which knows of its own ranks alone
        if written is None and code == DEFECT:
            code, what = LaunchError.code, "rank 0 did not say how the run ended; its machine may be lost"
            write_exit(run_dir, code, f"{what}: see the output of all machines", command, lost=True)
            logger.error("%s; the same command goes on from the last checkpoint.", what)
        return written if written is not None else code
    lost = find_lost(run_dir, began)
    if code == DEFECT and DEFECT in lost_codes:  # accelerate's launcher turns every failure into 1
        if written is not None and not (written == DEFECT and lost):
            return written
        code = LaunchError.code
    if written is None or (written == DEFECT and code != DEFECT):
        what = f"{lost} did not come to an end" if lost else "a rank failed or was lost"
        write_exit(run_dir, code, f"{what}: see the output, and {run_dir / LOGS}", command)
        if DEFECT in lost_codes:
            logger.error("%s; the same command goes on from the last checkpoint.", what)
    return code


def find_lost(run_dir: Path, began: float) -> str:
    """`rank 1 (in step 3)` for ranks whose last sign of life is from the midst of the steps; empty when there are none."""
    beats = [beat for beat in read_beats(run_dir) if beat["time"] > began and beat["doing"] != RESTING]
    return ", ".join(f"rank {beat['rank']} (in step {beat['step'] + 1})" for beat in beats)


def _wait_for_rank_0(run_dir: Path, before: int | None) -> None:
    """It is on another machine, and ends when this one's ranks do."""
    until = time.monotonic() + RANK_0_SECONDS
    while not _is_new(run_dir, before) and time.monotonic() < until:
        time.sleep(0.1)


def _stamp(run_dir: Path) -> int | None:
    """Tells an exit.json that is new from the one that was there."""
    path = run_dir / EXIT
    return path.stat().st_mtime_ns if path.is_file() else None


def _is_new(run_dir: Path, before: int | None) -> bool:
    """Whether exit.json was written in this launch; rank 0 removes an old one when it begins."""
    return _stamp(run_dir) not in (None, before)
