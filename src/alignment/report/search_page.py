"""The report of a search as an HTML page: value against tokens, the table, and prompts on which the completions disagree."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignment.report.numbers import format_count, format_estimate
from alignment.report.page import Card, Section, card_grid, folded, page, table
from alignment.report.svg import NUM_COLOURS, line_chart

MAX_ROWS = 12
MAX_COMPLETIONS = 6


def make_search_page(title: str, value: str, results: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The page.

    Args:
        value: the scorer that judged.
        results: as written to results.json.
        rows: as written to completions.jsonl.
    """
    points, greedy = results["points"], results["greedy"]
    return page(
        title,
        [
            Section("In short", card_grid(list(_cards(value, results)))),
            Section("Value against tokens", _chart(value, points, greedy)),
            Section("Every point", _table(value, points)),
            Section("Where completions disagree", "".join(_samples(rows))),
        ],
        kicker="Test-time scaling",
        lead="What choosing among several completions of one prompt is worth, and what it costs. `coverage` picks with the answer in "
        "hand: no method can exceed it.",
    )


def _cards(value: str, results: Mapping[str, Any]) -> Iterator[Card]:
    greedy = results["greedy"]
    yield Card("prompts", f"{results['prompts']:,}")
    yield Card(f"{value}, greedy", f"{greedy['value']:.4f}", f"{greedy['tokens']:.0f} tokens a prompt")
    usable = [point for point in results["points"] if point["method"] != "coverage"]
    if usable:
        best = max(usable, key=lambda point: point["value"]["value"])
        note = f"{format_count(best['tokens'])} tokens a prompt"
        yield Card(f"{value}, {best['method']}@{best['n']}", f"{best['value']['value']:.4f}", note)


def _chart(value: str, points: Sequence[Mapping[str, Any]], greedy: Mapping[str, float]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        series.setdefault(point["method"], []).append((point["tokens"], point["value"]["value"]))
    series["greedy"] = [(greedy["tokens"], greedy["value"])]
    chart = line_chart(dict(list(series.items())[-NUM_COLOURS:]), value, "mean over the prompts", x_name="tokens")
    return f'<div class="charts">{chart}</div>'


def _table(value: str, points: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{point['method']}@{point['n']}",
            format_estimate(point["value"]["value"], point["value"]["error"]),
            f"{point['gain']['value']:+.4f}",
            f"{point['gain']['low']:+.4f} to {point['gain']['high']:+.4f}",
            f"{point['tokens']:.0f}",
        ]
        for point in points
    ]
    caption = (
        "Intervals: 95 %, prompts drawn anew 2,000 times; the gain is over the greedy completion, prompt by prompt."
    )
    return table(["method", value, "gain", "interval of the gain", "tokens a prompt"], rows, caption=caption)


def _samples(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Prompts whose completions differ in value, the most divided first."""

    def divided(row: Mapping[str, Any]) -> float:
        values = [one["value"] for one in row["sampled"]]
        mean = sum(values) / len(values)
        return sum((one - mean) ** 2 for one in values)

    shown = [row for row in sorted(rows, key=divided, reverse=True) if divided(row) > 0][:MAX_ROWS]
    return [folded(row["prompt"][-160:].strip(), _completions(row)) for row in shown]


def _completions(row: Mapping[str, Any]) -> str:
    lines = [f"greedy   {row['greedy']['value']:+.2f}  {row['greedy']['text'].strip()[:300]}"]
    for one in row["sampled"][:MAX_COMPLETIONS]:
        score = f"  score {one['score']:+.2f}" if "score" in one else ""
        lines.append(f"sampled  {one['value']:+.2f}{score}  {one['text'].strip()[:300]}")
    return "\n".join(lines)
