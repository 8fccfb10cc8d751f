"""Each key of each recipe, spelt wrong or in the wrong section, is refused at its place with the right name."""

import json
import re
from pathlib import Path

import pytest
from recipe_files import CONFIGS, ROOT, config_recipe, repository_recipes, walk_nodes

from alignment.commands.check import check_files
from alignment.recipe.loader import read_recipe
from alignment.recipe.locate import Node, node_at, read_nodes
from alignment.recipe.mistakes import Mistake
from alignment.recipe.renamed import RENAMED_IN_SOURCES
from alignment.recipe.schema import RECIPES
from alignment.recipe.shape import all_keys

RECIPE_FILES = [pytest.param(path.read_text(), id=str(path.relative_to(ROOT))) for path in repository_recipes()] + [
    pytest.param(config_recipe(config), id=config.__name__) for config in CONFIGS
]
# Mappings whose keys are the user's own words: roles of a source, columns of the rows.
FREE = {"roles", "where", "targets"}
# These are no sections either; a key of one has no other home.
MAPPINGS = FREE | {"columns", "lr_scheduler_kwargs"}


def is_own_word(where: tuple) -> bool:
    return where[-2:-1] in [(name,) for name in FREE]


def mistakes_of(path: Path) -> list[Mistake]:
    """All mistakes of a recipe, the names of columns included, which the formats know."""
    return list(read_recipe(path).mistakes) or check_files([path], [])[0].mistakes


def misspell(name: str, position: int) -> str:
    """One letter changed to one that no key has there."""
    letter = "z" if name[position] == "q" else "q"
    return name[:position] + letter + name[position + 1 :]


@pytest.mark.parametrize("text", RECIPE_FILES)
def test_each_key_with_one_letter_changed_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    lines = text.splitlines(keepends=True)
    keys = [(where, node.key) for where, node in walk_nodes(read_nodes(path)[0]) if not is_own_word(where)]
    assert len(keys) > 5
    for number, (where, key) in enumerate(keys):
        name = where[-1]
        wrong = misspell(name, number % len(name))
        line = lines[key.line]
        changed = line[: key.column] + wrong + line[key.column + len(name) :]
        path.write_text("".join([*lines[: key.line], changed, *lines[key.line + 1 :]]))
        said = [mistake for mistake in mistakes_of(path) if mistake.place.line == key.line]
        assert any(f"'{wrong}'" in m.message or f".{wrong}'" in m.message for m in said), (where, wrong, said)
        assert any(re.search(rf"\b{name}\b", m.message + m.advice) for m in said), (where, wrong, said)
        assert said[0].text().startswith(f"{path}:{key.line + 1}:")


def homes(schema: type, name: str) -> set[tuple]:
    """Sections of the recipe, as paths with `[]` for an item, that know a key."""
    return set(all_keys(schema).get(name, ()))


def sections_of(root: Node) -> list[tuple]:
    """Paths of every section that a recipe has, itself included."""
    found = [()]
    for where, node in walk_nodes(root):
        if node.is_mapping and where[-1] not in MAPPINGS:
            found.append(where)
        if node.is_list:
            found += [(*where, i) for i, item in enumerate(node.items) if item.is_mapping]
    return found


@pytest.mark.parametrize("text", RECIPE_FILES)
def test_each_key_moved_to_a_wrong_section_is_refused_and_led_home(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    root = read_nodes(path)[0]
    schema = RECIPES[root.children["stage"].value]
    sections = sections_of(root)
    moved = 0
    for number, (where, _) in enumerate(walk_nodes(root)):
        if where[-2:-1] in [(name,) for name in MAPPINGS]:
            continue
        name, own = where[-1], where[:-1]
        wrong = [to for to in sections if generic(to) not in homes(schema, name) and to[: len(where)] != where]
        if not wrong:
            continue
        target = wrong[number % len(wrong)]
        moved += 1
        write_moved(path, root.plain(), own, name, target)
        key = node_at(read_nodes(path)[0], (*target, name)).key
        said = [mistake for mistake in mistakes_of(path) if mistake.place.line == key.line]
        assert any(m.message.startswith("unknown key") and m.message.endswith(f"{name}'") for m in said), (
            where,
            target,
        )
        if not ("data" in target and name in RENAMED_IN_SOURCES):
            home = generic(own)
            words = "at the top" if not home else f"'{'.'.join(home).removesuffix('.[]')}'"
            assert any(words in m.advice for m in said), (where, target, said)
    assert moved > 5


def generic(path: tuple) -> tuple:
    return tuple("[]" if isinstance(part, int) else part for part in path)


def write_moved(path: Path, data: dict, own: tuple, name: str, target: tuple) -> None:
    """Writes the recipe with a key taken out of its section and put last into another."""

    def at(where: tuple):
        found = data
        for part in where:
            found = found[part]
        return found

    at(target)[name] = at(own).pop(name)
    path.write_text(block_yaml(data))


def block_yaml(value: object, indent: str = "") -> str:
    """Dicts and lists in block style, scalars as JSON: what YAML reads alike, and far faster than a library."""
    if isinstance(value, dict) and value:
        return "".join(f"{indent}{name}:{_below(item, indent)}" for name, item in value.items())
    if isinstance(value, list) and value:
        items = [block_yaml(item, indent + "  ") if isinstance(item, dict) else None for item in value]
        return "".join(
            f"{indent}- {text.lstrip()}" if text else f"{indent}- {json.dumps(item)}\n"
            for item, text in zip(value, items, strict=True)
        )
    return f"{json.dumps(value)}\n"


def _below(value: object, indent: str) -> str:
    nested = isinstance(value, dict | list) and value
    return f"\n{block_yaml(value, indent + '  ')}" if nested else f" {block_yaml(value)}"
