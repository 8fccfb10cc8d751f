"""Sealed checkpoints: a folder counts once its manifest is there, and is used only when every file is as the manifest says.

transformers 5.23 writes a checkpoint in place, file by file, and resumes from whatever lies there. Here a save is over when
`seal.json` is renamed to its name, after every file and the folder itself have reached the disk:

    seal.json   {format, step, strategy, world_size, recipe_hash, ..., files: {name: {bytes, xxh3_128}}}

What does not verify is given another name (checkpoint-6.broken) and is never deleted. Nothing here imports torch.
"""

import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

logger = logging.getLogger(__name__)
SEAL = "seal.json"
FORMAT = 1
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_REMOVED = ".removed"
_CHUNK_BYTES = 1 << 22


def seal(folder: Path, facts: Mapping[str, Any]) -> None:
    """Brings every file of a written checkpoint to the disk, then names them with their checksums.

    Args:
        facts: what the manifest says besides: `step`, and what a resumed run compares itself with.

    Raises:
        OSError: the disk does not take it; the checkpoint stays unsealed.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (SEAL, f"{SEAL}.tmp"):
            _sync(path)
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "xxh3_128": _hash(path)}
    for path in [*(path for path in folder.rglob("*") if path.is_dir()), folder]:
        _sync(path)
    temporary = folder / f"{SEAL}.tmp"
    manifest = {"format": FORMAT, **facts, "files": files}
    temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _sync(temporary)
    os.replace(temporary, folder / SEAL)
    _sync(folder)
    _sync(folder.parent)


def read_seal(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint; empty when it is not sealed, or not by a version that wrote this format."""
    try:
        found = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None when every file is as it was sealed."""
    if not (folder / SEAL).is_file():
        return "it was not sealed: its save did not come to its end"
    manifest = read_seal(folder)
    if not manifest:
        return f"{SEAL} cannot be read"
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["bytes"]:
            return f"{name} has {path.stat().st_size} bytes, {expected['bytes']} were sealed"
        if _hash(path) != expected["xxh3_128"]:
            return f"{name} is not what was sealed: its checksum differs"
    return None


def find_newest(folder: Path) -> Path | None:
    """The newest checkpoint below `folder` that verifies. Those that are newer and do not are set aside, with a line each."""
    for step, path in sorted(_numbered(folder), reverse=True):
        damage = find_damage(path)
        if damage is None:
            return path
        aside = _set_aside(path)
        logger.warning("checkpoint of step %d is not used: %s; kept as %s", step, damage, aside)
    return None


def rotate(folder: Path, keep: int, spared: Path | None = None) -> None:
    """Deletes the oldest sealed checkpoints beyond the `keep` newest; what is not sealed is neither counted nor touched.

    Args:
        spared: one that is kept at any age.
    """
    for left in folder.glob(f"checkpoint-*{_REMOVED}"):
        shutil.rmtree(left, ignore_errors=True)
    sealed = [path for _, path in sorted(_numbered(folder)) if (path / SEAL).is_file()]
    for path in sealed[: -max(keep, 1)]:
        if spared is not None and path.name == spared.name:
            continue
        # Renamed first: one that is half deleted must not look like a checkpoint.
        doomed = path.rename(path.with_name(path.name + _REMOVED))
        shutil.rmtree(doomed, ignore_errors=True)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def newest_sealed(folder: Path) -> Path | None:
    """The newest sealed checkpoint below a folder, not verified."""
    sealed = [path for _, path in sorted(_numbered(folder)) if (path / SEAL).is_file()]
    return sealed[-1] if sealed else None


def _numbered(folder: Path) -> Iterator[tuple[int, Path]]:
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _CHECKPOINT.fullmatch(path.name)
        if match and path.is_dir():
            yield int(match[1]), path


def _set_aside(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.broken{f'-{n}' if n else ''}") for n in range(10_000))
    return path.rename(next(name for name in names if not name.exists()))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hash(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
