"""DeepSpeed's C++ op for CPU ranks: built once and loaded before ranks are forked, which then have it already."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from alignment.errors import LaunchError
from alignment.launch.environment import extensions_folder, path_with_scripts

logger = logging.getLogger(__name__)
_OP = "deepspeed_shm_comm"


def load_shared_memory_op() -> None:
    """Imports DeepSpeed for CPUs and loads its shared-memory op, building it when this user has none yet (25 s).

    Raises:
        LaunchError: DeepSpeed is not installed, or the op cannot be built, for which its folder must be writable.
    """
    folder = extensions_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{_OP}.lock").touch()
    except OSError as error:
        raise LaunchError(
            f"{folder}: {error.strerror}; a folder was expected that DeepSpeed's {_OP} can be built in. Name another in "
            "TORCH_EXTENSIONS_DIR, or use ddp or fsdp2."
        ) from error
    os.environ.update(TORCH_EXTENSIONS_DIR=str(folder), PATH=path_with_scripts(), DS_ACCELERATOR="cpu")
    try:
        with _quiet_stderr():  # the import tries which ops it could build, and the linker says what it lacks
            import deepspeed
            from deepspeed.accelerator import get_accelerator
    except ImportError as error:
        raise LaunchError(
            f"DeepSpeed: {error}; it was expected for ZeRO. Install it: pip install 'alignment[deepspeed]'."
        ) from error
    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return  # ranks then talk over gloo
    with FileLock(folder / f"{_OP}.lock"):
        _remove_stale_baton(folder)
        if not (folder / _OP / f"{_OP}.so").is_file():
            logger.warning("building %s of DeepSpeed in %s: once, up to a minute", _OP, folder)
        try:
            builder.load()
        except (RuntimeError, ImportError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise LaunchError(
                f"DeepSpeed cannot build {_OP} in {folder} ({reason}); a C++ compiler and ninja were expected. Install them, or use "
                "ddp or fsdp2."
            ) from error


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


def _remove_stale_baton(folder: Path) -> None:
    """torch 2.13 waits for ever for a build that was killed: its lock file stays. The caller holds a lock that does not."""
    (folder / _OP / "lock").unlink(missing_ok=True)
