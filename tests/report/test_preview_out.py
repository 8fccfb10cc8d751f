"""`alignment preview --html`: a place that cannot be written to is refused in words."""

import json
from pathlib import Path

import pytest

from alignment.cli import main
from alignment.models.tokenizer import train_tokenizer
from alignment.recipe.model_spec import NewTokenizerSpec

RECIPE = """stage: sft
model: {path: ./model}
chat: {template: chatml}
data:
  train:
    - path: rows.jsonl
      format: messages
train: {max_steps: 1, learning_rate: 1.0e-4}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = NewTokenizerSpec(algorithm="bpe", vocab_size=300)
    train_tokenizer([" ".join(map(str, range(2000)))], spec, "chatml").save_pretrained("model")
    Path("model/config.json").write_text(json.dumps({"model_type": "llama"}))
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    Path("sft.yaml").write_text(RECIPE)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (".", "--html: .: a folder; a file was expected. Name one: preview.html"),
        ("rows.jsonl/page.html", "--html: rows.jsonl/page.html: "),
    ],
)
def test_a_page_that_cannot_be_written_is_refused(place: str, said: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["preview", "sft.yaml", "--html", place]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_is_refused_before_rows_are_prepared() -> None:
    main(["preview", "sft.yaml", "--html", "."])
    assert not Path("runs").exists()


def test_a_page_is_written_where_it_is_asked_for() -> None:
    assert main(["preview", "sft.yaml", "--html", "deep/page.html"]) == 0
    assert Path("deep/page.html").is_file()
