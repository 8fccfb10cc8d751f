"""`alignment curate`: every row is accounted for, whoever runs it and however often it is killed."""

import gzip
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dirty import all_bytes, read_rows, write_rows, write_study

from alignment.cli import main
from alignment.errors import DataError


def curate(folder: Path, out: str = "out", *options: str) -> Path:
    assert main(["curate", str(folder / "r.yaml"), "--out", str(folder / out), *options]) == 0
    return folder / out


def refusal(folder: Path, capsys: pytest.CaptureFixture, *options: str) -> str:
    assert main(["curate", str(folder / "r.yaml"), "--out", str(folder / "out"), *options]) == DataError.code
    return capsys.readouterr().err


def test_each_row_is_kept_whole_or_removed_for_the_right_reason(tmp_path: Path) -> None:
    gone = write_study(tmp_path)
    out = curate(tmp_path)
    raw = {row["id"]: row for row in read_rows(tmp_path / "raw")}
    for reason, ids in gone.items():
        assert {row["id"] for row in read_rows(out / "removed" / reason)} == ids, reason
    assert {folder.name for folder in (out / "removed").iterdir()} == set(gone)
    kept = read_rows(out / "final")
    assert {row["id"] for row in kept} == set(raw) - set().union(*gone.values())
    assert all(row == raw[row["id"]] and next(iter(row)) == "id" for row in kept)


def test_the_receipt_counts_every_step_and_the_sums_are_those_of_the_files(tmp_path: Path) -> None:
    write_study(tmp_path)
    out = curate(tmp_path)
    receipt = json.loads((out / "receipt.json").read_text())
    assert [step["step"] for step in receipt["steps"]] == [
        "00-read", "01-normalize", "02-exact_dedup", "03-near_dedup", "04-pii", "05-decontaminate",
    ]  # fmt: skip
    coming = len(read_rows(tmp_path / "raw"))
    for step in receipt["steps"]:
        assert step["in"] == coming == step["kept"] + sum(step["removed"].values())
        coming = step["kept"]
    assert receipt["rows_kept"] == coming == len(read_rows(out / "final"))
    assert receipt["rows_removed"] == {folder.name: len(read_rows(folder)) for folder in (out / "removed").iterdir()}


@pytest.mark.parametrize(("workers", "tasks"), [(1, 1), (1, 3), (2, "auto")])
def test_the_result_does_not_depend_on_workers_and_tasks(tmp_path: Path, workers: int, tasks: int | str) -> None:
    write_study(tmp_path)
    expected = all_bytes(curate(tmp_path, "reference"))
    write_study(tmp_path, workers=workers, tasks=tasks)
    assert all_bytes(curate(tmp_path)) == expected


def test_a_row_without_id_is_named_by_file_and_line(tmp_path: Path) -> None:
    write_study(tmp_path)
    write_rows(
        tmp_path / "raw/part-0.jsonl", [{"text": "one of a kind and long enough"}, {"id": 7, "text": "another one"}]
    )
    kept = read_rows(curate(tmp_path) / "final")
    assert [row["id"] for row in kept[:2]] == ["raw/part-0.jsonl:1", 7]


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_ends_in_the_same_bytes(tmp_path: Path, rounds: int) -> None:
    write_study(tmp_path, files=6)
    expected = all_bytes(curate(tmp_path, "reference"))
    rng = random.Random(rounds)
    command = [sys.executable, "-m", "alignment", "curate", str(tmp_path / "r.yaml"), "--out"]
    for number in range(rounds):
        out = tmp_path / f"out{number}"
        killed = subprocess.Popen([*command, str(out)], stdout=subprocess.DEVNULL, start_new_session=True)
        while not (out / "work").exists() and killed.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.6))
        if killed.poll() is None:
            os.killpg(killed.pid, 9)
        killed.wait()
        assert all_bytes(curate(tmp_path, out.name)) == expected


def test_a_finished_run_is_not_done_again_and_a_changed_recipe_is(tmp_path: Path) -> None:
    write_study(tmp_path)
    out = curate(tmp_path)
    before = (out / "final/00000.jsonl").stat().st_mtime_ns
    curate(tmp_path)
    assert (out / "final/00000.jsonl").stat().st_mtime_ns == before
    text = (tmp_path / "r.yaml").read_text()
    (tmp_path / "r.yaml").write_text(text.replace("    - near_dedup: {}\n", ""))
    curate(tmp_path)
    assert not (out / "removed/near_duplicate").exists()
    assert len(read_rows(out / "final")) == 60 + 5


def test_a_changed_recipe_never_goes_on_with_what_an_older_one_left(tmp_path: Path) -> None:
    write_study(tmp_path)
    out = tmp_path / "out"
    first = subprocess.Popen(
        [sys.executable, "-m", "alignment", "curate", str(tmp_path / "r.yaml"), "--out", str(out)],
        start_new_session=True,
    )
    while not list(out.glob("work/*/counts/*.json")) and first.poll() is None:
        time.sleep(0.005)
    if first.poll() is None:
        os.killpg(first.pid, 9)
    first.wait()
    write_rows(tmp_path / "raw/part-0.jsonl", [{"id": "new", "text": "a row that was not there before"}])
    kept = {row["id"] for row in read_rows(curate(tmp_path) / "final")}
    assert "new" in kept
    assert "clean0" not in kept


