"""From a published result, or a run, back to a study that would make it again: its recipe and those of the runs before it.

What cannot be the same here is said before anything is run: versions that differ, and data that only the other machine has.
"""

import json
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
from alignment.report.provenance import read_versions
from alignment.report.receipt import RECEIPT, read_receipt
from alignment.report.run_files import RECIPE, read_run

_RUN = re.compile(r"(?<![\w.-])runs/([\w.-]+)/([\w.-]+)")


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
        texts = {before.folder.resolve().name: before.recipe_text for before in find_lineage(run)}
        return _order(texts, folder.resolve().name, run.recipe_text, read_receipt(folder))
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


def write_study(origin: Origin, folder: Path) -> list[Path]:
    """Writes the recipes as a study of its own, with their run folders called after it; returns the recipes in order.

    Raises:
        RecipeError: the folder is there, or a recipe is none of this version.
    """
    if folder.exists():
        raise RecipeError(f"{folder}: exists and is not overwritten. Give --out DIR, or remove it.")
    folder.mkdir(parents=True)
    paths = []
    for name, text in origin.recipes.items():
        path = folder / f"{name}.yaml"
        path.write_text(_RUN.sub(lambda match: f"runs/{folder.resolve().name}/{match[2]}", text), encoding="utf-8")
        load_recipe(path)
        paths.append(path)
    with (folder / FILE_NAME).open("w", encoding="utf-8") as file:
        YAML().dump({"stages": [path.name for path in paths]}, file)
    return paths


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
        for split in ("train", "eval"):
            for source in getattr(recipe.data, split, ()):
                is_own = source.path.startswith((".", "data/", "$")) or source.path.endswith(
                    (".jsonl", ".json", ".parquet", ".csv", ".txt")
                )
                if is_own and not (path.parent / source.path).exists():
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
