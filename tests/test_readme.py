"""What the README shows is there, and its recipe is one."""

import re
from pathlib import Path

import pytest

from alignment.cli import COMMANDS
from alignment.recipe.loader import load_recipe

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_a_link_leads_to_a_file(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_a_recipe_shown_is_valid(block: str, tmp_path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(block, encoding="utf-8")
    assert load_recipe(path).stage in block


def test_every_command_shown_exists() -> None:
    shown = set(re.findall(r"alignment (\w+) (?:[A-Z]+|RECIPE)", README))
    assert shown
    assert shown <= set(COMMANDS)


def test_every_make_target_shown_exists() -> None:
    shown = set(re.findall(r"\bmake (\w+) ", README))
    assert shown
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in shown)
