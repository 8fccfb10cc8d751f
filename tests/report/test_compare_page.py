"""Several runs on one page: what differs is shown, and chance is not called a difference."""

import json
from pathlib import Path

import pytest
from page_rules import check_page
from study_on_disk import write_run

from alignment.cli import main
from alignment.errors import RecipeError
from alignment.report.compare_page import MAX_RUNS, flatten, say_difference, write_comparison


def two_runs(tmp_path: Path) -> list[Path]:
    runs = [tmp_path / "study" / name for name in ("dpo", "dpo-2")]
    for run in runs:
        write_run(run, "dpo")
    recipe = (runs[1] / "recipe.yaml").read_text()
    (runs[1] / "recipe.yaml").write_text(recipe.replace("r: 16", "r: 32"))
    return runs


def test_the_page_keeps_the_rules_and_shows_what_differs(tmp_path: Path) -> None:
    path = write_comparison(two_runs(tmp_path))
    assert path == tmp_path / "study" / "comparison.html"
    markup = check_page(path)
    texts = " ".join(markup.texts)
    assert "lora.r" in texts
    assert "model.path" not in texts
    assert "none (less than 2 standard errors)" in texts
    charts = [attributes["aria-label"] for attributes in markup.all("svg")]
    assert any(label.startswith("Loss, loss: dpo from") and "; dpo-2 from" in label for label in charts)


@pytest.mark.parametrize(
    ("values", "errors", "said"),
    [
        ((0.5, 0.61), (0.03, 0.04), "+0.1100"),  # 0.11 against two standard errors of 0.05
        ((0.5, 0.59), (0.03, 0.04), "none (less than 2 standard errors)"),
        ((0.6, 0.5), (0.01, 0.01), "−0.1000"),
        ((0.5, 0.50001), (None, None), "+1.00e-5"),
        ((0.5, None), (0.1, 0.1), ""),
    ],
)
def test_a_difference_is_measured_against_its_standard_error(values: tuple, errors: tuple, said: str) -> None:
    assert say_difference(values, errors) == said


def test_runs_of_the_same_name_carry_their_studys(tmp_path: Path) -> None:
    for study in ("a", "b"):
        write_run(tmp_path / study / "sft", "sft")
    path = write_comparison([tmp_path / "a" / "sft", tmp_path / "b" / "sft"])
    assert path == tmp_path / "comparison.html"
    assert "a/sft and b/sft" in path.read_text()


def test_a_run_without_results_has_empty_cells(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    receipt = json.loads((runs[1] / "receipt.json").read_text())
    del receipt["metrics"]
    (runs[1] / "receipt.json").write_text(json.dumps(receipt))
    check_page(write_comparison(runs))


def test_more_runs_than_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at most"):
        write_comparison([tmp_path] * (MAX_RUNS + 1))


def test_lists_of_mappings_are_numbered() -> None:
    assert flatten({"data": {"train": [{"path": "a"}, {"path": "b"}]}, "x": [1, 2]}) == {
        "data.train.0.path": "a", "data.train.1.path": "b", "x": [1, 2],
    }  # fmt: skip


def test_the_command_writes_each_page_and_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = two_runs(tmp_path)
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "both.html")]) == 0
    assert capsys.readouterr().out.split() == [*(str(run / "report.html") for run in runs), str(tmp_path / "both.html")]
