"""A study's page made anew by `alignment report`: the order of its runs, what they started from, and what is no study."""

import json
from pathlib import Path

import pytest
from page_rules import check_page
from study_on_disk import RECIPES, write_run, write_study

from alignment.cli import main
from alignment.report.study_report import find_runs, study_report

HUB = "mistralai/Mistral-7B-v0.1"


def write_pair(study: Path, base: str = HUB) -> list[Path]:
    """sft of a model that nobody here has made, not finished, and dpo of it, whose name comes first."""
    write_run(study / "dpo", "dpo")
    (study / "sft").mkdir()
    (study / "sft" / "recipe.yaml").write_text(f"stage: sft\nmodel:\n  path: {base}\n")
    return [study / "sft", study / "dpo"]


def lineage(page: Path) -> str:
    svgs = check_page(page).all("svg")
    return next(svg["aria-label"] for svg in svgs if svg.get("class") == "lineage").removeprefix("Lineage: ")


def test_the_command_writes_the_page_that_the_pipeline_wrote(tmp_path: Path) -> None:
    folders = write_study(tmp_path / "study")
    page = study_report(tmp_path / "study", folders)
    before = page.read_text()
    assert "evaluate: " in before
    page.unlink()
    assert main(["report", str(tmp_path / "study")]) == 0
    assert page.read_text() == before


def test_runs_stand_as_results_json_has_them(tmp_path: Path) -> None:
    write_study(tmp_path / "study")
    order = ["tokenizer", "pretrain", "sft", "dpo", "reward", "evaluate"]  # a pipeline with dpo before the reward model
    (tmp_path / "study" / "results.json").write_text(json.dumps({f"seconds/{name}": 1.0 for name in order}))
    assert [folder.name for folder in find_runs(tmp_path / "study")] == order


def test_without_results_a_run_stands_behind_what_it_read_and_else_by_its_stage(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_study(study)
    (study / "results.json").unlink()
    # By name it is first, by stage among the last, and it makes what a run of an early stage reads.
    (study / "a").mkdir()
    (study / "a" / "recipe.yaml").write_text("stage: dpo\nmodel:\n  path: runs/study/dpo/final\n")
    (study / "b").mkdir()
    (study / "b" / "recipe.yaml").write_text("stage: sft\nmodel:\n  path: runs/study/a/final\n")
    order = ["tokenizer", "pretrain", "sft", "reward", "dpo", "a", "b", "evaluate"]
    assert [folder.name for folder in find_runs(study)] == order


def test_runs_that_read_each_other_end_the_search_too(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(
            f"stage: sft\nmodel:\n  path: runs/{tmp_path.name}/{other}/final\n"
        )
    assert [folder.name for folder in find_runs(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("base", [HUB, "runs/other/sft/final"])
def test_a_study_of_a_model_from_elsewhere_begins_with_that_model(tmp_path: Path, base: str) -> None:
    folders = write_pair(tmp_path / "study", base)
    assert find_runs(tmp_path / "study") == folders
    page = study_report(tmp_path / "study", folders)
    assert lineage(page) == f"{base} to sft; sft to dpo"
    assert f"From {base} to an aligned model" in page.read_text()
    assert "raw text" not in page.read_text()


def test_a_model_from_the_hub_and_rows_of_this_study_are_both_where_a_run_is_from(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_pair(study)
    (study / "curate").mkdir()
    (study / "curate" / "recipe.yaml").write_text("stage: curate\n")
    receipt = json.loads((study / "dpo" / "receipt.json").read_text())
    paths = {"model": HUB, "data": "runs/study/curate/final"}
    receipt["parents"] = [{"kind": kind, "path": path} for kind, path in paths.items()]
    (study / "dpo" / "receipt.json").write_text(json.dumps(receipt))
    page = study_report(study, [study / "curate", study / "dpo"])
    assert lineage(page).startswith(f"raw text to curate; {HUB} to dpo; curate to dpo")
    assert f"From {HUB} to an aligned model" in page.read_text()


def test_a_study_that_aligns_nothing_does_not_say_so(tmp_path: Path) -> None:
    write_run(tmp_path / "study" / "tokenizer", "tokenizer")
    write_run(tmp_path / "study" / "pretrain", "pretrain")
    page = study_report(tmp_path / "study", find_runs(tmp_path / "study"))
    assert '<p class="kicker">From raw text</p>' in page.read_text()
    assert lineage(page) == "raw text to tokenizer; tokenizer to pretrain"


def test_a_folder_with_neither_a_run_nor_runs_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = tmp_path / "study" / "tokenizer"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(RECIPES["tokenizer"])
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for folder, said in ((tmp_path / "empty", "runs/STUDY/RECIPE"), (tmp_path, "Name one of its studies: study.")):
        assert main(["report", str(run), str(folder)]) == 2
        printed = capsys.readouterr()
        assert f"{folder}: neither a run (recipe.yaml) nor runs in it" in printed.err
        assert said in printed.err
        assert printed.out == ""
    assert main(["report", str(run), str(run.parent), "--out", str(tmp_path)]) == 2
    assert "--out: " in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
