"""Reads a recipe strictly: every mistake at once, each with its place and the name that was probably meant.

pydantic decides what is wrong (`schema.py`); this module knows where it stands in the file and how to say it. Values are
never coerced, keys are never guessed, and nothing of a recipe with a mistake is used.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic

from alignment.errors import RecipeError
from alignment.recipe.locate import Node, read_nodes
from alignment.recipe.mistakes import Mistake, describe, find_unknown_keys
from alignment.recipe.overrides import apply_overrides
from alignment.recipe.schema import RECIPES, Recipe


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with `--set` values applied.

    Raises:
        RecipeError: all mistakes, one after the other, and how many there are.
    """
    path = Path(path)
    root, mistakes = read_nodes(path)
    if root is not None:
        mistakes += apply_overrides(root, overrides)
        recipe, found = _validate(root)
        mistakes += found
        if not mistakes:
            return recipe
    raise RecipeError(report(path, mistakes))


def report(path: Path, mistakes: Sequence[Mistake]) -> str:
    """All mistakes of a file as one text."""
    unique = list(dict.fromkeys(mistake.text() for mistake in sorted(mistakes, key=lambda m: (m.line, m.column))))
    count = f"{len(unique)} error{'s' if len(unique) > 1 else ''}"
    return "\n".join([*unique, f"{count} in {path}; nothing was started."])


def _validate(root: Node) -> tuple[Recipe | None, list[Mistake]]:
    if not root.is_mapping:
        return None, [Mistake.at(root, f"found {root.kind()}; a mapping of sections was expected", "start with: stage: sft")]
    stage = root.children.get("stage")
    if stage is None or stage.value not in RECIPES:
        return None, [_stage_mistake(root, stage)]
    schema = RECIPES[stage.value]
    mistakes = find_unknown_keys(root, schema)
    try:
        recipe = schema.model_validate(root.plain())
    except pydantic.ValidationError as error:
        return None, mistakes + [
            describe(root, schema, found) for found in error.errors() if found["type"] != "extra_forbidden"
        ]
    return recipe, mistakes


def _stage_mistake(root: Node, stage: Node | None) -> Mistake:
    known = ", ".join(RECIPES)
    if stage is None:
        near = difflib.get_close_matches("stage", root.children, 1)
        where = root.children[near[0]].key_node if near else root
        return Mistake.at(where, "missing key 'stage'", f"one of: {known}")
    near = difflib.get_close_matches(str(stage.value), RECIPES, 1)
    return Mistake.at(
        stage, f"stage: {stage.value!r} is not a stage", f"did you mean '{near[0]}'?" if near else f"stages: {known}"
    )


