"""SFT, DPO and PPO on a study's page: their numbers in one table, and the gold score against how far each has moved."""

import json
from pathlib import Path

from page_rules import check_page
from study_on_disk import write_study

from alignment.launch.results import collect_results
from alignment.launch.stages import Stage
from alignment.report.receipt import make_receipt, write_receipt
from alignment.report.run_files import read_run
from alignment.report.side_by_side import gold_against_kl, side_by_side
from alignment.report.study_report import study_report

AFTER = {"score": 1.5, "gold": 0.91, "exact_match": 0.87, "invented": 0.05, "honesty": 0.9, "kl": 2.5}
BEFORE = {"score": -0.5, "gold": 0.48, "exact_match": 0.88, "invented": 0.95, "honesty": 0.47, "kl": 0.0}


def write_ppo(run_dir: Path, evaluated: dict[int, tuple[float, float]], steps: int = 160) -> Path:
    """A finished PPO run whose evaluations found (KL, gold) at these steps."""
    run_dir.mkdir(parents=True)
    (run_dir / "recipe.yaml").write_text(f"stage: ppo\nseed: 1\nmodel:\n  path: runs/{run_dir.parent.name}/sft/final\n")
    write_receipt(
        run_dir,
        make_receipt(
            stage="ppo", recipe_hash="0123456789abcdef", recipe_dir=run_dir, seed=1, command=["alignment", "train", "ppo"],
            schedule={"steps": steps, "global_batch_size": 32}, metrics=AFTER, metric_errors=dict.fromkeys(AFTER, 0.011),
            metrics_before=BEFORE, metric_errors_before=dict.fromkeys(BEFORE, 0.012), seconds={"train": 60.0},
        ),
    )  # fmt: skip
    lines = [{"step": 1, "time": 1.0, "loss": 0.1, "objective/kl": 9.9}]
    lines += [
        {"step": step, "time": 1.0, "eval_objective/kl": kl, "eval_objective/gold": gold, "eval_objective/scores": 1.0}
        for step, (kl, gold) in evaluated.items()
    ]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run_dir


def test_the_study_shows_sft_dpo_and_ppo_in_one_table_and_gold_against_kl(tmp_path: Path) -> None:
    folders = write_study(tmp_path / "study")
    folders.append(write_ppo(tmp_path / "study" / "ppo", {80: (1.5, 0.8), 160: (2.25, 0.89)}))
    markup = check_page(study_report(tmp_path / "study", folders))
    text = " ".join(markup.texts)
    assert "side by side" in text
    for shown in ("0.0830 ± 0.0123", "0.0500 ± 0.0110", "1.500 ± 0.0110", "2.500 ± 0.0110"):
        assert shown in text, shown
    [label] = [svg["aria-label"] for svg in markup.all("svg") if svg.get("aria-label", "").startswith("Gold score")]
    # The line begins where the policy was before training; DPO's run has no gold score, and so no point.
    assert label == "Gold score against KL: ppo from 0.4800 to 0.8900"
    assert "KL 1.500 · ppo 0.8000" in markup.texts


def test_points_are_in_the_order_of_steps_and_an_evaluation_stands_before_the_receipt(tmp_path: Path) -> None:
    """KL may fall again, so the order is not that of the horizontal axis."""
    run = read_run(write_ppo(tmp_path / "ppo", {120: (1.0, 0.7), 40: (3.0, 0.6)}))
    assert gold_against_kl(run) == [(0.0, 0.48), (3.0, 0.6), (1.0, 0.7), (2.5, 0.91)]
    measured_at_0 = read_run(write_ppo(tmp_path / "other", {0: (0.0, 0.5), 160: (2.0, 0.9)}))
    assert gold_against_kl(measured_at_0) == [(0.0, 0.5), (2.0, 0.9)]


def test_one_run_alone_is_not_compared(tmp_path: Path) -> None:
    assert side_by_side([read_run(write_ppo(tmp_path / "ppo", {}))]) == ""


def test_the_results_of_a_pipeline_name_what_ppo_measured(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Stage, "is_finished", True)
    results = collect_results([Stage(tmp_path / "ppo.yaml", None, write_ppo(tmp_path / "ppo", {}))])
    wanted = ("score_before", "score", "gold_before", "gold", "exact_match", "invented", "honesty", "kl")
    assert {name: results[f"ppo/{name}"] for name in wanted} == {
        name: BEFORE[name.removesuffix("_before")] if name.endswith("_before") else AFTER[name] for name in wanted
    }
