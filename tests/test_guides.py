"""The guides name commands, options, keys and files that are there."""

import argparse
import importlib
import re
from pathlib import Path

import pytest

from alignment.cli import COMMANDS
from alignment.recipe.schema import RECIPES
from alignment.recipe.shape import walk_fields

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = ("coming-from.md", "plan.md", "publish.md", "recipes.md", "rehearse.md", "search.md")
TEXTS = {name: (DOCS / name).read_text(encoding="utf-8") for name in GUIDES}


@pytest.mark.parametrize("name", GUIDES)
def test_a_link_leads_to_a_file(name: str) -> None:
    assert all((DOCS / target).exists() for target in re.findall(r"\]\(([^)#:]+)\)", TEXTS[name]))


@pytest.mark.parametrize("name", GUIDES)
def test_every_command_exists_and_has_the_options_that_are_shown(name: str) -> None:
    shown = re.findall(r"(?:`|^    )alignment (\w+)([^`\n#|]*)", TEXTS[name], re.MULTILINE)
    assert shown
    for command, rest in shown:
        parser = argparse.ArgumentParser()
        importlib.import_module(COMMANDS[command][0]).add_arguments(parser)
        known = {option for action in parser._actions for option in action.option_strings}
        assert set(re.findall(r"(?<!\S)--[\w]+", rest)) <= known, (command, rest)


def test_every_key_of_ours_in_the_table_of_keys_is_one() -> None:
    section = TEXTS["coming-from.md"].partition("## Their keys, ours")[2].partition("## What converts")[0]
    ours = re.findall(r"^\|[^|]+\|([^|]+)\|", section, re.MULTILINE)[2:]
    named = {
        key.rstrip(":").split(":")[0] for cell in ours for key in re.findall(r"`((?:train|data|chat)\.[\w.]+)", cell)
    }
    keys = {name for recipe in RECIPES.values() for _, name, _ in walk_fields(recipe)}
    sections = {f"{section}.{key}" for section in ("train", "data", "chat") for key in keys if "." not in key} | keys
    assert named
    assert named <= sections


@pytest.mark.parametrize(
    "path", re.findall(r"recipes/[a-z0-9.-]+(?:/[\w-]+\.yaml)?", TEXTS["coming-from.md"] + TEXTS["publish.md"])
)
def test_recipes_that_are_shown_are_there_or_the_readers_own(path: str) -> None:
    theirs = ("recipes/my-study", "recipes/accelerate", "recipes/zephyr-7b-beta")
    assert path.startswith(theirs) or (DOCS.parent / path).exists()
