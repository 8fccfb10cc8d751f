"""The page of a run, of a study and of a preview: what they show, and the rules that every page keeps."""

import json
import sys
from pathlib import Path

import pytest
from page_rules import check_page
from study_on_disk import ENCODE, MIX, write_run, write_study

from alignment.data import preview as data_preview
from alignment.data.preview import Preview, PreviewRow
from alignment.errors import ArtifactError
from alignment.report.curves import make_charts
from alignment.report.preview_page import MAX_SHOWN_TOKENS, write_preview_page
from alignment.report.run_report import write_report
from alignment.report.study_report import study_report


def test_a_run_shows_results_curves_generations_data_and_provenance(tmp_path: Path) -> None:
    write_run(tmp_path / "study" / "dpo", "dpo", "abcd")
    markup = check_page(write_report(tmp_path / "study" / "dpo"))
    text = " ".join(markup.texts)
    for shown in (
        "study/dpo", "0.8890", "± 0.0123", "before 0.4810 ± 0.0101", "Implicit rewards", "rewards/rejected", "11.5k", "I do not know.",
        "before · did not stop", "expected: Paris", "data/sft.jsonl", "412,331", "receipt abcd", "commit", "reference: start", "merged before",
    ):  # fmt: skip
        assert shown in text, shown
    assert len(markup.all("figure")) == 8


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("stage: sft\nseed: 1\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "time": 1.0, "loss": 2.0}\n{"step": 20, "ti')
    markup = check_page(write_report(tmp_path))
    assert "not finished" in " ".join(markup.texts)
    assert len(markup.all("figure")) == 1


def test_a_broken_line_in_the_middle_of_the_metrics_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 10,\n{"step": 20, "loss": 1.0}\n')
    with pytest.raises(ArtifactError, match=r"metrics\.jsonl:1"):
        write_report(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        write_report(tmp_path / "none")


def test_long_runs_with_many_metrics_and_endless_generations_stay_small(tmp_path: Path) -> None:
    run = tmp_path / "study" / "sft"
    write_run(run, "sft")
    names = [f"family{number}/a_rather_long_metric_name" for number in range(80)]
    lines = [json.dumps({"step": step, "time": 1.0, **dict.fromkeys(names, step * 1.7 % 97)}) for step in range(2000)]
    (run / "metrics.jsonl").write_text("\n".join(lines))
    samples = [{"prompt": f"{n}" + "<&" * 20_000, "completion": "é" * 50_000, "stopped": False} for n in range(100)]
    (run / "samples.json").write_text(json.dumps({"before": samples, "after": samples}))
    markup = check_page(write_report(run))
    assert "40 more metrics are in metrics.jsonl." in markup.texts


def test_held_out_values_share_the_chart_of_the_training_ones_and_new_metrics_get_their_own() -> None:
    logs = [{"step": s, "time": 0.0, "loss": 1.0, "epoch": 0.1, "new/thing": float(s), "single": 1.0} for s in (1, 2)]
    logs[1].pop("single")
    logs.append({"step": 2, "time": 0.0, "eval_loss": 1.5, "eval_new/thing": 3.0})
    charts = make_charts(logs)
    assert [(chart.title, list(chart.series)) for chart in charts] == [
        ("Loss", ["loss", "eval_loss"]),
        ("new/thing", ["new/thing", "eval_new/thing"]),
    ]
    assert charts[0].series["eval_loss"] == [(2, 1.5)]


def test_a_study_shows_its_results_its_lineage_and_links_to_its_runs(tmp_path: Path) -> None:
    folders = write_study(tmp_path / "study")
    markup = check_page(study_report(tmp_path / "study", folders))
    links = {link["href"] for link in markup.all("a")}
    assert links == {f"{folder.name}/report.html" for folder in folders}
    label = next(svg["aria-label"] for svg in markup.all("svg") if svg.get("class") == "lineage")
    assert label == (
        "Lineage: raw text to tokenizer; tokenizer to pretrain; pretrain to sft; sft to reward; sft to dpo; dpo to evaluate"
    )
    page = (tmp_path / "study" / "report.html").read_text()
    assert 0 < page.index("exact_<wbr>match_<wbr>before</th>") < page.index("exact_match</th>")


def test_a_study_of_which_nothing_has_run_has_a_page(tmp_path: Path) -> None:
    check_page(study_report(tmp_path, [tmp_path / "none"]))


TOKENS = (("user\n", False), (" What", False), ("Paris", True), ("<|end|>", True))


def make_preview(rows: tuple[PreviewRow, ...]) -> Preview:
    return Preview("sft", tuple(MIX), ENCODE, ("train: 9 of 12000 rows dropped.",), rows)


def test_the_preview_shows_mixture_findings_and_every_token(tmp_path: Path) -> None:
    row = PreviewRow("train row 0", (TOKENS, TOKENS), 8)
    markup = check_page(write_preview_page(make_preview((row,)), tmp_path / "deep" / "preview.html"))
    text = " ".join(markup.texts)
    assert "train: 9 of 12000 rows dropped." in text
    assert "412,331" in text
    assert "document 2" in text
    # Two documents of two trained and two other tokens; the key above them has one of each.
    assert len(markup.all("b")) == len(markup.all("i")) == 5
    assert "goes on" not in text


def test_a_preview_of_many_long_rows_stays_small_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    rows = tuple(PreviewRow(f"train row {number}", ((("<é>&", True),) * 2000,), 9000) for number in range(40))
    markup = check_page(write_preview_page(make_preview(rows), tmp_path / "preview.html"))
    assert "… the row goes on." in markup.texts


def test_the_preview_knows_how_many_tokens_of_a_row_it_is_given() -> None:
    assert data_preview._MAX_SHOWN_TOKENS == MAX_SHOWN_TOKENS
    assert "alignment.data.preview" in sys.modules
