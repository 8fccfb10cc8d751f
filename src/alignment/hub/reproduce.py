"""From a published result, or a run, back to a study that would make it again: its recipe and those of the runs before it.

What cannot be the same here is said before anything is run: versions that differ, and data that only the other machine has.
"""

import io
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from ruamel.yaml import YAML

from alignment.errors import ArtifactError, PublishError, RecipeError
from alignment.hub.staging import LINEAGE, find_lineage
from alignment.recipe.loader import load_recipe
from alignment.recipe.pipeline import FILE_NAME
from alignment.recipe.places import RUNS, means_local_data, place_data
from alignment.report.provenance import read_versions
from alignment.report.receipt import RECEIPT, read_receipt
from alignment.report.redact import REMOVED
from alignment.report.run_files import RECIPE, read_own_recipe, read_run

_RUN = re.compile(r"(?<![\w./-])(?:\./)?runs/([\w.-]+)/([\w.-]+)")  # of the current folder, not /data/runs/...


@dataclass(frozen=True)
class Origin:
    """What a result was made by.

    Attributes:
        recipes: name to resolved text, each after those it starts from; the last one made the result.
        receipt: of the result.
    """

    recipes: Mapping[str, str]
    receipt: Mapping[str, Any]


def read_origin(target: str, revision: str | None = None, api: HfApi | None = None) -> Origin:
    """The recipes and the receipt of a run's folder, or of a model of the Hub that was published by `push`.

    Raises:
        ArtifactError: a folder that is no finished run.
        PublishError: the Hub has no such model, or it was not published by `push`.
    """
    folder = Path(target)
    if folder.is_dir():
        run = read_run(folder)
        texts = {before.folder.resolve().name: _read_here(before.folder) for before in find_lineage(run)}
        return _order(texts, folder.resolve().name, _read_here(folder), read_receipt(folder))
    if target.count("/") != 1 or target.startswith((".", "/", "~", "runs/")):
        raise ArtifactError(
            f"{target}: no such folder; a finished run, or ORG/NAME of the Hub, was expected. Correct it."
        )
    try:
        found = (api or HfApi()).snapshot_download(
            target, revision=revision, allow_patterns=[RECIPE, RECEIPT, f"{LINEAGE}/*"]
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.HTTPError) as error:
        raise PublishError(
            f"{target}: {' '.join(str(error).split())[:300]}; a model of the Hub was expected."
        ) from error
    there = Path(found)
    if not (there / RECIPE).is_file() or not (there / RECEIPT).is_file():
        raise PublishError(
            f"{target}: no {RECIPE} and {RECEIPT}; a model that `alignment push` published was expected."
        )
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted((there / LINEAGE).glob("*.yaml"))}
    receipt = json.loads((there / RECEIPT).read_text(encoding="utf-8"))
    return _order(texts, _own_name(receipt), (there / RECIPE).read_text(encoding="utf-8"), receipt)


def _read_here(run_dir: Path) -> str:
    """The recipe of a run of this disk, nothing taken out; runs below the current folder are named from it, to be made again."""
    here = re.escape(Path.cwd().as_posix())
    return re.sub(rf"(?<![\w./~-]){here}/{RUNS}", RUNS, read_own_recipe(run_dir))


def _own_name(receipt: Mapping[str, Any]) -> str:
    """The recipe's name by the command that ran it, else its stage."""
    named = re.search(r"([\w.-]+)\.yaml", receipt.get("command", ""))
    return named[1] if named and named[1] != "pipeline" else receipt.get("stage", "result")


def _order(before: Mapping[str, str], name: str, text: str, receipt: Mapping[str, Any]) -> Origin:
    """Each recipe after those whose run folders it names."""
    left = dict(before)
    ordered: dict[str, str] = {}
    while left:
        ready = [one for one, its in left.items() if not {run for _, run in _RUN.findall(its)} & (set(left) - {one})]
        for one in ready or list(left):
            ordered[one] = left.pop(one)
    return Origin({**ordered, name: text}, receipt)