def test_a_step_that_removes_everything_stops_with_examples(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_study(tmp_path)
    text = (tmp_path / "r.yaml").read_text()
    (tmp_path / "r.yaml").write_text(text + "    - gopher_quality:\n        min_words: 5000\n")
    said = refusal(tmp_path, capsys)
    assert "curate 06-gopher_quality: it removed 60 of 60 rows (60 gopher_short_doc)" in said
    assert "clean0 (gopher_short_doc):" in said
    assert not (tmp_path / "out/final").exists()


@pytest.mark.parametrize(
    ("limit", "said"),
    [("max_removed: 0.05", "at most 0.05 of them was expected"), ("min_removed: 0.5", "at least 0.5 was expected")],
)
def test_a_step_that_removes_too_much_or_too_little_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture, limit: str, said: str
) -> None:
    write_study(tmp_path)
    text = (tmp_path / "r.yaml").read_text()
    (tmp_path / "r.yaml").write_text(text.replace("exact_dedup: {}", f"exact_dedup:\n        {limit}"))
    found = refusal(tmp_path, capsys)
    assert "curate 02-exact_dedup: it removed 7 of 74 rows (7 exact_duplicate)" in found
    assert said in found


def test_a_line_that_is_no_row_is_refused_by_name_or_dropped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_study(tmp_path)
    with (tmp_path / "raw/part-1.jsonl").open("ab") as file:
        file.write(b'{"text": "cut of\n{"text": "\xe9"}\n[1]\n')
    assert "raw/part-1.jsonl:20: found no JSON" in refusal(tmp_path, capsys)
    out = curate(tmp_path, "out", "--set", "data.on_bad_row=drop")
    found = [row["curate"]["found"] for row in read_rows(out / "removed/bad_row")]
    assert [text.split(":")[0] for text in found] == ["no JSON", "byte 0xe9 is not UTF-8", "list in place of an object"]


def test_a_row_that_training_could_not_read_is_a_bad_row(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Half a surrogate pair, a number that Python does not read, and nesting that only some steps would stand."""
    write_study(tmp_path)
    with (tmp_path / "raw/part-1.jsonl").open("a") as file:
        file.write('{"id": "half", "text": "a\\ud800b"}\n{"text": "b", "n": ' + "7" * 5000 + "}\n")
        file.write('{"text": "c", "n": ' + "[" * 900 + "]" * 900 + "}\n")
    assert "raw/part-1.jsonl:20: found U+D800, half of a surrogate pair" in refusal(tmp_path, capsys)
    out = curate(tmp_path, "out", "--set", "data.on_bad_row=drop")
    found = [row["curate"]["found"] for row in read_rows(out / "removed/bad_row")]
    assert [text[:6] for text in found] == ["U+D800", "no JSO", "values"]
    assert "half" not in {row["id"] for row in read_rows(out / "final")}


@pytest.mark.parametrize("left", ["one file", "nothing"])
def test_a_source_without_rows_is_refused_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture, left: str
) -> None:
    write_study(tmp_path)
    files = sorted((tmp_path / "raw").iterdir())
    for file in files if left == "nothing" else files[1:]:
        file.write_text("")
    if left == "nothing":
        assert "raw: found no rows; at least one was expected" in refusal(tmp_path, capsys)
        assert not (tmp_path / "out/final").exists()
    else:
        curate(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "parquet.gz", "jsonl.gz", "csv.gz", "warc", "warc.gz"])
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, kind: str
) -> None:
    write_study(tmp_path)
    (tmp_path / f"raw/part-0.{kind}").write_bytes(b"nothing\xe9 like it")
    said = refusal(tmp_path, capsys)
    assert f"part-0.{kind}: " in said
    assert "expected" in said


def test_a_packed_file_that_was_cut_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_study(tmp_path)
    packed = gzip.compress((tmp_path / "raw/part-0.jsonl").read_bytes())
    (tmp_path / "raw/part-0.jsonl.gz").write_bytes(packed[:-9])
    assert "part-0.jsonl.gz: 'Compressed file ended" in refusal(tmp_path, capsys)


def test_a_pattern_of_data_files_is_inside_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_study(tmp_path)
    text = (tmp_path / "r.yaml").read_text()
    (tmp_path / "r.yaml").write_text(text.replace("path: raw", "path: raw\n      data_files: [/etc/x]"))
    assert "raw: data_files: found '/etc/x'; a pattern relative to" in refusal(tmp_path, capsys)


def test_two_runs_into_one_folder_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from filelock import FileLock

    write_study(tmp_path)
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out/.lock"):
        assert main(["curate", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")]) == 5
    assert "is at work in this folder" in capsys.readouterr().err


def test_a_recipe_of_another_stage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    full = Path(__file__).parents[1] / "recipe/full/sft.yaml"
    assert main(["curate", str(full), "--out", str(tmp_path)]) == 2
    assert "stage sft; curate was expected" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prepare", "preview"])
def test_other_commands_send_a_curation_to_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([command, str(tmp_path / "r.yaml")]) == 2
    assert "Run `alignment curate RECIPE --out DIR`" in capsys.readouterr().err
