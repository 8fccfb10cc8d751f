"""Keys that a section does not have, each with the name that was probably meant.

A misspelt key is renamed in the nodes once it is reported, so that what stands below it is judged in the same pass.
Nothing of a recipe with a mistake is used.
"""

import difflib
from dataclasses import dataclass, field

from pydantic import BaseModel

from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.locate import Node
from alignment.recipe.mistakes import Mistake
from alignment.recipe.renamed import RENAMED, RENAMED_IN_SOURCES
from alignment.recipe.schema import RECIPES, Recipe
from alignment.recipe.shape import (
    Kind,
    all_keys,
    dotted,
    expected,
    field_kinds,
    find_items,
    find_section,
    find_tags,
    model_types,
)

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class _Guess:
    """What was probably meant by a key."""

    advice: str
    here: str | None = None  # a key of the same section
    elsewhere: Path | None = None  # the one place where it belongs


@dataclass
class UnknownKeys:
    """The unknown keys of a recipe."""

    mistakes: list[Mistake] = field(default_factory=list)
    meant: set[Path] = field(default_factory=set)  # keys that are not missing, but stand in the wrong place


def find_unknown_keys(root: Node, schema: type[BaseModel]) -> UnknownKeys:
    """All keys that no section of the stage has where they stand."""
    found = UnknownKeys()
    _check_section(root, schema, (), schema, found)
    return found


def _check_section(
    node: Node, section: type[BaseModel], path: Path, schema: type[BaseModel], found: UnknownKeys
) -> None:
    for name in list(node.children):
        child = node.children[name]
        known = name
        if name not in section.model_fields:
            guess = _evaluation(child, name, path, schema) or _guess(name, section, path, schema)
            found.mistakes.append(Mistake(child.key, f"unknown key '{dotted((*path, name))}'", guess.advice))
            del node.children[name]
            if guess.elsewhere:
                found.meant.add(guess.elsewhere)
            if guess.here is None or (guess.here in node.children and not _merge(child, node.children[guess.here])):
                continue
            known = guess.here
            child = node.children.setdefault(known, child)
        _descend(child, field_kinds(section, known), (*path, known), schema, found)


def _merge(misspelt: Node, right: Node) -> bool:
    """Adds the keys of a misspelt section to the right one, where there are both; False: they are no sections."""
    if not (misspelt.is_mapping and right.is_mapping):
        return False
    right.children |= {name: node for name, node in misspelt.children.items() if name not in right.children}
    return True


def _descend(
    node: Node, alternatives: tuple[Kind, ...], path: Path, schema: type[BaseModel], found: UnknownKeys
) -> None:
    if node.is_list:
        for index, item in enumerate(node.items):
            _descend(item, find_items(alternatives), (*path, index), schema, found)
    if not node.is_mapping:
        return
    if find_tags(alternatives):
        _settle_model_type(node, find_tags(alternatives), path, found)
    section = find_section(alternatives, node)
    if section is not None:
        _check_section(node, section, path, schema, found)


def _settle_model_type(node: Node, tags: tuple[Kind, ...], path: Path, found: UnknownKeys) -> None:
    """Puts a misspelt `model_type`, or its value, right once it is reported; without one no key could be judged."""
    if "model_type" not in node.children:
        near = difflib.get_close_matches("model_type", node.children, 1, 0.7)
        if not near:
            return
        node.children["model_type"] = node.children.pop(near[0])
        message = f"unknown key '{dotted((*path, near[0]))}'"
        found.mistakes.append(Mistake(node.children["model_type"].key, message, "did you mean 'model_type'?"))
    tag = node.children["model_type"]
    near = difflib.get_close_matches(str(tag.value), tags[0].choices, 1)
    if near and tag.value not in tags[0].choices and not tag.is_broken:
        message = f"{dotted((*path, 'model_type'))}: found {tag.kind()}; {expected(tags)} was expected"
        found.mistakes.append(Mistake(tag.place, message, f"did you mean '{near[0]}'?"))
        tag.value = near[0]


# ------------------------------------------------------------------------------------------------ guessing


def _evaluation(node: Node, name: str, path: Path, schema: type[BaseModel]) -> _Guess | None:
    """The settings of stage evaluate under the name they have in the others; a list is `data.eval` in the wrong place."""
    if path or name != "eval" or not node.is_mapping or "evaluate" not in schema.model_fields:
        return None
    return _Guess("stage evaluate calls it 'evaluate'", here="evaluate")