def write_study(origin: Origin, folder: Path, data_root: Path | None = None) -> list[Path]:
    """Writes the recipes as a study of its own, with their run folders called after it; returns the recipes in order.

    A folder that holds just this already is taken as it is, so that the same command goes on where it ended.

    Args:
        data_root: what the recipes' local data paths are relative to; None where nobody knows.

    Raises:
        RecipeError: the folder holds something else, or a recipe is none of this version.
    """
    files = {
        f"{name}.yaml": _repoint(
            _RUN.sub(lambda match: f"runs/{folder.resolve().name}/{match[2]}", text), folder, data_root
        )
        for name, text in origin.recipes.items()
    }
    names = list(files)
    files[FILE_NAME] = _dump({"stages": names})
    if folder.exists() and any(_read(folder / name) != text for name, text in files.items()):
        raise RecipeError(
            f"{folder}: exists, holds something else and is not overwritten. Give --out DIR, or remove it."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    paths = [folder / name for name in names]
    for path in paths:
        load_recipe(path)
    return paths


def find_data_root(origin: Origin) -> Path | None:
    """The folder of the recipe that made the result, by its command, where that still is on this disk."""
    named = re.search(r"(\S+\.ya?ml)", origin.receipt.get("command", ""))
    path = Path(named[1]) if named else None
    return path.parent if path is not None and path.is_file() else None


def _repoint(text: str, folder: Path, data_root: Path | None) -> str:
    """The recipe with its relative local data found from `folder`; unchanged where nothing of it is in `data_root`."""
    document = YAML().load(text)
    data, steps = document.get("data", {}), document.get("curate", {}).get("steps", ())
    sources = [source for split in ("train", "eval") for source in data.get(split) or ()]
    sources += [source for step in steps for source in (step.get("decontaminate") or {}).get("evals", ())]
    moved = False
    for source in sources:
        path = source["path"]
        is_relative = data_root is not None and not path.startswith(("/", "~", "$", RUNS))
        there = data_root / path if is_relative else None
        if there is not None and there.exists():
            source["path"] = os.path.relpath(there.resolve(), folder.resolve())
            moved = True
    return _dump(document) if moved else text


def _dump(document: Any) -> str:
    out = io.StringIO()
    YAML().dump(document, out)
    return out.getvalue()


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def find_obstacles(origin: Origin, paths: list[Path]) -> list[str]:
    """Sentences about what is not the same here."""
    here = read_versions()
    obstacles = [
        f"version: {name} {version} there, {here.get(name, 'not installed')} here"
        for name, version in origin.receipt.get("versions", {}).items()
        if here.get(name) != version
    ]
    for path in paths:
        recipe = load_recipe(path)
        if REMOVED in path.read_text(encoding="utf-8"):
            obstacles.append(f"recipe: {path.name} has {REMOVED} where something was taken out before it was published")
        for split in ("train", "eval"):
            for source in getattr(recipe.data, split, ()):
                if source.path.startswith(RUNS):  # a recipe of the study makes it
                    continue
                is_own = recipe.stage == "curate" or means_local_data(source.path) or source.path.startswith("data/")
                if is_own and not place_data(source.path, path.parent).exists():
                    obstacles.append(f"data: {path.name} reads {source.path}, which lay on the machine that it ran on")
                elif not is_own and source.revision is None:
                    obstacles.append(f"data: {path.name} reads {source.path} at no revision; it may have changed since")
    return list(dict.fromkeys(obstacles))


def compare_receipts(origin: Origin, run_dir: Path) -> list[str]:
    """What a run that was made again has in common with the first, for a person to read."""
    again = read_receipt(run_dir)
    hashes = [one.get("prepared_manifest_hash") for one in (origin.receipt, again)]
    lines = [f"prepared rows: {'the same' if hashes[0] == hashes[1] else f'{hashes[0]} there, {hashes[1]} here'}"]
    for name, value in origin.receipt.get("metrics", {}).items():
        lines.append(f"{name}: {value} there, {again.get('metrics', {}).get(name)} here")
    return lines
