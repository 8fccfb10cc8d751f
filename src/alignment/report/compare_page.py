"""comparison.html: several runs on one page: their results, what their recipes do not share, and their curves in the same charts.

A difference of two results that is smaller than two standard errors is called none, so that nobody chooses by chance.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.errors import RecipeError
from alignment.report.curves import Chart, draw_charts, make_charts
from alignment.report.numbers import format_count, format_estimate, format_number, format_seconds
from alignment.report.page import Long, Section, page, table
from alignment.report.run_files import RunFiles, read_run
from alignment.report.svg import NUM_COLOURS

COMPARISON = "comparison.html"
MAX_RUNS = NUM_COLOURS
_CLEAR = 2.0  # standard errors of a difference that counts


def write_comparison(run_dirs: Sequence[Path], path: Path | None = None) -> Path:
    """Writes the page (default: comparison.html in the folder that holds all the runs) and returns its path.

    Raises:
        RecipeError: more runs than a chart has colours.
        ArtifactError: a folder that is not there.
    """
    if len(run_dirs) > MAX_RUNS:
        raise RecipeError(f"report: {len(run_dirs)} runs; at most {MAX_RUNS} on one page were expected. Give fewer.")
    runs = [read_run(folder) for folder in run_dirs]
    target = path or Path(os.path.commonpath([run.folder.resolve().parent for run in runs])) / COMPARISON
    target.write_text(make_comparison(runs), encoding="utf-8")
    return target


def make_comparison(runs: Sequence[RunFiles]) -> str:
    """The page as HTML."""
    names = _names(runs)
    sections = [
        Section("Results", _results(names, runs)),
        Section("What the recipes do not share", _differences(names, runs)),
        Section("What it took", _costs(names, runs)),
        Section("Curves", draw_charts(_overlay(names, runs))),
    ]
    return page(" and ".join(names), sections, kicker="Runs side by side", lead=", ".join(run.name for run in runs))


def _names(runs: Sequence[RunFiles]) -> list[str]:
    """Folder names, with the study's before them where two would be called the same."""
    short = [run.folder.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [run.name for run in runs]


def _results(names: Sequence[str], runs: Sequence[RunFiles]) -> str:
    metrics = list(dict.fromkeys(name for run in runs for name in run.receipt.get("metrics", {})))
    rows = []
    for metric in metrics:
        values = [run.receipt.get("metrics", {}).get(metric) for run in runs]
        errors = [run.receipt.get("metric_errors", {}).get(metric) for run in runs]
        cells = [
            "" if value is None else format_estimate(value, error) for value, error in zip(values, errors, strict=True)
        ]
        rows.append([metric, *cells, *([say_difference(values, errors)] if len(runs) == 2 else [])])
    columns = ["metric", *names, *(["difference"] if len(runs) == 2 else [])]
    return table(columns, rows, caption="Held-out rows of each recipe; ± is the standard error")


def say_difference(values: Sequence[float | None], errors: Sequence[float | None]) -> str:
    """The second less the first; `none` where that is less than two standard errors of it."""
    if None in values:
        return ""
    difference = values[1] - values[0]
    known = [error for error in errors if error is not None]
    error = math.hypot(*known) if len(known) == len(errors) else None
    if error and abs(difference) < _CLEAR * error:
        return "none (less than 2 standard errors)"
    return f"{'+' if difference >= 0 else '−'}{format_number(abs(difference))}"


def _differences(names: Sequence[str], runs: Sequence[RunFiles]) -> str:
    flat = [flatten(run.recipe) for run in runs]
    keys = [
        key for key in dict.fromkeys(key for one in flat for key in one) if len({str(one.get(key)) for one in flat}) > 1
    ]
    rows = [[key, *(Long("" if key not in one else str(one[key])) for one in flat)] for key in keys]
    return table(["key", *names], rows) or "<p>Nothing: they are runs of the same recipe.</p>"


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to scalars; the items of a list of mappings by their number."""
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = list(enumerate(value))
    else:
        return {prefix: value}
    inner = {}
    for name, item in items:
        inner |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
    return inner


def _costs(names: Sequence[str], runs: Sequence[RunFiles]) -> str:
    facts = {
        "time": [format_seconds(seconds) if (seconds := run.total_seconds()) is not None else "" for run in runs],
        "tokens a second": [
            format_count(speed) if (speed := run.tokens_per_second()) is not None else "" for run in runs
        ],
        "tokens seen": [format_number(run.receipt.get("tokens", {}).get("seen")) for run in runs],
        "steps": [format_number(run.receipt.get("schedule", {}).get("steps")) for run in runs],
        "parameters": [format_number(run.receipt.get("num_parameters")) for run in runs],
        "processes": [format_number(run.receipt.get("world_size")) for run in runs],
        "prepared rows": [run.receipt.get("prepared_manifest_hash", "") for run in runs],
        "commit": [run.receipt.get("git", {}).get("recipe", {}).get("commit", "")[:12] for run in runs],
    }
    return table(["", *names], [[name, *cells] for name, cells in facts.items() if any(cells)])


def _overlay(names: Sequence[str], runs: Sequence[RunFiles]) -> list[Chart]:
    """A chart for each metric that two runs have, or the loss alone where only one has it."""
    found: dict[str, dict[str, list]] = {}
    kinds: dict[str, Chart] = {}
    for name, run in zip(names, runs, strict=True):
        for chart in make_charts(run.logs):
            for metric, points in chart.series.items():
                title = f"{chart.title}, {metric}" if len(chart.series) > 1 else chart.title
                found.setdefault(title, {})[name] = points
                kinds.setdefault(title, chart)
    return [
        Chart(title, series, kinds[title].unit, kinds[title].log) for title, series in found.items() if len(series) > 1
    ]
