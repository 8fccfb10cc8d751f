"""What supervision and each way of training on preferences or rewards made of the same base, side by side on a study's page.

The chart is the one that tells a gamed reward from a good one: the gold score, which nobody trained on, against how far the policy has
moved from where it began (Gao, Schulman and Hilton 2022, https://arxiv.org/abs/2210.10760, figure 1).
"""

import math
from collections.abc import Mapping, Sequence

from alignment.report.numbers import format_estimate
from alignment.report.page import table
from alignment.report.run_files import RunFiles
from alignment.report.svg import NUM_COLOURS, line_chart

STAGES = ("sft", "dpo", "ppo")
METRICS = ("exact_match", "invented", "honesty", "gold", "score", "kl")
GOLD, KL = "eval_objective/gold", "eval_objective/kl"
CAPTION = (
    "Held-out rows of each recipe; ± is the standard error. score is the reward's, gold a program's that is never trained on, kl nats "
    "a completion to the start."
)

Point = tuple[float, float]


def side_by_side(runs: Sequence[RunFiles]) -> str:
    """The table and the chart; nothing for a study in which no two such runs have finished."""
    compared = [run for run in runs if run.stage in STAGES and run.receipt.get("metrics")]
    if len(compared) < 2 or {run.stage for run in compared} == {"sft"}:
        return ""
    return _make_table(compared) + _make_chart(compared)


def _make_table(runs: Sequence[RunFiles]) -> str:
    rows = []
    for name in METRICS:
        values = [run.receipt["metrics"].get(name) for run in runs]
        if any(value is not None for value in values):
            errors = [run.receipt.get("metric_errors", {}).get(name) for run in runs]
            cells = [
                "" if one is None else format_estimate(one, error) for one, error in zip(values, errors, strict=True)
            ]
            rows.append([name, *cells])
    return table(["metric", *(run.folder.name for run in runs)], rows, caption=CAPTION)


def _make_chart(runs: Sequence[RunFiles]) -> str:
    """Gold against KL: a line for a run that was evaluated on its way, a point for one that was measured at its end only."""
    series = {run.folder.name: gold_against_kl(run) for run in runs}
    shown = dict([(name, points) for name, points in series.items() if points][:NUM_COLOURS])
    if not any(len(points) > 1 for points in shown.values()):
        return ""
    chart = line_chart(shown, "Gold score against KL", "KL to the start, nats a completion", x_name="KL")
    return f'<div class="charts">{chart}</div>'


def gold_against_kl(run: RunFiles) -> list[Point]:
    """(KL, gold score) before the first step, at each evaluation, and at the end, in the order of the steps."""
    steps = run.receipt.get("schedule", {}).get("steps")
    evaluated = {line["step"]: (line[KL], line[GOLD]) for line in run.logs if GOLD in line and KL in line}
    for step, name in ((0, "metrics_before"), (steps, "metrics")):
        measured: Mapping[str, float | None] = run.receipt.get(name, {})
        point = (measured.get("kl", 0.0 if run.stage == "sft" else None), measured.get("gold"))
        # An SFT run is where the others start from: only its end belongs here.
        if None not in point and step is not None and not (run.stage == "sft" and step == 0):
            evaluated.setdefault(step, point)
    return [evaluated[step] for step in sorted(evaluated) if all(map(math.isfinite, evaluated[step]))]
