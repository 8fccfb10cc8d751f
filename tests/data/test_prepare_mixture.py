"""Shares, filters and the cache through `prepare`: what a recipe says is what its rows are."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from chat_tokenizers import make_tokenizer

from alignment.data.prepare import Prepared, prepare
from alignment.errors import DataError
from alignment.recipe.loader import load_recipe

HEAD = "stage: pretrain\nmodel:\n  path: unused\ntrain:\n  max_steps: 1\n  learning_rate: 1e-3\n"


def run(tmp_path: Path, data: str) -> Prepared:
    path = tmp_path / f"r-{os.getpid()}.yaml"  # processes that run at once each write their own
    path.write_text(HEAD + data)
    recipe = load_recipe(path)
    return prepare(recipe, make_tokenizer("chatml", "bytes"), recipe_dir=tmp_path, cache_dir=tmp_path / "cache")


def write_texts(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_tokens_are_shared_as_asked_to_within_a_row(tmp_path: Path) -> None:
    """Rows of a are ten times as long as those of b; half of the tokens is not half of the rows."""
    write_texts(tmp_path / "a.jsonl", [{"text": f"{n:03d}" + "x" * 97} for n in range(50)])
    write_texts(tmp_path / "b.jsonl", [{"text": f"{n:03d}" + "y" * 7} for n in range(300)])
    mix = run(
        tmp_path,
        "data:\n  packing: false\n  share_of: tokens\n  train:\n    - path: a.jsonl\n      format: text\n      share: 0.5\n"
        "    - path: b.jsonl\n      format: text\n      share: 0.5\n",
    ).manifest["mix"]
    longest = max(row["lengths"]["max"] for row in mix)
    assert mix[1]["obtained"] == 300  # the scarcer source is used whole
    assert abs(mix[0]["tokens"] - mix[1]["tokens"]) <= longest
    assert mix[0]["asked"] == "50 % of tokens"
    assert mix[0]["lengths"] == dict.fromkeys(("min", "p50", "p95", "max"), longest)


def test_where_keeps_rows_by_value_and_type_and_lines_stay_those_of_the_file(tmp_path: Path) -> None:
    write_texts(
        tmp_path / "a.jsonl", [{"text": f"text {n}", "lang": "de" if n % 3 else "en", "n": n} for n in range(9)]
    )
    source = "    - path: a.jsonl\n      format: text\n      where:\n        lang: en\n"
    done = run(tmp_path, f"data:\n  packing: false\n  train:\n{source}  eval:\n{source.replace('en', 'de')}")
    assert [row["available"] for row in done.manifest["mix"]] == [3, 6]
    assert done.eval["row"] == [1, 2, 4, 5, 7, 8]
    with pytest.raises(DataError, match=r"where: none of 9 rows has \{'n': '3'\}"):
        run(tmp_path, f"data:\n  train:\n{source.replace('lang: en', chr(110) + ': ' + chr(34) + '3' + chr(34))}")
    with pytest.raises(DataError, match="no row has a column 'lnag'; the first has text, lang, n"):
        run(tmp_path, f"data:\n  train:\n{source.replace('lang: en', 'lnag: en')}")


def _prepare_and_say(folder: Path, results) -> None:
    import alignment.data.prepare as module

    built = []
    build = module._build
    module._build = lambda *arguments: (built.append(1), build(*arguments))
    done = run(folder, "data:\n  train:\n    - path: a.jsonl\n      format: text\n")
    results.put((len(built), done.key, len(done.train)))


def test_four_processes_at_once_compute_once(tmp_path: Path) -> None:
    write_texts(tmp_path / "a.jsonl", [{"text": f"text {n} " * 20} for n in range(300)])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=_prepare_and_say, args=(tmp_path, results)) for _ in range(4)]
    for process in processes:
        process.start()
    said = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(count for count, _, _ in said) == 1
    assert len({(key, rows) for _, key, rows in said}) == 1


def test_an_edit_in_place_of_the_same_size_is_another_folder(tmp_path: Path) -> None:
    data = "data:\n  train:\n    - path: a.jsonl\n      format: text\n"
    write_texts(tmp_path / "a.jsonl", [{"text": "text one"}])
    before = run(tmp_path, data)
    write_texts(tmp_path / "a.jsonl", [{"text": "text two"}])
    assert run(tmp_path, data).key != before.key
