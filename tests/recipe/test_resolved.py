"""The resolved text says everything that decides a run, and reading it gives the same recipe."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_files import CONFIGS, FULL, ROOT, config_recipe, repository_recipes

from alignment.recipe.loader import load_recipe, read_recipe
from alignment.recipe.resolved import marked_text, recipe_fields, recipe_hash, recipe_text, run_folder
from alignment.recipe.schema import Recipe

MINIMAL = """stage: sft
model: {path: a/b}
data:
  train:
    - path: a.jsonl
      format: messages
  eval:
    - path: b.jsonl
      format: messages
train: {max_steps: 1, learning_rate: 1}
"""


def read_back(recipe: Recipe, tmp_path: Path) -> Recipe:
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe_text(recipe), encoding="utf-8")
    return load_recipe(path)


def load_text(text: str, tmp_path: Path) -> Recipe:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return load_recipe(path)


@pytest.mark.parametrize("path", repository_recipes(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_resolved_text_reads_as_an_equal_recipe_of_the_same_hash(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    again = read_back(recipe, tmp_path)
    assert again == recipe
    assert recipe_text(again) == recipe_text(recipe)
    assert recipe_hash(again) == recipe_hash(recipe)


@pytest.mark.parametrize("config", CONFIGS)
def test_so_does_every_model_configuration(config: type, tmp_path: Path) -> None:
    recipe = load_text(config_recipe(config), tmp_path)
    assert read_back(recipe, tmp_path) == recipe


TRICKY = ["1e5", "1_000", "no", "true", "null", "~", "2024-01-01", "010", "0x1f", ".inf", "", " a ", "a: b", "- a", "#", "'", '"',
          "a\nb\n", "a\n\n b", "\t", "&a", "*a", "!a", "%", "@", "{", "[", "\x85", "a\x85b", "é\u2028", "\U0001f600", "x" * 5000, "a " * 3000, "<<"]  # fmt: skip


@pytest.mark.parametrize("text", TRICKY)
def test_text_that_looks_like_something_else_stays_text(text: str, tmp_path: Path) -> None:
    check_text(text, tmp_path)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives(tmp_path: Path, text: str) -> None:
    check_text(text, tmp_path)


def check_text(text: str, tmp_path: Path) -> None:
    recipe = load_text(MINIMAL, tmp_path)
    source = recipe.data.train[0].model_copy(update={"system": text, "columns": {text: text}})
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"train": (source,)})})
    again = read_back(recipe, tmp_path)
    assert again.data.train[0].system == text
    assert dict(again.data.train[0].columns) == {text: text}
    assert recipe_hash(again) == recipe_hash(recipe)


def test_the_hash_is_that_of_the_meaning_and_not_of_the_writing(tmp_path: Path) -> None:
    written = [
        MINIMAL,
        "# a note\n" + MINIMAL,
        "train: {learning_rate: 1.0, max_steps: 1}\n"
        + MINIMAL.replace("train: {max_steps: 1, learning_rate: 1}\n", ""),
        MINIMAL.replace("max_steps: 1,", "max_steps: 1, optim: adamw_torch_fused,") + "seed: 0\nlora: null\n",
    ]
    assert len({recipe_hash(load_text(text, tmp_path)) for text in written}) == 1


def test_the_hash_moves_with_every_kind_of_change(tmp_path: Path) -> None:
    changed = [
        MINIMAL,
        MINIMAL + "seed: 1\n",
        MINIMAL + "lora: {}\n",
        MINIMAL.replace("a.jsonl", "b.jsonl"),
        MINIMAL.replace("learning_rate: 1", "learning_rate: 1.0000001"),
        MINIMAL + "eval: {metrics: [stops]}\n",
        MINIMAL + "eval: {metrics: [{metric: stops}]}\n",
    ]
    assert len({recipe_hash(load_text(text, tmp_path)) for text in changed}) == len(changed)


def test_the_stage_comes_first_and_defaults_are_written(tmp_path: Path) -> None:
    text = recipe_text(load_text(MINIMAL, tmp_path))
    assert text.startswith("stage: sft\nseed: 0\nmodel:\n  path: a/b\n")
    assert "  optim: adamw_torch_fused\n" in text
    assert recipe_fields(load_text(MINIMAL, tmp_path))["train"]["adam_beta2"] == 0.999


def test_defaults_are_marked_and_given_values_are_not(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(MINIMAL + "eval:\n  metrics:\n    - stops\n    - metric: recall\n")
    read = read_recipe(path, ["seed=4"])
    lines = marked_text(read.recipe, read.nodes).splitlines()
    assert [line for line in lines if not line.endswith(":") and not line.endswith("  # default")] == [
        "stage: sft",
        "seed: 4",
        "  path: a/b",
        "    - path: a.jsonl",
        "      format: messages",
        "    - path: b.jsonl",
        "      format: messages",
        "  max_steps: 1",
        "  learning_rate: 1.0",
        "    - stops",
        "    - metric: recall",
    ]
    assert "  optim: adamw_torch_fused  # default" in lines
    assert "tokenizer: {}  # default" in lines
    assert "  template: from_tokenizer  # default" in lines  # once, though its section is absent too
    assert all(line.count("# default") <= 1 for line in lines)


def test_marked_text_is_still_the_recipe(tmp_path: Path) -> None:
    read = read_recipe(FULL / "dpo.yaml")
    assert load_text(marked_text(read.recipe, read.nodes), tmp_path) == read.recipe


def test_the_run_folder_is_study_and_stem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_folder(Path("recipes/zephyr/sft.yaml")) == Path("runs/zephyr/sft")
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert run_folder(Path("sft.yaml")) == Path("runs/mine/sft")