def _guess(name: str, section: type[BaseModel], path: Path, schema: type[BaseModel]) -> _Guess:
    if issubclass(section, SourceSpec) and name in RENAMED_IN_SOURCES:
        return _Guess(RENAMED_IN_SOURCES[name])
    return (
        _other_model_type(name, section, path, schema)
        or _other_section(name, path, schema)
        or _other_stage(name, path, schema)
        or _renamed(name, schema)
        or _near(name, section, schema)
        or _Guess(f"keys of {dotted(path) or 'a recipe'}: {', '.join(section.model_fields)}")
    )


def _other_model_type(name: str, section: type[BaseModel], path: Path, schema: type[BaseModel]) -> _Guess | None:
    own = model_types(section)
    if not own or _generic(path) not in all_keys(schema).get(name, ()):
        return None
    configs = [kind.section for kind in field_kinds(field_kinds(schema, "model")[0].section, "config")]
    others = [model_types(config)[0] for config in configs if name in config.model_fields]
    near = difflib.get_close_matches(name, section.model_fields, 1, 0.6)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return _Guess(f"model_type {own[0]} has no such key, only {', '.join(others)}{hint}")


def _other_section(name: str, path: Path, schema: type[BaseModel]) -> _Guess | None:
    places = [place for place in all_keys(schema).get(name, ()) if place != _generic(path)]
    if not places:
        return None
    only = (*places[0], name) if len(places) == 1 and "[]" not in places[0] else None
    return _Guess(f"it belongs in {' or '.join(_section_name(place) for place in places)}", elsewhere=only)


def _other_stage(name: str, path: Path, schema: type[BaseModel]) -> _Guess | None:
    """A key that only other stages have."""
    stage = stage_of(schema)
    places = {other: all_keys(recipe).get(name, ()) for other, recipe in RECIPES.items() if other != stage}
    here = [other for other, found in places.items() if _generic(path) in found]
    if here:
        return _Guess(f"stage {stage} does not read '{name}' here; stages that do: {', '.join(here)}")
    there = [(other, place) for other, found in places.items() for place in found]
    if not there:
        return None
    other, place = there[0]
    return _Guess(f"stage {stage} does not read it; in stage {other} it is '{_written(place, name)}'")


def _renamed(name: str, schema: type[BaseModel]) -> _Guess | None:
    """A key of another project, or one that is near a key of ours once it is translated."""
    if name not in RENAMED:
        return None
    answer = RENAMED[name]
    if " " in answer:
        return _Guess(answer)
    *place, key = answer.split(".")
    if tuple(place) in all_keys(schema).get(key, ()):
        return _Guess(f"here it is called '{answer}'", elsewhere=(*place, key))
    return _Guess(f"here it is called '{answer}', which stage {stage_of(schema)} does not read")


def _near(name: str, section: type[BaseModel], schema: type[BaseModel]) -> _Guess | None:
    near = _nearest(name, list(section.model_fields), 0.5 if len(name) <= 3 else 0.6)
    if near:
        names = "' or '".join(near)
        return _Guess(f"did you mean '{names}'?", here=near[0] if len(near) == 1 else None)
    far = difflib.get_close_matches(name, all_keys(schema), 1, 0.8)
    if not far:
        return None
    places = all_keys(schema)[far[0]]
    only = (*places[0], far[0]) if len(places) == 1 and "[]" not in places[0] else None
    return _Guess(f"did you mean '{_written(places[0], far[0])}'?", elsewhere=only)


def _nearest(name: str, known: list[str], cutoff: float) -> list[str]:
    """The nearest names; more than one where they are equally near."""
    near = difflib.get_close_matches(name, known, 3, cutoff)
    ratios = [difflib.SequenceMatcher(None, other, name).ratio() for other in near]
    return [other for other, ratio in zip(near, ratios, strict=True) if ratio == ratios[0]]


def stage_of(schema: type[BaseModel]) -> str:
    """The stage that a recipe class is for."""
    return next((stage for stage, recipe in RECIPES.items() if recipe is schema), Recipe.__name__)


def _generic(path: Path) -> tuple[str, ...]:
    return tuple("[]" if isinstance(part, int) else part for part in path)


def _section_name(place: tuple[str, ...]) -> str:
    if not place:
        return "no section: write it at the top"
    if place[-1] == "[]":
        return f"an item of '{'.'.join(place[:-1])}'"
    return f"section '{'.'.join(place)}'"


def _written(place: tuple[str, ...], name: str) -> str:
    return ".".join([*place, name]).replace(".[]", "[]")
