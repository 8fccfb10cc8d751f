"""The run folder as a whole: who may write to it, whether it is finished, and what it is a run of.

    recipe.yaml   resolved, written before anything else: a folder belongs to one recipe
    exit.json     how the last command on it ended: {code, reason, resume_command}
    .lock         held while a command works on it

What the stages write into it is theirs. Nothing here imports torch.
"""

import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from alignment.errors import LaunchError, RecipeError
from alignment.recipe.resolved import WATCHING, recipe_hash, recipe_text
from alignment.recipe.schema import Recipe
from alignment.report.parents import describe_parents
from alignment.report.receipt import RECEIPT, read_receipt
from alignment.report.run_files import DATA_MANIFEST, RECIPE, read_json

logger = logging.getLogger(__name__)
EXIT = "exit.json"
LOCK = ".lock"
LOCK_SECONDS = 2.0  # the ranks of a command that was just killed may hold it for a moment longer
HOLDER = ".lock-holder"  # a file of its own: whoever tries the lock empties that one
PREPARED = "prepared"
_NUM_SHOWN = 8

Verdict = Literal["new", "resume", "done"]


@dataclass(frozen=True)
class Stale:
    """A finished run whose parent was trained again since."""

    path: str


def prepared_folder(run_dir: Path) -> Path:
    """Where a run's prepared rows are: beside it, shared by the runs of a study."""
    return run_dir.resolve().parent / PREPARED


def find_stale_parents(recipe: Recipe, run_dir: Path) -> list[Stale]:
    """Parents whose receipt is not the one that the finished run noted."""
    noted = {(one["kind"], one["path"]): one.get("receipt_hash") for one in read_receipt(run_dir).get("parents", ())}
    now = {(one["kind"], one["path"]): one.get("receipt_hash") for one in describe_parents(recipe)}
    return [Stale(path) for (kind, path), found in now.items() if noted.get((kind, path)) != found]


def is_finished(recipe: Recipe, run_dir: Path) -> bool:
    """Whether the folder holds the verified result of exactly this recipe."""
    ended = read_json(run_dir / EXIT)
    if ended.get("code") != 0 or not (run_dir / RECEIPT).is_file():
        return False
    return read_receipt(run_dir).get("recipe_hash") == recipe_hash(recipe)


def judge_run(recipe: Recipe, run_dir: Path) -> Verdict:
    """What the command has to do with the folder.

    Raises:
        RecipeError: it is of another recipe, or what it was trained from has changed since.
    """
    if not (run_dir / RECIPE).is_file():
        return "new"
    differences = find_differences(run_dir / RECIPE, recipe)
    if differences:
        shown = "; ".join(differences[:_NUM_SHOWN]) + ("; ..." if len(differences) > _NUM_SHOWN else "")
        raise RecipeError(
            f"{run_dir}: a run of another recipe ({shown}); the same recipe was expected. Give --fresh to set it aside and train "
            "anew, or --out DIR for another folder."
        )
    if not is_finished(recipe, run_dir):
        return "resume"
    if stale := find_stale_parents(recipe, run_dir):
        raise RecipeError(
            f"{run_dir}: finished, but {stale[0].path} was trained again since; the one it started from was expected. Give --fresh "
            "to train it again."
        )
    return "done"


def find_differences(path: Path, recipe: Recipe) -> list[str]:
    """`key: there, here` for each key that a resolved recipe file and a recipe do not share."""
    there = _flatten(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
    here = _flatten(YAML(typ="safe", pure=True).load(recipe_text(recipe)))
    keys = dict.fromkeys([*there, *here])
    return [
        f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
        for key in keys
        if there.get(key) != here.get(key) and not f"{key}.".startswith(tuple(f"{name}." for name in WATCHING))
    ]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = enumerate(value)
    else:
        return {prefix: value}
    return {
        key: found
        for name, item in items
        for key, found in _flatten(item, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def set_aside(run_dir: Path) -> Path | None:
    """Gives an existing run another name, RUN.old-1 and so on; nothing is ever deleted. Returns the new name."""
    if not (run_dir / RECIPE).is_file():
        return None
    number = next(n for n in range(1, 10_000) if not run_dir.with_name(f"{run_dir.name}.old-{n}").exists())
    return run_dir.rename(run_dir.with_name(f"{run_dir.name}.old-{number}"))


def clear(run_dir: Path) -> None:
    """Sets an existing run aside, as `--fresh` asks, and says so.

    Raises:
        LaunchError: another command works on it.
    """
    with locked(run_dir):
        aside = set_aside(run_dir)
    if aside:
        logger.info("%s was set aside as %s", run_dir, aside)


def share_weights(folder: Path) -> None:
    """Weights get the mode that the umask gives other files: safetensors 0.8 writes 0600, which colleagues on a cluster cannot read."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o666 & ~umask)


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the folder for this process, which makes it when it is absent.

    Raises:
        LaunchError: another command works on it, or it cannot be written.
    """
    holder = run_dir / HOLDER
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run_dir / LOCK)
        lock.acquire(timeout=LOCK_SECONDS)
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.is_file() else "another command"
        raise LaunchError(
            f"{run_dir}: {who} is at work in this folder; one at a time was expected. Wait for it, or give --out DIR."
        ) from None
    except OSError as error:
        raise LaunchError(
            f"{run_dir}: {error.strerror or error}; a folder to write to was expected. Give --out DIR."
        ) from error
    try:
        yield
    finally:
        if run_dir.is_dir():
            holder.unlink(missing_ok=True)
        lock.release()


def write_start(run_dir: Path, recipe: Recipe, manifest: Mapping[str, Any]) -> None:
    """Writes what the run is of: the resolved recipe and the manifest of its rows."""
    (run_dir / EXIT).unlink(missing_ok=True)
    (run_dir / RECIPE).write_text(recipe_text(recipe), encoding="utf-8")
    (run_dir / DATA_MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")


def write_exit(run_dir: Path, code: int, reason: str, resume_command: str, *, lost: bool = False) -> None:
    """Writes how the command ended, in one step.

    Args:
        lost: a rank was lost or hung: the launchers of all machines read it here and may start theirs again.
    """
    if not run_dir.is_dir():
        return
    temporary = run_dir / f"{EXIT}.tmp"
    facts = {"code": code, "reason": reason, "resume_command": resume_command} | ({"lost": True} if lost else {})
    temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, run_dir / EXIT)
