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
from alignment.report.run_files import RECIPE, STAGE_TITLES, RunFiles, read_json, read_run
from alignment.report.run_report import REPORT, describe_run, make_metric_cards
from alignment.report.side_by_side import side_by_side

RESULTS = "results.json"
SECONDS = "seconds"
MAX_CHARTS_PER_RUN = 3
MAX_SAMPLES_PER_RUN = 4
_RAW = "raw text"
_BEFORE = "_before"
_STAGES = tuple(STAGE_TITLES)
_ALIGNING = ("sft", "dpo", "ppo")
_MODELS = ("model", "reference", "reward model", "value model")  # kinds of parents whose weights a run reads


def find_runs(study_dir: Path) -> list[Path]:
    """The runs of a study in the order of the pipeline: as results.json has them, or what a run read before it, by stage."""
    runs = {path.parent.name: read_run(path.parent) for path in sorted(Path(study_dir).glob(f"*/{RECIPE}"))}
    results = read_json(Path(study_dir) / RESULTS)
    finished = [name.partition("/")[2] for name in results if name.startswith(f"{SECONDS}/")]
    if runs.keys() <= set(finished):
        return [runs[name].folder for name in finished if name in runs]
    parents = {name: set(_find_parents(run, list(runs.values()))) for name, run in runs.items()}
    left = sorted(runs, key=lambda name: (_stage_number(runs[name]), name))
    ordered: list[str] = []
    while left:
        ready = (name for name in left if not parents[name] & set(left))
        ordered.append(next(ready, left[0]))  # runs that read each other, as none does, keep the order of their stages
        left.remove(ordered[-1])
    return [runs[name].folder for name in ordered]


def _stage_number(run: RunFiles) -> int:
    return _STAGES.index(run.stage) if run.stage in _STAGES else len(_STAGES)


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
        kicker=_describe_way(runs),
        lead=stages,
        footer="Each stage has a page of its own, linked above, beside the files that these numbers come from.",
    )


def _describe_way(runs: Sequence[RunFiles]) -> str:
    """From what the first model of the study was made, and that the last one is aligned, where a stage does that."""
    if not runs:
        return ""
    first = next((run for run in runs if run.recipe.get("model")), runs[0])
    start = next(iter(_find_bases(first, runs)), _RAW)
    return f"From {start}" + (" to an aligned model" if any(run.stage in _ALIGNING for run in runs) else "")


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
    roots: dict[str, Box] = {}
    boxes: dict[str, Box] = {}
    edges: list[tuple[str, str]] = []
    for run in runs:
        key = run.folder.name
        boxes[key] = Box(key, _box_note(run), f"{key}/{REPORT}")
        parents, bases = _find_parents(run, runs), _find_bases(run, runs)
        sources = {f"from {base}": Box(base, "model") for base in bases}  # a run's folder may have the name of a model
        if not parents and not bases:
            sources = {_RAW: Box(_RAW, "data")}
        roots |= sources
        edges += [(source, key) for source in (*sources, *parents)]
    return draw_lineage(roots | boxes, edges)


def _box_note(run: RunFiles) -> str:
    seconds = run.total_seconds()
    kind = "LoRA" if run.recipe.get("lora") else ""
    return " · ".join(filter(None, [kind, format_seconds(seconds) if seconds else ""]))


def _find_parents(run: RunFiles, runs: Sequence[RunFiles]) -> list[str]:
    """Names of the runs of this study that the run read: as its receipt says, or the recipe of a run without one."""
    paths = [parent["path"] for parent in run.receipt.get("parents", ())]
    paths += [section["path"] for name in ("model", "tokenizer") if (section := run.recipe.get(name, {})).get("path")]
    found = [name for path in paths if (name := _find_run(path, run, runs))]
    return list(dict.fromkeys(found))


def _find_bases(run: RunFiles, runs: Sequence[RunFiles]) -> list[str]:
    """Models that the run read and that no run of this study made: Hub ids and folders, as its receipt or recipe names them."""
    parents = run.receipt.get("parents", ())
    paths = [parent["path"] for kind in _MODELS for parent in parents if parent.get("kind") == kind]
    if not paths and (path := (run.recipe.get("model") or {}).get("path")):
        paths = [path]
    return list(dict.fromkeys(path for path in paths if not _find_run(path, run, runs)))


def _find_run(path: str, run: RunFiles, runs: Sequence[RunFiles]) -> str | None:
    """Name of the other run of this study that a path leads into."""
    names = {other.folder.name for other in runs} - {run.folder.name}
    study = run.folder.resolve().parent.name
    return next((b for a, b in itertools.pairwise(PurePosixPath(path).parts) if a == study and b in names), None)


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
