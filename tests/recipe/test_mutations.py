"""Each key of each recipe, spelt wrong or in the wrong section, is refused at its place with the right name."""

import json
import re
from pathlib import Path

import pytest
from recipe_files import CONFIGS, FULL, ROOT, config_recipe, repository_recipes, walk_nodes

from alignment.commands.check import check_files
from alignment.recipe.loader import read_recipe
from alignment.recipe.locate import Node, read_nodes
from alignment.recipe.mistakes import Mistake
from alignment.recipe.renamed import RENAMED_IN_SOURCES
from alignment.recipe.schema import RECIPES
from alignment.recipe.shape import all_keys, dotted

FULL_FILES = [pytest.param(path.read_text(), id=path.name) for path in sorted(FULL.glob("*.yaml"))] + [
    pytest.param(config_recipe(config), id=config.__name__) for config in CONFIGS
]
OTHER_FILES = [
    pytest.param(path.read_text(), id=str(path.relative_to(ROOT)))
    for path in repository_recipes()
    if path.parent != FULL
]
RECIPE_FILES = FULL_FILES + OTHER_FILES
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


@pytest.mark.parametrize("text", FULL_FILES)
def test_each_key_with_one_letter_changed_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    keys = keys_of(text, tmp_path)
    assert len(keys) > 5
    for number, key in enumerate(keys):
        check_misspelt(text, {key: number}, tmp_path)


@pytest.mark.parametrize("text", OTHER_FILES)
def test_a_third_of_the_keys_misspelt_are_all_refused_at_once(text: str, tmp_path: Path) -> None:
    """Each key of each recipe in four reads or so: mistakes do not hide each other. Columns are only checked without any."""
    keys = keys_of(text, tmp_path)
    numbered = {key: number for number, key in enumerate(keys)}
    columns = [key for key in keys if key[0][-2:-1] == ("columns",)]
    others = [key for key in keys if key not in columns]
    assert len(others) > 5
    for group in [others[0::3], others[1::3], others[2::3], *([key] for key in columns)]:
        check_misspelt(text, {key: numbered[key] for key in group}, tmp_path)


def keys_of(text: str, tmp_path: Path) -> list[tuple[tuple, int, int]]:
    """(path, line, column) of every key that a recipe could misspell."""
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    nodes = walk_nodes(read_nodes(path)[0])
    return [(where, node.key.line, node.key.column) for where, node in nodes if not is_own_word(where)]


def check_misspelt(text: str, keys: dict[tuple[tuple, int, int], int], tmp_path: Path) -> None:
    """Misspells keys, each at the letter that its number chooses, and looks for each refusal."""
    path = tmp_path / "recipe.yaml"
    lines = text.splitlines(keepends=True)
    # From the end of a line to its beginning, so that columns stay right.
    for (where, line, column), number in sorted(keys.items(), key=lambda item: item[0][1:], reverse=True):
        name = where[-1]
        wrong = misspell(name, number % len(name))
        assert lines[line][column:].startswith(name)
        lines[line] = lines[line][:column] + wrong + lines[line][column + len(name) :]
    path.write_text("".join(lines))
    found = mistakes_of(path)
    for (where, line, column), number in keys.items():
        name, wrong = where[-1], misspell(where[-1], number % len(where[-1]))
        said = [m for m in found if (m.place.line, m.place.column) == (line, column)]
        assert any(f"'{wrong}'" in m.message or f".{wrong}'" in m.message for m in said), (where, wrong, said)
        assert any(re.search(rf"\b{name}\b", m.message + m.advice) for m in said), (where, wrong, said)
        assert said[0].text().startswith(f"{path}:{line + 1}:{column + 1}: error: ")


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
        lines = path.read_text().splitlines()
        unknown = f"unknown key '{dotted((*target, name))}'"
        said = [m for m in mistakes_of(path) if m.message == unknown]
        # The place is read off the file's text, not from the reader under test.
        assert [lines[m.place.line][m.place.column :].startswith(f"{name}:") for m in said] == [True], (where, target)
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
