"""report.html of a study: the results of its stages side by side, what was made from what, and the curves of each."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any

from alignment.report.curves import draw_charts, make_charts
from alignment.report.lineage import Box, draw_lineage
from alignment.report.numbers import format_count, format_number, format_seconds
from alignment.report.page import Bar, Card, Link, Section, card_grid, page, table
from alignment.report.parts import sample_pairs
from alignment.report.run_files import RunFiles, read_json, read_run
from alignment.report.run_report import REPORT, describe_run, make_metric_cards
from alignment.report.side_by_side import side_by_side

RESULTS = "results.json"
SECONDS = "seconds"
MAX_CHARTS_PER_RUN = 3
MAX_SAMPLES_PER_RUN = 4
_RAW = "raw text"
_BEFORE = "_before"


def study_report(study_dir: Path, run_dirs: Sequence[Path]) -> Path:
    """Writes STUDY/report.html from results.json and the runs' own files. Returns its path.

    Args:
        run_dirs: in the order of the pipeline; runs that have not begun are left out.
    """
    study_dir = Path(study_dir)
    runs = [read_run(folder) for folder in run_dirs if Path(folder).is_dir()]
    results = read_json(study_dir / RESULTS)
    path = study_dir / REPORT
    path.write_text(make_study_report(study_dir.resolve().name, runs, results), encoding="utf-8")
    return path


def make_study_report(name: str, runs: Sequence[RunFiles], results: Mapping[str, float]) -> str:
    """The page of a study. `results` is flat: STAGE/METRIC, and seconds/STAGE."""
    stages = " → ".join(run.folder.name for run in runs)
    return page(
        name,
        _make_sections(runs, results),
        kicker="From raw text to an aligned model",
        lead=stages,
        footer="Each stage has a page of its own, linked above, beside the files that these numbers come from.",
    )


def _make_sections(runs: Sequence[RunFiles], results: Mapping[str, float]) -> Iterator[Section]:
    yield Section("At a glance", card_grid(list(_glance_cards(runs, results))))
    yield Section("What was made from what", _picture(runs))
    yield Section("Results", _results_table(results, runs))
    yield Section("Supervised, preferred, reinforced: side by side", side_by_side(runs))
    for run in runs:
        yield Section(run.stage_title if run.stage_title else run.folder.name, _stage_part(run, len(runs)))


def _glance_cards(runs: Sequence[RunFiles], results: Mapping[str, float]) -> Iterator[Card]:
    seconds = sum(value for name, value in results.items() if name.startswith(f"{SECONDS}/"))
    if seconds:
        yield Card("time, all stages", format_seconds(seconds))
    if counts := [run.receipt["num_parameters"] for run in runs if "num_parameters" in run.receipt]:
        yield Card("parameters", format_count(max(counts)))
    if tokens := sum(run.receipt.get("tokens", {}).get("seen", 0) for run in runs):
        yield Card("tokens seen", format_count(tokens))
    for run in reversed(runs):
        chosen = make_metric_cards(run, limit=2)
        if run.receipt.get("metrics"):
            yield from (
                Card(f"{run.folder.name}: {card.name}", card.value, card.detail, card.before) for card in chosen
            )
            return


# ------------------------------------------------------------------------------------------------ lineage


def _picture(runs: Sequence[RunFiles]) -> str:
    if not runs:
        return ""
    boxes = {_RAW: Box(_RAW, "data")}
    edges: list[tuple[str, str]] = []
    for run in runs:
        key = run.folder.name
        boxes[key] = Box(key, _box_note(run), f"{key}/{REPORT}")
        parents = _find_parents(run, runs)
        edges += [(parent, key) for parent in parents or [_RAW]]
    return draw_lineage(boxes, edges)


def _box_note(run: RunFiles) -> str:
    seconds = run.total_seconds()
    kind = "LoRA" if run.recipe.get("lora") else ""
    return " · ".join(filter(None, [kind, format_seconds(seconds) if seconds else ""]))


def _find_parents(run: RunFiles, runs: Sequence[RunFiles]) -> list[str]:
    """Names of the runs of this study that the run read: as its receipt says, or the recipe of a run without one."""
    paths = [parent["path"] for parent in run.receipt.get("parents", ())]
    paths += [section["path"] for name in ("model", "tokenizer") if (section := run.recipe.get(name, {})).get("path")]
    names = {other.folder.name for other in runs} - {run.folder.name}
    study = run.folder.resolve().parent.name
    found = []
    for path in paths:
        parts = PurePosixPath(path).parts
        found += [b for a, b in itertools.pairwise(parts) if a == study and b in names]
    return list(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------------ results


def _results_table(results: Mapping[str, float], runs: Sequence[RunFiles]) -> str:
    """Metrics down, stages across. A value before training stands in the stage's column under NAME_before."""
    stages = list(dict.fromkeys(name.partition("/")[0] for name in results if not name.startswith(f"{SECONDS}/")))
    folders = {run.folder.name for run in runs}
    metrics = list(dict.fromkeys(name.partition("/")[2] for name in results if not name.startswith(f"{SECONDS}/")))
    metrics = _order(metrics, {metric: sum(f"{stage}/{metric}" in results for stage in stages) for metric in metrics})
    rows: list[list[Any]] = [
        [metric, *(_result_cell(results.get(f"{stage}/{metric}")) for stage in stages)] for metric in metrics
    ]
    times = [results.get(f"{SECONDS}/{stage}") for stage in stages]
    if any(time is not None for time in times):
        rows.append(["time", *("" if time is None else format_seconds(time) for time in times)])
    if any(stage in folders for stage in stages):
        rows.append(["report", *(Link("open", f"{stage}/{REPORT}") if stage in folders else "" for stage in stages)])
    return table(("metric", *stages), rows, caption=f"All of {RESULTS}; bars fill from 0 to 1")


def _order(metrics: Sequence[str], num_stages: Mapping[str, int]) -> list[str]:
    """What several stages have comes first, for those rows tell the story; NAME_before stands above NAME."""
    ordered = sorted((name for name in metrics if not name.endswith(_BEFORE)), key=lambda name: -num_stages[name])
    for name in metrics:
        if name.endswith(_BEFORE):
            base = name.removesuffix(_BEFORE)
            ordered.insert(ordered.index(base) if base in ordered else len(ordered), name)
    return ordered


def _result_cell(value: float | None) -> Any:
    if value is None:
        return ""
    return Bar(value) if isinstance(value, int | float) and 0 <= value <= 1 else format_number(value)


def _stage_part(run: RunFiles, num_runs: int) -> str:
    name = escape(run.folder.name, quote=True)
    link = f'<p><a href="{name}/{REPORT}">Full report of {name}</a></p>'
    charts = draw_charts(make_charts(run.logs)[:MAX_CHARTS_PER_RUN], share=1 / num_runs)
    samples = {moment: list(rows)[:MAX_SAMPLES_PER_RUN] for moment, rows in run.samples.items()}
    pairs = sample_pairs(samples)
    heading = "<h3>Generations</h3>" if pairs else ""
    return f'<p class="lead">{escape(describe_run(run))}</p>{link}{charts}{heading}{pairs}'
