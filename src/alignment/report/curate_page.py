"""The report of a curation as an HTML page: the funnel, shares before and after, and what was removed, with examples."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.report.page import Bar, Card, Section, card_grid, folded, page, table
from alignment.report.redact import redact

MAX_ROWS = 40


def write_curate_page(receipt: Mapping[str, Any], path: Path) -> Path:
    """Writes the page and returns its path."""
    path.write_text(make_curate_page(receipt), encoding="utf-8")
    return path


def make_curate_page(receipt: Mapping[str, Any]) -> str:
    """The page of a receipt."""
    return page(
        "What was kept and why the rest was not",
        [
            Section("In short", card_grid(list(_cards(receipt)))),
            Section("Scored by what was planted", _score(receipt)),
            Section("Step by step", _funnel(receipt)),
            Section("Removed, by reason", _reasons(receipt)),
            Section("Shares before and after", _shares(receipt, "language") + _shares(receipt, "source")),
            Section("Duplicates and balance", _groups(receipt)),
            Section("Personal data found", _tally(receipt, "pii", "type")),
            Section("Evaluation items found", _tally(receipt, "contaminated_by", "evaluation file")),
            Section("Rows to look at", "".join(_samples(receipt))),
        ],
        kicker="Curation",
        lead="Every row that came in is kept or stands in removed/ with its reason; the counts below add up.",
    )


def _cards(receipt: Mapping[str, Any]) -> Iterator[Card]:
    rows_in, kept = receipt["rows_in"], receipt["rows_kept"]
    yield Card("rows in", f"{rows_in:,}")
    yield Card("rows kept", f"{kept:,}", f"{kept / rows_in:.1%}" if rows_in else "")
    yield Card("characters kept", f"{receipt['steps'][-1]['characters']:,}")
    details = {"recall": "of what was planted was removed", "precision": "of what was removed was planted"}
    for name, value in receipt.get("metrics", {}).items():
        yield Card(name, f"{value:.4f}", details.get(name, ""))


def _funnel(receipt: Mapping[str, Any]) -> str:
    first = receipt["steps"][0]["in"] or 1
    rows = [
        [
            step["step"],
            step["in"],
            step["kept"],
            Bar(step["kept"] / first),
            sum(step["removed"].values()),
            step["characters"],
        ]
        for step in receipt["steps"]
    ]
    return table(("step", "in", "kept", "of all", "removed", "characters kept"), rows, caption="Rows through the steps")


def _reasons(receipt: Mapping[str, Any]) -> str:
    rows = [
        [reason, step["step"], count, Bar(count / step["in"])]
        for step in receipt["steps"]
        for reason, count in step["removed"].items()
    ]
    rows.sort(key=lambda row: -row[2])
    return table(("reason", "step", "rows", "of the step's"), rows)


def _score(receipt: Mapping[str, Any]) -> str:
    """What was wrong with rows against what became of them, from the column that the recipe names as the truth."""
    truth = receipt.get("truth", {})
    reasons = sorted({reason for became in truth.values() for reason in became} - {"kept"})
    rows = []
    for wrong, became in truth.items():
        removed = sum(became.values()) - became.get("kept", 0)
        cells = [became.get(reason, "") for reason in reasons]
        rows.append([redact(wrong), sum(became.values()), removed, Bar(removed / sum(became.values())), *cells])
    return table(("what was planted", "rows", "removed", "share", *reasons), rows) if rows else ""


def _shares(receipt: Mapping[str, Any], name: str) -> str:
    before, after = (receipt["tallies"].get(f"{name}_{when}", {}) for when in ("before", "after"))
    totals = [max(sum(side.values()), 1) for side in (before, after)]
    names = sorted({*before, *after}, key=lambda one: -before.get(one, 0))[:MAX_ROWS]
    rows = [
        [
            redact(one),
            before.get(one, 0),
            Bar(before.get(one, 0) / totals[0]),
            after.get(one, 0),
            Bar(after.get(one, 0) / totals[1]),
        ]
        for one in names
    ]
    return table((name, "rows before", "share", "rows after", "share"), rows)


def _groups(receipt: Mapping[str, Any]) -> str:
    parts = []
    for step, facts in receipt["groups"].items():
        if facts["kind"] == "balance":
            rows = [[name, one["had"], one["quota"]] for name, one in facts["groups"].items()]
            parts.append(table((step, "rows", "taken"), rows))
        elif facts["clusters"]:
            rows = [[f"{size} rows", count] for size, count in facts["sizes"].items()]
            parts.append(table((step, "groups"), rows, caption=f"The largest group has {facts['largest']} rows"))
    return "".join(parts)


def _tally(receipt: Mapping[str, Any], name: str, heading: str) -> str:
    numbers = receipt["tallies"].get(name, {})
    return table((heading, "found"), sorted(numbers.items(), key=lambda one: -one[1])[:MAX_ROWS])


def _samples(receipt: Mapping[str, Any]) -> Iterator[str]:
    for reason, lines in receipt["samples"].items():
        if lines:
            yield folded(reason, "\n\n".join(redact(line) for line in lines))
