"""A sign of life of every rank, in a file each; and who reads them: a rank without progress is found and named.

    RUN/logs/heartbeat-<rank>.json   {rank, pid, host, beats, step, doing, time}

Ranks write while they train: at every micro-batch, step, save and evaluation batch. What loads, measures or writes the result is not
watched; there the process group's own time-out holds. The reader counts its own waking time, so a machine that was
suspended, or a terminal's Ctrl-Z, is no hang.
"""

import contextlib
import faulthandler
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOGS = "logs"  # in the run folder
POLL_SECONDS = 0.5
STACKS_SECONDS = 0.5  # that ranks have to write their stacks
RESTING = "resting"
_BYTES = 256


class Heartbeat:
    """This rank's file. A beat is one small write into the page cache."""

    def __init__(self, run_dir: Path, rank: int) -> None:
        folder = run_dir / LOGS
        folder.mkdir(parents=True, exist_ok=True)
        self._rank, self._beats, self._host = rank, 0, socket.gethostname()
        self._file = os.open(folder / f"heartbeat-{rank}.json", os.O_WRONLY | os.O_CREAT, 0o666)
        self._stacks_path = folder / f"rank{rank}.stacks"
        self._stacks = self._stacks_path.open("w", encoding="utf-8")
        faulthandler.register(signal.SIGUSR1, file=self._stacks, all_threads=True)

    def beat(self, step: int, doing: str) -> None:
        """Says that there was progress."""
        self._beats += 1
        facts = {"rank": self._rank, "pid": os.getpid(), "host": self._host, "beats": self._beats}
        facts |= {"step": step, "doing": doing, "time": round(time.time(), 3)}
        os.pwrite(self._file, json.dumps(facts).ljust(_BYTES).encode(), 0)

    def close(self, step: int) -> None:
        """No more beats are to be waited for."""
        self.beat(step, RESTING)
        os.close(self._file)
        faulthandler.unregister(signal.SIGUSR1)
        self._stacks.close()
        if self._stacks_path.is_file() and not self._stacks_path.stat().st_size:
            self._stacks_path.unlink()


@dataclass(frozen=True)
class Hang:
    """The rank that is furthest behind, and all ranks whose files were read."""

    rank: int
    step: int
    doing: str
    seconds: float
    is_stopped: bool  # by SIGSTOP or a debugger
    beats: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        how = "is stopped (SIGSTOP)" if self.is_stopped else f"made no progress for {self.seconds:.0f} s"
        return (
            f"rank {self.rank} {how} in step {self.step + 1} ({self.doing}); train.hang_timeout expects some. "
            f"The stacks of the ranks are in {LOGS}/rank*.stacks of the run folder; the same command goes on from the last checkpoint."
        )


class Watch:
    """Looks at the heartbeats of a run now and then.

    Args:
        timeout: seconds without progress after which a rank counts as hung; 0: never.

    Attributes:
        found: the hang that ended the watch.
    """

    def __init__(self, run_dir: Path, timeout: float) -> None:
        self.run_dir, self.timeout = run_dir, timeout
        self._looked = time.monotonic()
        self._waited: dict[tuple[int, int, int], float] = {}  # (rank, pid, beats) to seconds that it has been so
        self._began = time.time()
        self.found: Hang | None = None

    def look(self) -> Hang | None:
        """A rank that hangs, if there is one. Cheap enough to be called in a loop."""
        now = time.monotonic()
        passed = now - self._looked
        if not self.timeout or passed < min(POLL_SECONDS, self.timeout / 4):
            return None
        self._looked = now
        beats = [beat for beat in read_beats(self.run_dir) if beat["time"] > self._began]
        waited = {}
        for beat in beats:
            if beat["doing"] != RESTING:
                key = (beat["rank"], beat["pid"], beat["beats"])
                waited[key] = self._waited.get(key, 0.0) + min(passed, 2 * POLL_SECONDS)
        self._waited = waited
        longest = max(waited.values(), default=0.0)
        if longest > self.timeout:
            self.found = self._name(beats, longest)
        return self.found

    def _name(self, beats: list[dict[str, Any]], seconds: float) -> Hang:
        """Others wait for the one that is behind, so they soon look the same: a stopped one, or the one with the fewest beats."""
        first = min(beats, key=lambda beat: (not _is_stopped(beat), beat["beats"], beat["time"]))
        return Hang(first["rank"], first["step"], first["doing"], seconds, _is_stopped(first), tuple(beats))


def read_beats(run_dir: Path) -> list[dict[str, Any]]:
    """What the ranks wrote last, in the order of ranks; one that is being written is left out."""
    found = []
    for path in (run_dir / LOGS).glob("heartbeat-*.json"):
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda beat: beat["rank"])


def end_ranks(hang: Hang) -> None:
    """Has every rank on this machine write its stacks, and ends those that are not this process.

    Stopped ones come last and must be woken for it: the others are gone then, so they cannot go on.
    """
    here = [beat for beat in hang.beats if beat["host"] == socket.gethostname() and beat["doing"] != RESTING]
    stopped = [beat["pid"] for beat in here if _is_stopped(beat)]
    for pids in ([beat["pid"] for beat in here if beat["pid"] not in stopped], stopped):
        if pids:
            _send(pids, signal.SIGUSR1, signal.SIGCONT)
            time.sleep(STACKS_SECONDS)
            _send([pid for pid in pids if pid != os.getpid()], signal.SIGKILL)


def _send(pids: Iterable[int], *numbers: int) -> None:
    for pid in pids:
        for number in numbers:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _is_stopped(beat: dict[str, Any]) -> bool:
    """Whether the kernel holds the process, on Linux and on this machine."""
    if beat["host"] != socket.gethostname():
        return False
    try:
        status = Path(f"/proc/{beat['pid']}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] in ("T", "t")


def watch_oneself(watch: Watch, end: Callable[[Hang], None]) -> threading.Event:
    """Watches from a thread of the watched process itself, where no launcher of ours does. Setting the event ends it."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(POLL_SECONDS):
            if (hang := watch.look()) is not None:
                end_ranks(hang)
                end(hang)
                return

    if watch.timeout:
        threading.Thread(target=run, name="hang-watch", daemon=True).start()
    return over
