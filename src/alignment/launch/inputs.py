"""What a stage reads from this disk: whether it is there before anything starts, and whether it has changed since.

Hub models and datasets are left to the stage itself: nothing here uses a network.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.curate.shards import describe_inputs
from alignment.data.sources import find_source
from alignment.errors import AlignmentError
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.places import means_local_data, means_local_model, place_data
from alignment.recipe.schema import CurateRecipe, Recipe
from alignment.report.parents import named_parents
from alignment.report.receipt import read_receipt
from alignment.report.run_files import DATA_MANIFEST, read_json


@dataclass(frozen=True)
class Missing:
    """An input that is not there."""

    recipe_path: Path
    name: str  # as the recipe writes it
    path: Path | None = None  # where it was looked for; None where a variable of its path is not set
    is_data: bool = True


def find_missing(recipe_path: Path, recipe: Recipe, made: Iterable[Path] = ()) -> Iterator[Missing]:
    """Local data, models and tokenizers that a recipe names and that are not there.

    Args:
        made: run folders that earlier stages fill.
    """
    made = {folder.resolve() for folder in made}
    for name in _named_data(recipe):
        text = os.path.expandvars(name)
        path = place_data(text, recipe_path.parent)
        if "${" in text:
            yield Missing(recipe_path, name)
        elif means_local_data(text) and not path.exists() and not _is_made(path, made):
            yield Missing(recipe_path, name, path)
    for kind, name in named_parents(recipe):
        path = Path(name).expanduser()
        if kind != "data" and not _is_made(path, made) and not path.exists() and means_local_model(name):
            yield Missing(recipe_path, name, path, is_data=False)


def _is_made(path: Path, made: Collection[Path]) -> bool:
    """Whether a path lies in one of the folders."""
    return not {path.resolve(), *path.resolve().parents}.isdisjoint(made)


def _named_data(recipe: Recipe) -> Iterator[str]:
    """Paths of all rows that a recipe reads: of its sources, and of the evaluation sets that a curation compares with."""
    yield from (spec.path for _, spec in named_sources(recipe))
    if recipe.stage == "curate":
        steps = [step.decontaminate for step in recipe.curate.steps if step.decontaminate is not None]
        yield from (spec.path for step in steps for spec in step.evals)


def named_sources(recipe: Recipe) -> Iterator[tuple[str, SourceSpec]]:
    """Split and source of all rows that a recipe reads, in its order."""
    fields = type(recipe.data).model_fields
    for split in ("train", "eval"):
        yield from ((split, spec) for spec in (getattr(recipe.data, split) if split in fields else ()))


def describe_missing(missing: Sequence[Missing], study: Path) -> str:
    """All missing inputs as one message, with the script that makes those of the study where there is one."""
    lines = [f"{len(missing)} input{'s are' if len(missing) > 1 else ' is'} missing; nothing was started."]
    for one in missing:
        unset = ": a variable in it is not set" if one.path is None else ""
        lines.append(f"  {one.recipe_path}: {one.name}{unset}")
    scripts = sorted(study.glob("make_*.py"))
    if scripts and any(
        one.is_data and one.path and one.path.resolve().is_relative_to(study.resolve()) for one in missing
    ):
        lines.append(f"Make the data first: python {scripts[0]}")
    return "\n".join(lines)


def changed_data(recipe: Recipe, recipe_dir: Path, run_dir: Path) -> str | None:
    """A local source whose content is not what the run in `run_dir` was made from; None when all are the same."""
    if recipe.stage == "curate":
        return _changed_files(recipe, recipe_dir, run_dir)
    noted = read_json(run_dir / DATA_MANIFEST).get("sources", [])
    specs = list(named_sources(recipe))
    if len(noted) != len(specs):
        return specs[0][1].path if specs else None
    for (split, spec), then in zip(specs, noted, strict=True):
        if then["revision"] is None and _hash_now(spec, recipe_dir, split) != then["content_hash"]:
            return spec.path
    return None


def _changed_files(recipe: CurateRecipe, recipe_dir: Path, run_dir: Path) -> str | None:
    noted = read_receipt(run_dir)
    try:
        now = describe_inputs(recipe, recipe_dir)
    except AlignmentError:
        return recipe.data.train[0].path
    for then, files in ((noted[key], now[key]) for key in now):
        if changed := [one for one in files if one not in then] or [one for one in then if one not in files]:
            return changed[0]["path"]
    return None


def _hash_now(spec: SourceSpec, recipe_dir: Path, split: str) -> str | None:
    try:
        return find_source(spec, recipe_dir, "train" if split == "train" else None).content_hash
    except AlignmentError:  # it is gone, or another kind of path now
        return None
