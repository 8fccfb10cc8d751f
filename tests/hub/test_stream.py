"""Sources with `stream: true`: their first rows, kept in one file, whatever the connection does."""

import json
import time
from pathlib import Path

import datasets
import pytest
from hub_datasets import ROWS, SHARDS, add_dataset, fetched_shards, look_at, make_rows
from huggingface_hub import constants
from local_hub import Blob, LocalHub

from alignment.data.prepare import Prepared, prepare
from alignment.errors import DataError, RecipeError
from alignment.models.tokenizer import train_tokenizer
from alignment.recipe.loader import load_recipe
from alignment.recipe.model_spec import NewTokenizerSpec

HEAD = "stage: pretrain\nmodel:\n  path: unused\ntrain:\n  max_steps: 1\n  learning_rate: 1e-3\n"
STREAM = "    - path: {path}\n      format: text\n      stream: true\n      rows: {rows}\n"


@pytest.fixture(autouse=True)
def the_only_hub(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    look_at(hub, monkeypatch, tmp_path / "hf")


@pytest.fixture
def tokenizer():
    return train_tokenizer(["shard row 0123456789"], NewTokenizerSpec(vocab_size=270), "chatml")


@pytest.fixture
def run(tmp_path: Path, tokenizer):
    def _run(sources: str, seed: int = 17, evals: str = "", cache: str = "cache") -> Prepared:
        data = f"seed: {seed}\ndata:\n  packing: false\n  train:\n{sources}" + (f"  eval:\n{evals}" if evals else "")
        (tmp_path / "r.yaml").write_text(HEAD + data)
        recipe = load_recipe(tmp_path / "r.yaml")
        return prepare(recipe, tokenizer, recipe_dir=tmp_path, cache_dir=tmp_path / cache)

    return _run


def texts(prepared: Prepared, tokenizer) -> list[str]:
    return sorted(tokenizer.decode(ids, skip_special_tokens=True) for ids in prepared.train["input_ids"])


def whole_shards(rows: list[str]) -> dict[int, int]:
    """Of each shard, how many of its rows there are."""
    shards = [int(row.split()[1]) for row in rows]
    return {shard: shards.count(shard) for shard in shards}


def test_only_the_shards_that_are_needed_are_fetched_and_the_seed_orders_them(hub, run, tokenizer) -> None:
    add_dataset(hub, "o/d")
    first = run(STREAM.format(path="o/d", rows=ROWS + 10))
    rows = texts(first, tokenizer)
    assert sorted(whole_shards(rows).values()) == [10, ROWS]
    (cut,) = (shard for shard, count in whole_shards(rows).items() if count == 10)
    assert {row for row in rows if row.startswith(f"shard {cut} ")} == {f"shard {cut} row {n}" for n in range(10)}
    # Of shard 0 `datasets` reads what the columns are.
    assert fetched_shards(hub) <= {0, *whole_shards(rows)}
    assert texts(run(STREAM.format(path="o/d", rows=ROWS + 10), cache="other"), tokenizer) == rows
    others = [whole_shards(texts(run(STREAM.format(path="o/d", rows=ROWS + 10), seed=n), tokenizer)) for n in range(4)]
    assert len({tuple(sorted(shards.items())) for shards in others}) > 1


def test_a_prepared_stream_is_not_fetched_again_and_another_length_reads_the_same_file(hub, run, tmp_path) -> None:
    add_dataset(hub, "o/d")
    run(STREAM.format(path="o/d", rows=30))
    hub.calls.clear()
    run(STREAM.format(path="o/d", rows=30))
    run(STREAM.format(path="o/d", rows=30).replace("stream: true", "stream: true\n      columns:\n        text: lang"))
    assert not fetched_shards(hub)
    assert len(list((tmp_path / "cache").glob("rows-*.arrow"))) == 1


def test_with_its_commit_a_stream_that_is_on_this_disk_needs_no_hub(hub, run, monkeypatch) -> None:
    commit = add_dataset(hub, "o/d")
    pinned = STREAM.format(path="o/d", rows=30) + f"      revision: {commit}\n"
    before = run(pinned)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    hub.calls.clear()
    assert run(pinned).key == before.key
    assert not hub.calls


def test_another_commit_is_another_folder(hub, run, tokenizer) -> None:
    add_dataset(hub, "o/d")
    before = run(STREAM.format(path="o/d", rows=5))
    add_dataset(hub, "o/d", [[{"text": f"new {n}"} for n in range(9)]])
    after = run(STREAM.format(path="o/d", rows=5))
    assert after.key != before.key
    assert texts(after, tokenizer) == [f"new {n}" for n in range(5)]


def test_where_is_applied_on_the_way_and_rows_are_numbered_in_the_stream(hub, run, tokenizer) -> None:
    add_dataset(hub, "o/d")
    held_out = STREAM.format(path="o/d", rows=15) + "      split: train\n      where:\n        lang: de\n"
    add_dataset(hub, "o/train", [[{"text": f"another {n}"} for n in range(9)]])
    done = run(STREAM.format(path="o/train", rows=5), evals=held_out)
    # Every fourth row is kept, from the first of each shard on; ten of a shard of forty.
    assert done.eval["row"] == [4 * n for n in range(15)]
    columns = [json.loads(row) for row in done.eval["columns_json"]]
    assert {row["lang"] for row in columns} == {"de"}
    assert [row["place"] % 1000 for row in columns] == [4 * n for n in range(10)] + [4 * n for n in range(5)]


def test_two_entries_of_one_stream_share_its_rows_and_none_comes_twice(hub, run, tokenizer) -> None:
    add_dataset(hub, "o/d")
    entry = STREAM.format(path="o/d", rows=25)
    done = run(entry + entry.replace("25", "15"))
    assert [row["obtained"] for row in done.manifest["mix"]] == [25, 15]
    assert len(set(texts(done, tokenizer))) == ROWS
    assert list(whole_shards(texts(done, tokenizer)).values()) == [ROWS]


def test_the_report_says_that_rows_were_streamed(hub, run) -> None:
    commit = add_dataset(hub, "o/d")
    manifest = run(STREAM.format(path="o/d", rows=30)).manifest
    assert manifest["mix"][0]["asked"] == "30 rows, the first of a stream of shards in seeded order"
    assert manifest["sources"][0]["revision"] == commit


def test_more_rows_than_there_are_is_said_with_how_many_there_are(hub, run) -> None:
    add_dataset(hub, "o/d")
    with pytest.raises(DataError, match=rf"o/d\[train\]: found {SHARDS * ROWS} rows; rows: 201 were expected\. Lower"):
        run(STREAM.format(path="o/d", rows=201))


def test_a_column_that_no_row_has_is_refused_at_the_first_row(hub, run) -> None:
    add_dataset(hub, "o/d")
    with pytest.raises(DataError, match="no row has a column 'lnag'; the first has text, lang, place"):
        run(STREAM.format(path="o/d", rows=5) + "      where:\n        lnag: de\n")
    assert len(fetched_shards(hub)) <= 2


def test_a_bad_row_is_named_by_its_number_in_the_stream(hub, run) -> None:
    add_dataset(hub, "o/d", [[{"text": "good", "n": 1}, {"text": "good too", "n": 2}, {"text": "", "n": 1}]])
    with pytest.raises(DataError, match=r"o/d\[train\] row 2"):
        run(STREAM.format(path="o/d", rows=2) + "      where:\n        n: 1\n")


def test_rows_of_json_lines_are_streamed_with_what_is_nested_in_them(hub, run, tokenizer) -> None:
    repository_of = add_dataset(hub, "o/j", [])
    lines = [json.dumps({"text": f"line {n}", "more": {"n": [n]}}) for n in range(6)]
    repository = hub.repositories["datasets/o/j"]
    files = {f"train-{n}.jsonl": Blob("\n".join(lines[3 * n : 3 * n + 3]).encode()) for n in range(2)}
    assert repository.commit("main", files, "jsonl") != repository_of
    assert texts(run(STREAM.format(path="o/j", rows=6)), tokenizer) == [f"line {n}" for n in range(6)]


# ------------------------------------------------------------------------------------------------ what goes wrong


def test_a_dropped_connection_is_made_again(hub, run, tokenizer, monkeypatch) -> None:
    add_dataset(hub, "o/d")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.faults["read"] = [None] * 12 + ["drop", "drop", 503]
    assert len(texts(run(STREAM.format(path="o/d", rows=SHARDS * ROWS)), tokenizer)) == SHARDS * ROWS
    assert not hub.faults["read"]


def test_a_connection_that_stays_dead_is_one_line_and_leaves_nothing_half_written(
    hub, run, tokenizer, tmp_path, monkeypatch
) -> None:
    add_dataset(hub, "o/d")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.faults["read"] = [None] * 15 + ["drop"] * 1000
    with pytest.raises(
        DataError, match=r"o/d\[train\] row \d+: the stream broke off: .*; a row was expected\."
    ) as raised:
        run(STREAM.format(path="o/d", rows=SHARDS * ROWS))
    assert (raised.value.code, "\n" in str(raised.value)) == (3, False)
    assert not list((tmp_path / "cache").glob("*.arrow"))
    hub.faults.clear()
    assert len(texts(run(STREAM.format(path="o/d", rows=SHARDS * ROWS)), tokenizer)) == SHARDS * ROWS


def test_a_shard_that_is_no_parquet_file_is_one_line(hub, run) -> None:
    add_dataset(hub, "o/d", [make_rows(0)])
    files = hub.repositories["datasets/o/d"].files()
    hub.repositories["datasets/o/d"].commit("main", {name: Blob(b"PAR1 not") for name in files}, "broken")
    with pytest.raises(DataError, match="o/d") as raised:
        run(STREAM.format(path="o/d", rows=5))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("fault", ["drop", 500])
def test_a_hub_that_lists_no_files_is_one_line(hub, run, monkeypatch, fault) -> None:
    add_dataset(hub, "o/d")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.faults["tree"] = [fault] * 1000
    with pytest.raises(DataError, match=r"o/d: .*or connect to the Hub") as raised:
        run(STREAM.format(path="o/d", rows=5))
    assert "\n" not in str(raised.value)


def test_without_a_network_it_says_to_connect(hub, run, monkeypatch) -> None:
    add_dataset(hub, "o/d")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"o/d: .*or connect to the Hub"):
        run(STREAM.format(path="o/d", rows=5))


def test_a_local_path_is_not_streamed(run, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(RecipeError, match=r"a\.jsonl: 'stream' belongs to a Hub dataset, and this is a local path"):
        run(STREAM.format(path="a.jsonl", rows=1))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("      stream: true\n", "give 'rows'"),
        ("      stream: true\n      repeat: 2.0\n", "give 'rows'"),
        ("      stream: true\n      rows: 5\n      repeat: 2.0\n", "at most one of 'rows' and 'repeat'"),
        ("      stream: true\n      rows: 5\n      share: 0.5\n", "found rows and share"),
        ("      stream: true\n      rows: 5\n      split: 'train[:10%]'\n", "no slices"),
        ("      streaming: true\n      rows: 5\n", "'stream' with 'rows'"),
    ],
)
def test_what_makes_no_sense_with_a_stream_is_refused(run, keys: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        run(f"    - path: o/d\n      format: text\n{keys}")
