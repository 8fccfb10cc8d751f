"""Rows of a plan: prepared where they are here, refused where training would refuse them, and as stated where they are elsewhere."""

import json
import re
from pathlib import Path

import pytest

from alignment.cli import main
from alignment.data.prepare import Prepared
from alignment.errors import DataError
from alignment.models.tokenizer import train_tokenizer
from alignment.plan.workload import find_prepared, read_workload
from alignment.recipe.loader import load_recipe
from alignment.recipe.model_spec import NewTokenizerSpec

GOOD = "".join(
    json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * n}]}) + "\n"
    for n in range(1, 41)
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("good.jsonl").write_text(GOOD)
    Path("bad.jsonl").write_text('{"x": 1}\n' * 40)


@pytest.fixture
def tokenizer() -> None:
    """Of the recipe's model, whose sizes a row does not need."""
    spec = NewTokenizerSpec(algorithm="bpe", vocab_size=300)
    train_tokenizer([" ".join(map(str, range(2000)))], spec, "chatml").save_pretrained("model")
    Path("model/config.json").write_text(json.dumps({"model_type": "llama"}))


def write_recipe(path: str, rows_format: str = "messages", packing: str = "false") -> Path:
    """All of it fits a plan: the steps are given, so that it can do without rows."""
    recipe = Path("sft.yaml")
    recipe.write_text(
        f"stage: sft\nmodel:\n  path: ./model\nchat:\n  template: chatml\ndata:\n  max_length: 512\n  packing: {packing}\n  train:\n"
        f"    - path: {path}\n      format: {rows_format}\ntrain:\n  max_steps: 5\n  global_batch_size: 8\n"
        "  per_device_train_batch_size: 4\n  learning_rate: 1.0e-3\n"
    )
    return recipe


def find(path: str, rows_format: str = "messages") -> Prepared | None:
    recipe = write_recipe(path, rows_format)
    return find_prepared(load_recipe(recipe), recipe, Path("runs/x/sft"))


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize(
    ("path", "rows_format", "said"),
    [
        ("bad.jsonl", "messages", "40 of 40 rows: missing_column"),
        ("good.jsonl", "alpaca", "a column 'instruction'"),
    ],
)
def test_rows_that_training_refuses_are_refused(path: str, rows_format: str, said: str) -> None:
    """The bug to catch: any mistake in the data was taken for a tokenizer that is not there yet, and a plan was printed."""
    with pytest.raises(DataError, match=re.escape(said)):
        find(path, rows_format)


@pytest.mark.usefixtures("tokenizer")
def test_the_command_refuses_them_too_and_prints_no_plan(capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", str(write_recipe("bad.jsonl")), "--hardware", "cpu"]) == DataError.code
    printed = capsys.readouterr()
    assert "missing_column" in printed.err
    assert printed.out == ""


@pytest.mark.usefixtures("tokenizer")
def test_rows_that_are_elsewhere_are_none() -> None:
    assert find("someone/dataset") is None  # of the Hub, which nobody asks
    assert find("runs/x/curate/final", "messages") is None  # a run before this one makes it
    assert len(find("good.jsonl").train) == 40


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("path", ["forgotten.jsonl", "./forgotten"])
def test_a_plan_says_what_is_not_on_this_disk(path: str) -> None:
    """It may lie on the cluster that is planned for."""
    recipe = write_recipe(path)
    found = read_workload(load_recipe(recipe), recipe, Path("runs/x/sft"), 1, rows=None, tokens_per_row=None)
    assert (
        found.known_from == f"no number of rows, the steps are given; every row of max_length; not on this disk: {path}"
    )


def test_without_a_tokenizer_there_are_no_rows_whatever_they_are_like() -> None:
    for path in ("good.jsonl", "bad.jsonl", "forgotten.jsonl"):
        assert find(path) is None


@pytest.mark.parametrize(
    ("packing", "tokens", "said"),
    [
        ("true", 40, "1,000 rows, as given, packed into 79"),  # 40,000 tokens in rows of 512
        ("true", None, "1,000 rows, as given"),
        ("false", 40, "1,000 rows, as given"),
    ],
)
def test_rows_are_called_given_as_they_were_given(packing: str, tokens: int | None, said: str) -> None:
    path = write_recipe("good.jsonl", packing=packing)
    found = read_workload(load_recipe(path), path, Path("runs/x/sft"), 1, rows=1000, tokens_per_row=tokens)
    assert found.known_from == said
