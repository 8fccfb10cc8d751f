"""Scalars as our recipes write them, read back as they were."""

import pytest

from alignment.convert.draft import write_scalar
from alignment.recipe.locate import read_text
from alignment.recipe.mistakes import Origin


def read(text: str) -> object:
    root, mistakes = read_text(f"a: {text}", Origin("test", ()))
    assert mistakes == []
    return root.plain()["a"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2e-5, "2.0e-5"),
        (1.25e-7, "1.25e-7"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (3, "3"),
        (True, "true"),
        (0.0, "0.0"),
        (5e-324, "4.940656458e-324"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert write_scalar(value) == text
    assert read(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["yes", "null", "it's: so", "0.5", "- a", "a #b", "", "*x"])
def test_text_that_yaml_would_take_for_something_else_stands_in_quotes(text: str) -> None:
    assert write_scalar(text).startswith("'")
    assert read(write_scalar(text)) == text


@pytest.mark.parametrize("text", ["org/model-7B", "train[:20%]", "<|end|>", "${DATA}/a.jsonl", "runs/a/b/final"])
def test_names_stand_as_they_are(text: str) -> None:
    assert write_scalar(text) == text
    assert read(text) == text


def test_lines_survive() -> None:
    assert read(write_scalar('a\n"b"')) == 'a\n"b"'
