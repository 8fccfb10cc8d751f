"""Named mixtures: found, spliced into the recipe with their paths, refused at their own lines."""

from pathlib import Path

import pytest

from alignment.errors import RecipeError
from alignment.recipe.loader import load_recipe
from alignment.recipe.resolved import recipe_text

RECIPE = """stage: sft
model:
  path: a/b
data:
  mixture: {name}
train:
  max_steps: 5
  learning_rate: 1e-4
"""
MIXTURE = """share_of: rows
train:
  - path: chat.jsonl
    format: messages
    share: 0.75
  - path: someone/dataset
    format: sharegpt
    share: 0.25
"""


def write_study(tmp_path: Path, *, recipe: str = RECIPE, mixture: str = MIXTURE, name: str = "chat-mix") -> Path:
    (tmp_path / "mixtures").mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "mixtures/chat-mix.yaml").write_text(mixture)
    (tmp_path / "mixtures/chat.jsonl").write_text("{}\n")
    path = tmp_path / "study/sft.yaml"
    path.write_text(recipe.format(name=name))
    return path


@pytest.mark.parametrize("name", ["chat-mix", "../mixtures/chat-mix.yaml"])
def test_a_mixture_gives_its_sources_with_paths_seen_from_the_recipe(tmp_path: Path, name: str) -> None:
    data = load_recipe(write_study(tmp_path, name=name)).data
    assert [source.path for source in data.train] == ["../mixtures/chat.jsonl", "someone/dataset"]
    assert [source.share for source in data.train] == [0.75, 0.25]
    assert data.share_of == "rows"


def test_the_resolved_recipe_holds_the_sources_itself(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    recipe = load_recipe(path)
    path.write_text(recipe_text(recipe))
    assert "mixture:" not in path.read_text()
    assert load_recipe(path) == recipe


def test_a_mistake_in_a_mixture_is_shown_at_its_own_line(tmp_path: Path) -> None:
    path = write_study(tmp_path, mixture=MIXTURE.replace("format: sharegpt", "formt: sharegpt"))
    with pytest.raises(RecipeError, match=r"chat-mix\.yaml:7:5: error: unknown key 'data\.train\.1\.formt'"):
        load_recipe(path)


def test_a_key_that_no_mixture_has_is_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path, mixture="max_length: 5\n" + MIXTURE)
    with pytest.raises(RecipeError, match=r"chat-mix\.yaml:1:1: error: unknown key 'max_length'"):
        load_recipe(path)


def test_a_mixture_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"sft\.yaml:5:12: error: data\.mixture: no file(.|\n)*did you mean 'chat-mix'"
    ):
        load_recipe(write_study(tmp_path, name="chat-mux"))


def test_a_mixture_and_sources_of_its_own_are_one_too_many(tmp_path: Path) -> None:
    own = "data:\n  train:\n    - path: a.jsonl\n      format: messages\n"
    path = write_study(tmp_path, recipe=RECIPE.replace("data:\n", own))
    with pytest.raises(RecipeError, match="found 'mixture' and 'train'; one of them was expected"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("share: 0.25", "share: 0.35", r"add up to 1\.1; at most 1 was expected"),
        ("share: 0.25", "share: 0.15", r"add up to 0\.9; 1 was expected"),
        ("    share: 0.25\n", "", None),
        ("share_of: rows\n", "", "need 'share_of': rows or tokens"),
        ("share_of: rows\n", "share_of: rows\ntemperature: 2\n", "give 'share' of sources or a 'temperature'"),
        ("share: 0.25", "share: 0.25\n    rows: 3", "at most one of 'rows', 'repeat' and 'share'"),
        ("share: 0.25", "share: 1.25", "above 0 and at most 1 was expected"),
    ],
)
def test_shares_that_make_no_mixture_are_refused(tmp_path: Path, old: str, new: str, said: str | None) -> None:
    path = write_study(tmp_path, mixture=MIXTURE.replace(old, new))
    if said is None:
        assert [source.share for source in load_recipe(path).data.train] == [0.75, None]
        return
    with pytest.raises(RecipeError, match=said):
        load_recipe(path)
