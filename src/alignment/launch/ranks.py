"""CPU ranks: forked from a process that has imported everything once, with the variables that accelerate would give them.

A fresh process needs 4 to 10 s to its first step, nearly all of it imports; a forked rank needs none (two cores). It is safe
because the parent starts no thread pool and no CUDA context. On GPUs ranks are fresh processes (`start.py`).
"""

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from alignment.errors import AlignmentError, LaunchError, Preempted
from alignment.launch.children import (
    FORWARDED,
    Children,
    choose_failure,
    describe_status,
    holding_signals,
    passing_signals,
    release_signals,
)
from alignment.launch.configs import read_config
from alignment.launch.environment import SUPERVISED, num_threads
from alignment.launch.imports import import_stages, sparing_scipy, without_collecting
from alignment.launch.rank_variables import make_rank_variables
from alignment.train.heartbeat import Watch

logger = logging.getLogger(__name__)
NUM_LINES_SHOWN = 12
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def preload(stages: Iterable[str] = ()) -> None:
    """Imports once what every rank needs, and what the stages need. Starts no threads.

    Args:
        stages: names of `alignment.train.stages.STAGES`.
    """
    import torch

    torch.set_num_threads(1)  # a thread pool would not survive the fork
    with without_collecting(), sparing_scipy():
        # transformers' names are loaded when they are first looked up.
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, Trainer  # noqa: F401

        importlib.import_module("alignment.launch.worker")
        import_stages(stages)


def run_ranks(
    work: Callable[[], int],
    *,
    config: Path | None,
    num_processes: int,
    log_dir: Path,
    accelerate_args: Sequence[str] = (),
    watch: Watch | None = None,
) -> int:
    """Runs `work` in CPU ranks on this machine and returns its exit code, or that of the rank that failed first.

    Rank 0 speaks on this process's output, rank n writes to `log_dir`/rank<n>.log. A rank that fails ends the others after a
    second, and the last lines of its log are said. SIGINT and SIGTERM are passed on.

    Args:
        work: what every rank does; it returns an exit code or raises AlignmentError.
        config: launcher config; None for one process without a process group.
        accelerate_args: further options of `accelerate launch`, with the meaning that they have there.
        watch: finds a rank that hangs; without it the ranks watch themselves.

    Raises:
        LaunchError: the ranks cannot be started.
        RecipeError: accelerate does not know one of `accelerate_args`.
    """
    preload()
    if config is not None and read_config(config).strategy.startswith("zero"):
        from alignment.launch.deepspeed import load_shared_memory_op

        load_shared_memory_op()
    supervised = {SUPERVISED: "1"} if watch is not None else {}
    variables = [own | supervised for own in make_rank_variables(config, num_processes, accelerate_args)]
    logs = [log_dir / f"rank{rank}.log" if rank else None for rank in range(num_processes)]
    children = Children()
    handlers = {number: signal.getsignal(number) for number in FORWARDED}
    gc.freeze()  # what is there already is never collected, so it stays shared with the children
    try:
        with passing_signals(children):
            with holding_signals():
                for rank in range(num_processes):
                    _fork(children, work, variables[rank], num_threads(num_processes), logs[rank], handlers)
            children.wait(watch)
    finally:
        gc.unfreeze()
    return _report(children, logs)


def _fork(
    children: Children,
    work: Callable[[], int],
    variables: Mapping[str, str],
    threads: int,
    log: Path | None,
    handlers: Mapping[int, object],
) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        children.add(pid)
        return
    code = 1
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        release_signals()
        _enter_rank(parent, variables, threads, log)
        code = _do(work)
    finally:
        # Whatever was raised: a child never returns into its parent's code.
        if sys.exception() is not None:
            traceback.print_exc()
        end_process(code)


def _enter_rank(parent: int, variables: Mapping[str, str], threads: int, log: Path | None) -> None:
    import torch

    os.setpgid(0, 0)
    _die_with(parent)
    if log is not None:
        _redirect_output(log)
    os.environ.clear()
    os.environ.update(variables)
    torch.set_num_threads(threads)


def _do(work: Callable[[], int]) -> int:
    try:
        return work()
    except AlignmentError as error:
        print(error, file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _die_with(parent: int) -> None:
    """The kernel ends this process when its parent is gone, however that happened. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def end_process(code: int) -> NoReturn:
    """Ends this process now, its output written.

    Without the interpreter's own teardown: in it one of ten finished ZeRO ranks on CPUs was aborted by DeepSpeed 0.19's threads.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _report(children: Children, logs: list[Path | None]) -> int:
    """The launch's exit code; says what a rank ended with that did not say so on the terminal."""
    if children.hang is not None:
        logger.error("%s", children.hang)
        return LaunchError.code
    failure = choose_failure(children)
    if failure is None:
        return 0
    rank, code = failure
    status = children.statuses[rank]
    log = logs[rank]
    if children.signalled is not None and code != Preempted.code:
        name = signal.Signals(children.signalled).name
        logger.warning("ended by %s; the same command goes on from the last checkpoint.", name)
    elif log is not None and children.statuses[0] != status:
        logger.error("rank %d ended with %s; the last lines of %s:\n%s", rank, describe_status(status), log, _tail(log))
    elif status < 0:
        logger.error(
            "rank %d was lost: it ended with %s. Look whether memory ran out; the same command goes on from the last checkpoint.",
            rank,
            describe_status(status),
        )
    return code


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return "\n".join(f"  {line}" for line in lines[-NUM_LINES_SHOWN:]) or "  (empty)"
