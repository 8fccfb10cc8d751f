"""Reads a recipe strictly: every mistake at once, each with its place and the name that was probably meant.

pydantic decides what is wrong (`schema.py`); where it stands is known to `locate.py`, and how to say it to `unknown.py`
and `judge.py`. Values are never coerced, keys are never guessed, and nothing of a recipe with a mistake is used.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from alignment.errors import RecipeError
from alignment.recipe.data_spec import MixtureSpec
from alignment.recipe.judge import find_broken_rules, judge
from alignment.recipe.locate import Node, read_nodes
from alignment.recipe.mistakes import Mistake, sort_mistakes
from alignment.recipe.mixtures import expand_mixture
from alignment.recipe.overrides import apply_overrides
from alignment.recipe.schema import RECIPES, Recipe
from alignment.recipe.spec import Spec
from alignment.recipe.unknown import find_unknown_keys


@dataclass(frozen=True)
class ReadRecipe:
    """A recipe file as it was read: a recipe, or mistakes."""

    path: Path
    recipe: Recipe | None
    nodes: Node | None  # of the file with the overrides; None: its YAML cannot be read
    mistakes: tuple[Mistake, ...]


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with `--set` values applied.

    Raises:
        RecipeError: all mistakes, one after the other, and how many there are.
    """
    read = read_recipe(path, overrides)
    if read.recipe is None:
        raise RecipeError(report(read.path, read.mistakes))
    return read.recipe


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> ReadRecipe:
    """As `load_recipe`, with the mistakes as a value."""
    path = Path(path)
    root, mistakes = read_nodes(path)
    recipe = None
    if root is not None:
        mistakes = mistakes + apply_overrides(root, overrides) + expand_mixture(root, path)
        recipe, found = _validate(root)
        mistakes += found
    return ReadRecipe(path, None if mistakes else recipe, root, tuple(sort_mistakes(mistakes)))


def report(path: Path, mistakes: Sequence[Mistake]) -> str:
    """All mistakes of a file as one text."""
    texts = [mistake.text() for mistake in sort_mistakes(mistakes)]
    return "\n".join([*texts, f"{len(texts)} error{'s' if len(texts) > 1 else ''} in {path}; nothing was started."])


def read_mixture(path: Path) -> list[Mistake]:
    """The mistakes of a named mixture, found as those of a recipe are."""
    root, mistakes = read_nodes(Path(path))
    if root is None:
        return mistakes
    if not root.is_mapping:
        return [Mistake(root.place, f"found {root.kind()}; a mapping was expected", "begin with train:")]
    return sort_mistakes([*mistakes, *_judge(root, MixtureSpec)[1]])


def _validate(root: Node) -> tuple[Recipe | None, list[Mistake]]:
    if not root.is_mapping:
        return None, [Mistake(root.place, f"found {root.kind()}; a mapping was expected", "begin with stage: sft")]
    stage, mistakes = _find_stage(root)
    if stage is None:
        return None, mistakes
    recipe, found = _judge(root, RECIPES[stage])
    return recipe, mistakes + found


def _judge(root: Node, schema: type[Spec]) -> tuple[Any, list[Mistake]]:
    """What the nodes are as an instance of `schema`, None where they are none, and every mistake in them."""
    unknown = find_unknown_keys(root, schema)
    mistakes = list(unknown.mistakes)
    try:
        recipe, errors = schema.model_validate(root.plain()), []
    except pydantic.ValidationError as error:
        recipe, errors = None, error.errors(include_url=False)
    found, wrong = judge(root, schema, errors, unknown.meant)
    mistakes += found + find_broken_rules(root, schema, wrong, unknown.meant)
    if errors and not mistakes and not _has_broken(root):
        raise AssertionError(f"pydantic refused what nobody can explain: {errors}")
    return recipe, mistakes


def _has_broken(node: Node) -> bool:
    return node.is_broken or any(map(_has_broken, [*(node.children or {}).values(), *(node.items or ())]))


def _find_stage(root: Node) -> tuple[str | None, list[Mistake]]:
    """The stage, or the one that was probably meant and the mistake; a misspelt one is put right in the nodes."""
    known = f"stages: {', '.join(RECIPES)}"
    mistakes = []
    if "stage" not in root.children:
        misplaced = _misplaced_stage(root)
        if misplaced is None:
            return None, [Mistake(root.place, "missing key 'stage'", known)]
        mistakes.append(misplaced)
    node = root.children["stage"]
    if node.value in RECIPES:
        return node.value, mistakes
    near = difflib.get_close_matches(str(node.value), RECIPES, 1)
    advice = f"did you mean '{near[0]}'? {known}" if near else known
    if not node.is_broken:
        mistakes.append(Mistake(node.place, f"stage: found {node.kind()}; a stage was expected", advice))
    if not near:
        return None, mistakes
    node.value = near[0]
    return near[0], mistakes


def _misplaced_stage(root: Node) -> Mistake | None:
    """A misspelt key, or one in a section, that was probably meant to be the stage; it is put right in the nodes."""
    near = difflib.get_close_matches("stage", root.children, 1)
    if near:
        root.children["stage"] = root.children.pop(near[0])
        return Mistake(root.children["stage"].key, f"unknown key '{near[0]}'", "did you mean 'stage'?")
    for name, section in root.children.items():
        if section.is_mapping and "stage" in section.children:
            root.children["stage"] = section.children.pop("stage")
            message = f"unknown key '{name}.stage'"
            return Mistake(root.children["stage"].key, message, "it belongs in no section: write it at the top")
    return None
