"""Logged metrics to charts: what belongs together is drawn together, and what nobody foresaw gets a chart of its own."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.report.svg import line_chart

EVAL = "eval_"
NOT_DRAWN = {
    "lr",
    "objective/non_score_reward",
    "rollout/num_truncated",
    "step",
    "time",
    "epoch",
    "tokens",
    "num_tokens",
    "num_input_tokens_seen",
    "total_flos",
}
# A page of many charts stays below its size: points and hover values are shared out over all lines.
POINT_BUDGET, HOVER_BUDGET = 6000, 480
MAX_LINES_PER_PAGE = 40


@dataclass(frozen=True)
class Group:
    """Metrics of one chart, under TRL's names; the same with `eval_` before them join it."""

    title: str
    names: tuple[str, ...]
    unit: str = ""
    log: bool = False


GROUPS = (
    Group("Loss", ("loss",), "nats"),
    Group("Pair accuracy", ("rewards/accuracies", "accuracy")),
    Group("Margin", ("rewards/margins", "margin")),
    Group("Implicit rewards", ("rewards/chosen", "rewards/rejected")),
    Group("Scores", ("max_reward", "mean_reward", "min_reward")),
    Group("Log-probabilities of completions", ("logps/chosen", "logps/rejected"), "nats"),
    Group("Token accuracy", ("mean_token_accuracy",)),
    Group("Score of completions", ("objective/scores", "objective/rlhf_reward", "objective/gold")),
    Group("KL to the reference", ("objective/kl", "objective/kl_k3"), "nats"),
    Group("Entropy", ("entropy", "objective/entropy", "policy/entropy"), "nats"),
    Group("Completion length", ("rollout/length",), "tokens"),
    Group("Completions that end", ("rollout/eos_rate",)),
    Group("Explained variance of the critic", ("val/explained_variance",)),
    Group("Clipped tokens", ("policy/clipfrac", "val/clipfrac")),
    Group("Policy and value loss", ("loss/policy", "loss/value")),
    Group("Where the time goes", ("time/rollout", "time/score", "time/update"), "s"),
    Group("Learning rate", ("learning_rate", "lr_critic")),
    Group("Gradient norm", ("grad_norm", "grad_norm/policy", "grad_norm/critic"), log=True),
    Group("Speed", ("tokens_per_second",), "tokens/s"),
    Group("Logits", ("logits/chosen", "logits/rejected")),
)
_LAST_TITLES = {"Learning rate", "Gradient norm", "Speed", "Logits"}


@dataclass(frozen=True)
class Chart:
    """One chart before it is drawn."""

    title: str
    series: Mapping[str, list[tuple[float, float]]]
    unit: str = ""
    log: bool = False


def make_charts(logs: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """The charts of a run: loss first, then what the stage is about, other metrics, and the optimizer's."""
    series = _collect(logs)
    drawn: set[str] = set()
    first, last = [], []
    for group in GROUPS:
        names = [name for base in group.names for name in (base, EVAL + base) if name in series]
        if names:
            chart = Chart(group.title, {name: series[name] for name in names}, group.unit, group.log)
            (last if group.title in _LAST_TITLES else first).append(chart)
            drawn.update(names)
    return [*first, *_other_charts(series, drawn), *last]


def _collect(logs: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for line in logs:
        for name, value in line.items():
            if name not in NOT_DRAWN and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(name, []).append((line["step"], value))
    return series


def _other_charts(series: Mapping[str, list[tuple[float, float]]], drawn: set[str]) -> Iterator[Chart]:
    bases = dict.fromkeys(name.removeprefix(EVAL) for name in series if name not in drawn)
    for base in bases:
        names = [name for name in (base, EVAL + base) if name in series]
        # One value is a number for a table, not a curve.
        if any(len(series[name]) > 1 for name in names):
            yield Chart(base, {name: series[name] for name in names})


def draw_charts(charts: Sequence[Chart], *, share: float = 1.0) -> str:
    """The charts in a grid; `share` is the part of a page's size that they may use."""
    lines, shown = 0, []
    for chart in charts:
        lines += len(chart.series)
        if lines > MAX_LINES_PER_PAGE * share:
            break
        shown.append(chart)
    num_lines = max(1, sum(len(chart.series) for chart in shown))
    limits = {
        "max_points": min(400, int(POINT_BUDGET * share) // num_lines),
        "max_hover": min(40, int(HOVER_BUDGET * share) // num_lines),
    }
    drawn = "".join(line_chart(chart.series, chart.title, chart.unit, log=chart.log, **limits) for chart in shown)
    left_out = len(charts) - len(shown)
    note = f'<p class="muted">{left_out} more metrics are in metrics.jsonl.</p>' if left_out else ""
    return f'<div class="charts">{drawn}</div>{note}' if shown else ""
