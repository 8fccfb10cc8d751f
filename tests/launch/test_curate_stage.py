"""Curation as a stage of a pipeline: it runs, is skipped, is made anew, and what it made is named by those that read it."""

import json
import shutil
from pathlib import Path

import pytest

from alignment.cli import main
from alignment.curate.require import missing_modules
from alignment.data.sources import find_source
from alignment.launch.pipeline import run_pipeline
from alignment.launch.request import TrainRequest
from alignment.launch.stages import judge_stage, load_stages
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.pipeline import load_pipeline
from alignment.report.receipt import read_receipt, receipt_hash

pytestmark = pytest.mark.skipif(bool(missing_modules()), reason="the [curate] extra is not installed")
STUDY = Path("recipes/clean")
CURATE = """stage: curate
data:
  train:
    - path: data/raw.jsonl
      format: text
curate:
  truth: wrong
  steps:
    - exact_dedup: {}
    - decontaminate:
        evals:
          - path: data/evals.jsonl
"""
TOKENIZER = """stage: tokenizer
tokenizer:
  algorithm: bpe
  vocab_size: 280
data:
  train:
    - path: runs/clean/curate/final
      format: text
"""
CLEAN = [
    f"sentence {word} says that rivers run to the sea"
    for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")
]
ITEM = "which of these eight rivers runs to the northern sea"


def write_raw(rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"text": text, "wrong": wrong}) + "\n" for text, wrong in rows]
    (STUDY / "data/raw.jsonl").write_text("".join(lines))


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight clean rows; of five dirty ones three are found, and one clean row more is taken for a duplicate."""
    monkeypatch.chdir(tmp_path)
    (STUDY / "data").mkdir(parents=True)
    (STUDY / "curate.yaml").write_text(CURATE)
    (STUDY / "tokenizer.yaml").write_text(TOKENIZER)
    (STUDY / "pipeline.yaml").write_text("stages:\n  - curate.yaml\n  - tokenizer.yaml\n")
    (STUDY / "data/evals.jsonl").write_text(json.dumps({"question": ITEM}) + "\n")
    dirty = [
        (CLEAN[0].upper(), "copy"),
        (CLEAN[1], "copy"),
        (f"Quiz: {ITEM}?", "leaked"),
        ("#### ####", "noise"),
        ("0 1 0", "noise"),
    ]
    write_raw([*((text, "") for text in CLEAN), *dirty, (f"{CLEAN[2]}!", "")])
    return STUDY


def run() -> int:
    return run_pipeline(STUDY, TrainRequest(STUDY)).code


def verdicts() -> list[str]:
    return [judge_stage(stage).action for stage in load_stages(load_pipeline(STUDY))]


def test_a_pipeline_curates_scores_skips_what_is_done_and_names_what_it_was_made_from(study: Path, capfd) -> None:
    assert verdicts() == ["new", "new"]
    assert run() == 0
    results = json.loads(Path("runs/clean/results.json").read_text())
    assert results["curate/recall"] == 0.6  # 3 of 5 planted rows were removed
    assert results["curate/precision"] == 0.75  # 3 of 4 removed rows were planted
    assert results["seconds/curate"] >= 0
    page = Path("runs/clean/report.html").read_text()
    assert "Curation" in page
    assert "10 of 14 rows kept" in page
    own = Path("runs/clean/curate/report.html").read_text()
    assert "what was planted" in own
    curated = read_receipt(Path("runs/clean/curate"))
    assert curated["truth"]["copy"] == {"exact_duplicate": 2}
    [parent] = read_receipt(Path("runs/clean/tokenizer"))["parents"]
    assert parent == {"path": "runs/clean/curate/final", "kind": "data", "receipt_hash": receipt_hash(curated)}
    card = Path("runs/clean/tokenizer/README.md").read_text()
    assert f"| curated data | runs/clean/curate/final |  | {receipt_hash(curated)} |" in card
    capfd.readouterr()
    assert run() == 0
    said = capfd.readouterr().err
    assert "runs/clean/curate: done" in said
    assert "runs/clean/tokenizer: done" in said

    shutil.rmtree("runs/clean/curate")  # made again, it is the same to the byte: what was made from it stays
    assert main(["curate", str(study / "curate.yaml")]) == 0
    assert verdicts() == ["done", "done"]

    Path("runs/clean/curate/exit.json").unlink()  # as after a kill
    assert verdicts()[0] == "resume"
    assert run() == 0
    assert verdicts() == ["done", "done"]

    (study / "data/evals.jsonl").write_text(json.dumps({"question": "another question about other rivers"}) + "\n")
    assert verdicts()[0] == "anew"
    write_raw([(text, "") for text in CLEAN])
    assert verdicts()[0] == "anew"


def test_where_a_curation_is_done_does_not_make_another_run_of_it(study: Path) -> None:
    assert main(["curate", str(study / "curate.yaml")]) == 0
    text = (study / "curate.yaml").read_text()
    (study / "curate.yaml").write_text(text.replace("curate:\n", "curate:\n  executor:\n    tasks: 1\n", 1))
    assert "tasks: 1" in (study / "curate.yaml").read_text()
    assert verdicts()[0] == "done"


def test_what_a_run_is_to_make_is_named_when_it_is_not_there(study: Path, capsys) -> None:
    assert main(["check", str(study)]) == 0
    assert "not there" not in capsys.readouterr().out
    assert main(["train", str(study / "tokenizer.yaml")]) == 3
    assert "runs/clean/curate/final: no file or folder of that name in the current folder" in capsys.readouterr().err
    (study / "data/evals.jsonl").unlink()
    assert main(["run", str(study)]) == 3
    said = capsys.readouterr().err
    assert "1 input is missing; nothing was started." in said
    assert "recipes/clean/curate.yaml: data/evals.jsonl" in said


def test_a_pipeline_that_reads_before_it_curates_is_refused(study: Path, capsys) -> None:
    (study / "pipeline.yaml").write_text("stages:\n  - tokenizer.yaml\n  - curate.yaml\n")
    assert main(["check", str(study)]) == 2
    said = capsys.readouterr().err
    assert "data.train.0.path: runs/clean/curate is made by curate.yaml, which" in said
    assert "write curate.yaml before tokenizer.yaml" in said


def test_a_truth_that_no_row_has_is_refused(study: Path, capsys) -> None:
    assert main(["curate", str(study / "curate.yaml"), "--set", "curate.truth=dirt"]) == 3
    assert "curate.truth: no row has a column 'dirt'" in capsys.readouterr().err


def test_data_below_runs_is_that_of_the_current_folder_and_all_else_of_the_recipe(study: Path) -> None:
    for folder in (Path("runs/a/final"), study / "runs/a/final"):
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text("{}\n")
    found = find_source(SourceSpec(path="runs/a/final", format="text"), study, None)
    assert found.files == (Path("runs/a/final/rows.jsonl"),)
    found = find_source(SourceSpec(path="./runs/a/final", format="text"), study, None)
    assert found.files[0].resolve() == (study / "runs/a/final/rows.jsonl").resolve()
