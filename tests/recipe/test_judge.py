"""Rules between keys are asked of what is right, and of nothing else."""

from pathlib import Path

import pytest

from alignment.recipe.loader import read_recipe

START = """stage: sft
model: {path: a/b}
data:
  train:
    - path: a.jsonl
      format: messages
"""


def messages(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "r.yaml"
    path.write_text(START + text)
    return [mistake.message for mistake in read_recipe(path).mistakes]


def test_no_rule_reads_a_value_of_the_wrong_type(tmp_path: Path) -> None:
    """The scheduler's rule goes through the names of this mapping, which is none."""
    found = messages(tmp_path, "train: {max_steps: 5, learning_rate: 1e-4, lr_scheduler_kwargs: 5}\n")
    assert len(found) == 1
    assert found[0].startswith("train.lr_scheduler_kwargs: found 5 (a whole number); a mapping")


def test_a_key_in_the_wrong_section_does_not_also_break_a_rule_of_the_right_one(tmp_path: Path) -> None:
    assert messages(tmp_path, "max_steps: 5\ntrain: {learning_rate: 1e-4}\n") == ["unknown key 'max_steps'"]


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (" []", "data.train: found an empty list; a list of at least one item was expected"),
        (
            "\n    - path: a.jsonl\n      format: messages\n      rows: 1\n      repeat: 2",
            "data.train.0: give at most one of",
        ),
    ],
)
def test_a_list_whose_only_item_is_wrong_is_not_called_too_short(tmp_path: Path, sources: str, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        f"stage: sft\nmodel:\n  path: a/b\ndata:\n  train:{sources}\ntrain:\n  max_steps: 1\n  learning_rate: 1.0e-4\n"
    )
    [found] = [mistake.message for mistake in read_recipe(path).mistakes]
    assert found.startswith(said)


@pytest.mark.parametrize("wrong", ["learning_rate: x", "learning_rte: 1", "optim: 5"])
def test_a_rule_is_asked_although_another_key_is_wrong(tmp_path: Path, wrong: str) -> None:
    found = messages(tmp_path, f"train: {{num_train_epochs: 1, max_steps: 5, {wrong}}}\n")
    assert "train: give exactly one of 'num_train_epochs' and 'max_steps'" in found
