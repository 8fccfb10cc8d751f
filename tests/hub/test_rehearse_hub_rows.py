"""Rehearsed rows of a Hub dataset are its own where the Hub can be reached, and generated and said so where not."""

import os
import re
import time
from pathlib import Path

import datasets
import pytest
from hub_datasets import ROWS, add_dataset, fetched_shards
from local_hub import LocalHub

from alignment.launch.rehearse import hub_rows, rows
from alignment.launch.rehearse.build import build, read_built
from alignment.launch.rehearse.rehearsal import rehearse
from alignment.recipe.loader import load_recipe

SFT = """stage: sft
model:
  path: openai-community/gpt2
chat:
  template: chatml
data:
  train:
    - path: o/d
      split: train[:90%]
      format: prompt_completion
      columns:
        prompt: question
  eval:
    - path: o/d
      split: train[90%:]
      format: prompt_completion
      columns:
        prompt: question
train:
  max_steps: 1000
  global_batch_size: 64
  learning_rate: 1.0e-4
  warmup_steps: 100
"""


@pytest.fixture(autouse=True)
def _not_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sft.yaml").write_text(SFT)


@pytest.fixture
def online(hub: LocalHub, tmp_path: Path) -> dict[str, str]:
    """Of a process that may use the network."""
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
    return kept | own


def add_questions(hub: LocalHub, columns: tuple[str, str] = ("question", "completion")) -> None:
    shards = [[{columns[0]: f"q {s} {n}", columns[1]: f"a {s} {n}"} for n in range(ROWS)] for s in range(12)]
    add_dataset(hub, "o/d", shards)


def draw(tmp_path: Path, online: dict[str, str] | None) -> list[rows.DrawnSource]:
    return rows.draw_rows(load_recipe(tmp_path / "sft.yaml"), tmp_path, tmp_path / "scratch", online)


def test_a_few_real_rows_are_streamed_and_the_splits_share_none(hub, online, tmp_path) -> None:
    add_questions(hub)
    train, held_out = draw(tmp_path, online)
    assert (train.missing, train.is_streamed, held_out.missing) == (None, True, None)
    asked = [{row["question"] for row in source.rows} for source in (train, held_out)]
    assert [len(questions) for questions in asked] == [rows.NUM_ROWS["train"], rows.NUM_ROWS["eval"]]
    assert not asked[0] & asked[1]
    assert all(question.startswith("q ") for question in asked[0] | asked[1])
    # 200 rows are five shards; the first is read for its columns.
    assert 5 <= len(fetched_shards(hub)) <= 6


def test_what_was_streamed_is_noted_and_rehearsed_from_a_file(hub, online, tmp_path) -> None:
    add_questions(hub)
    (tmp_path / "out").mkdir()
    streamed = SFT.replace("split: train[:90%]", "split: train\n      stream: true\n      rows: 100000")
    (tmp_path / "sft.yaml").write_text(streamed)
    build(load_recipe(tmp_path / "sft.yaml"), tmp_path / "sft.yaml", tmp_path / "out", None, online)
    built = read_built(tmp_path / "out")
    assert built.streamed == ("o/d",)
    assert not [remark for remark in built.remarks if remark.what.startswith("rows of")]
    (source,) = load_recipe(tmp_path / "out/recipe.yaml").data.train
    assert (source.path, source.stream, source.rows) == ("data/train-0.jsonl", False, rows.NUM_ROWS["train"])


def test_columns_that_the_hub_does_not_have_fail_the_rehearsal_as_they_would_the_run(
    hub, online, tmp_path, monkeypatch
) -> None:
    add_questions(hub, ("instruction", "completion"))
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET"):
        monkeypatch.setenv(name, online[name])
    result = rehearse(tmp_path / "sft.yaml")
    made, failed = result.steps[:2]
    assert made.detail.endswith("streamed from the Hub: o/d")
    assert (failed.state, result.code) == ("failed", 3)
    assert "question" in failed.detail
    assert "HF_HUB_OFFLINE" not in os.environ


@pytest.mark.parametrize(
    ("name", "said"),
    [("o/gone", "of the Hub: o/d: .*a dataset that can be loaded was expected"), ("o/d", "Bad split: train")],
)
def test_what_the_hub_does_not_give_is_generated_and_the_reason_said(
    hub, online, tmp_path, name: str, said: str
) -> None:
    add_dataset(hub, name, [[{"question": "q", "completion": "a"}]])
    if name == "o/d":  # of another split
        repository = hub.repositories["datasets/o/d"]
        repository.commit("main", {"data/test-00000.parquet": next(iter(repository.files().values()))}, "renamed")
    for source in draw(tmp_path, online):
        assert not source.is_streamed
        assert source.missing.startswith("it is not in the cache of this machine, and")
        assert re.search(said, source.missing)
        assert len(source.rows) == rows.NUM_ROWS[source.split]


def test_a_hub_that_does_not_answer_in_time_is_not_waited_for(hub, online, tmp_path, monkeypatch) -> None:
    add_questions(hub)
    hub.faults["read"] = ["slow"] * 1000
    monkeypatch.setattr(hub_rows, "LIMIT_SECONDS", 3.0)
    assert [source.missing for source in draw(tmp_path, online)] == [
        "it is not in the cache of this machine, and of the Hub: no rows within 3 s"
    ] * 2


def test_a_hub_that_cannot_be_reached_is_known_at_once(online, tmp_path) -> None:
    begun = time.monotonic()
    for source in draw(tmp_path, online | {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        assert "of the Hub: http://127.0.0.1:9 cannot be reached" in source.missing
        assert len(source.rows) == rows.NUM_ROWS[source.split]
    assert time.monotonic() - begun < hub_rows.LIMIT_SECONDS


def test_without_a_network_the_hub_is_not_asked(hub, tmp_path) -> None:
    add_questions(hub)
    assert {source.missing for source in draw(tmp_path, None)} == {
        "it is not in the cache of this machine, and the network is not used"
    }
    assert not hub.calls


def test_a_metric_of_rows_that_the_first_ones_are_not_gets_generated_ones(hub, online, tmp_path) -> None:
    add_questions(hub)
    metrics = "eval:\n  metrics:\n    - metric: stops\n      where:\n        kind: rare\n"
    (tmp_path / "sft.yaml").write_text(SFT + metrics)
    train, held_out = draw(tmp_path, online)
    assert train.is_streamed
    assert "of the first 200 rows on the Hub none has {'kind': 'rare'}" in held_out.missing
    assert {row["kind"] for row in held_out.rows} == {"rare"}
