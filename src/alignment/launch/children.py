"""Waiting for the processes of a launch: signals are passed on, and one that fails ends the others."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from alignment.errors import LaunchError, Preempted
from alignment.train.heartbeat import Hang, Watch, end_ranks
from alignment.train.stopping import SAME_REQUEST_SECONDS

FORWARDED = (signal.SIGINT, signal.SIGTERM)
GRACE_SECONDS = 1.0  # that others have to end by themselves, and to say why, once one has failed
PREEMPTED_GRACE_SECONDS = 60.0  # ranks that agreed to stop may still be writing their checkpoint
_POLL_SECONDS = 0.02


class Children:
    """Process groups that this process started, by rank.

    Attributes:
        statuses: rank to exit code, negative for a signal, as `os.waitstatus_to_exitcode` says it; in the order they ended.
        ended_by_us: ranks that were killed because another one had failed.
        signalled: the last signal that was passed on, if any.
        hang: the rank without progress for which all were ended, if any.
    """

    def __init__(self) -> None:
        self.pids: list[int] = []
        self.statuses: dict[int, int] = {}
        self.ended_by_us: set[int] = set()
        self.signalled: int | None = None
        self.hang: Hang | None = None
        self._signalled_at = 0.0

    def add(self, pid: int) -> None:
        """Takes a child, which leads a process group of its own: what it starts ends with it."""
        with contextlib.suppress(PermissionError, ProcessLookupError):  # it did so itself, or is gone
            os.setpgid(pid, pid)
        self.pids.append(pid)

    def wait(self, watch: Watch | None = None) -> None:
        """Returns when all have ended; ends them when one of the ranks that `watch` looks at hangs."""
        failed_at, grace = None, GRACE_SECONDS
        while len(self.statuses) < len(self.pids):
            self._collect()
            if watch is not None and self.hang is None and (hang := watch.look()) is not None:
                self.hang = hang
                self.ended_by_us |= set(range(len(self.pids))) - set(self.statuses)
                end_ranks(hang)
                self.send(signal.SIGKILL)
            failed = [status for status in self.statuses.values() if status]
            if failed and failed_at is None:
                failed_at = time.monotonic()
                grace = PREEMPTED_GRACE_SECONDS if failed[0] == Preempted.code else GRACE_SECONDS
            if failed_at is not None and time.monotonic() - failed_at > grace:
                self.ended_by_us |= set(range(len(self.pids))) - set(self.statuses)
                self.send(signal.SIGKILL)
            time.sleep(_POLL_SECONDS)

    def _collect(self) -> None:
        for rank, pid in enumerate(self.pids):
            if rank not in self.statuses:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    self.statuses[rank] = os.waitstatus_to_exitcode(status)

    def send(self, number: int) -> None:
        """Sends a signal to those that still run, and to what they started."""
        for rank, pid in enumerate(self.pids):
            if rank not in self.statuses:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, number)

    def pass_on(self, number: int, _: FrameType | None = None) -> None:
        """The first SIGINT or SIGTERM goes to the children, which may seal a checkpoint; a second one ends them."""
        if self.signalled is None:
            self._signalled_at = time.monotonic()
            self.send(number)
        elif time.monotonic() - self._signalled_at > SAME_REQUEST_SECONDS:
            self.send(signal.SIGKILL)
        else:  # the same request, sent to several processes at once
            return
        self.signalled = number


@contextlib.contextmanager
def passing_signals(children: Children) -> Iterator[None]:
    """Inside, SIGINT and SIGTERM go to the children; whatever happens, none of them outlives the block."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, children.pass_on) for number in FORWARDED}
    try:
        yield
    finally:
        children.send(signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def holding_signals() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM wait: while children are started, they would reach only some of them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    try:
        yield
    finally:
        release_signals()


def release_signals() -> None:
    """Delivers what waited; a child that was started inside `holding_signals` must call it."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)


def choose_failure(children: Children) -> tuple[int, int] | None:
    """Rank and exit code to report; None when all ended well.

    The first rank that ended with a code of its own, before one that was lost to a signal, before one with a traceback: when a
    rank is lost, the others soon end with a traceback of the network's.
    """
    failed = {rank: code for rank, code in children.statuses.items() if code and rank not in children.ended_by_us}
    if not failed:
        return None
    # min keeps the first of equals, and ranks are in the order in which they ended.
    rank = min(failed, key=lambda rank: 0 if failed[rank] > 1 else 1 if failed[rank] < 0 else 2)
    return rank, exit_code(failed[rank], children.signalled)


def exit_code(status: int, signalled: int | None = None) -> int:
    """The command's exit code for a child's: 128 + n for a signal n that we passed on, otherwise a lost rank."""
    if status >= 0:
        return status
    return 128 + signalled if signalled and -status in (signalled, signal.SIGKILL) else LaunchError.code


def describe_status(status: int) -> str:
    """`exit code 3`, or `SIGKILL`."""
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name
