"""`--set a.b=value` is checked by the rules of the file and named in the message."""

from pathlib import Path

import pytest

from alignment.errors import RecipeError
from alignment.recipe.loader import load_recipe, read_recipe

TEXT = """stage: sft
model: {path: a/b}
data:
  train:
    - path: a.jsonl
      format: messages
    - path: b.jsonl
      format: messages
      rows: 3
  eval:
    - path: c.jsonl
      format: messages
train:
  max_steps: 5
  learning_rate: 1e-4
eval:
  metrics: [stops]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "sft.yaml"
    path.write_text(TEXT)
    return path


def test_values_replace_those_of_the_file_at_every_depth(recipe: Path) -> None:
    found = load_recipe(
        recipe,
        [
            "train.learning_rate=1e-5",
            "data.train.1.rows=7",
            "lora.r=4",
            "chat.system=a = b, c",
            "eval.metrics.0=recall",
        ],
    )
    assert found.train.learning_rate == 1e-5
    assert [source.rows for source in found.data.train] == [None, 7]
    assert (found.lora.r, found.lora.lora_alpha) == (4, 32)
    assert found.eval.metrics == ("recall",)
    assert found.chat.system == "a = b, c"


def test_a_value_may_be_null_a_list_or_a_section(recipe: Path) -> None:
    found = load_recipe(
        recipe, ["data.train.1.rows=null", "eval.metrics=[recall, {metric: stops}]", "lora={}", "data.train.1.repeat=2"]
    )
    assert found.data.train[1].rows is None
    assert found.eval.metrics[1].metric == "stops"
    assert found.lora.r == 16


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.learning_rat=3", "unknown key 'train.learning_rat'\n         = did you mean 'learning_rate'?"),
        ("trian.max_steps=3", "unknown key 'trian'\n         = did you mean 'train'?"),
        ("learning_rate=3", "unknown key 'learning_rate'\n         = it belongs in section 'train'"),
        ("dpo.beta=3", "stage sft does not read 'dpo' here; stages that do: dpo"),
        ("train.max_steps=1.5", "train.max_steps: found 1.5 (a number); a whole number above 0 was expected"),
        ("train.max_steps=1_0", "found 1_0; a number without underscores was expected"),
        ("train.max_steps=", "found nothing; a value was expected"),
        ("train.bf16=yes", "write true"),
        ("train.max_steps=[1", "not valid YAML"),
        ("train.max_steps=&a 3", "anchor '&a'"),
        ("train.num_train_epochs=3", "give exactly one of 'num_train_epochs' and 'max_steps'"),
        ("data.train.2.rows=5", "data.train: no item '2'\n         = items are counted from 0 to 1"),
        ("data.train.x.rows=5", "data.train: no item 'x'"),
        ("lora.modules_to_save.0=x", "lora.modules_to_save: found a mapping; a list of texts was expected"),
        ("eval.metrics.0.name=x", "eval.metrics.0: found 'stops' (text), which has no keys"),
        ("stage=dp", "stage: found 'dp' (text); a stage was expected\n         = did you mean 'dpo'?"),
        ("train", "no key and value\n         = write --set section.key=value"),
        ("train..x=1", "no key and value"),
    ],
)
def test_a_mistake_names_the_option(recipe: Path, override: str, said: str) -> None:
    texts = [mistake.text() for mistake in read_recipe(recipe, [override]).mistakes]
    named = [text for text in texts if text.startswith(f"command line: --set {override}: error: ")]
    assert any(said in text for text in named), texts


def test_an_option_given_twice_is_refused(recipe: Path) -> None:
    with pytest.raises(RecipeError, match=r"--set lora\.r=3: error: 'lora\.r' is given twice"):
        load_recipe(recipe, ["lora.r=2", "lora.r=3"])


def test_the_file_is_never_changed(recipe: Path) -> None:
    load_recipe(recipe, ["seed=9"])
    assert recipe.read_text() == TEXT
