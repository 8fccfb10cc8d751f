"""What a pipeline has measured: results.json, the study's page, and the summary for the terminal."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.launch.stages import Stage
from alignment.report.numbers import format_number, format_seconds
from alignment.report.run_files import read_facts
from alignment.report.study_report import RESULTS, SECONDS, study_report

MAX_METRICS_SHOWN = 6


def collect_results(stages: Sequence[Stage]) -> dict[str, float]:
    """STAGE/METRIC, STAGE/METRIC_before for metrics that were measured both times, and seconds/STAGE, of finished stages."""
    results: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for stage in stages:
        if not stage.is_finished:
            continue
        receipt = read_facts(stage.run_dir)
        before = receipt.get("metrics_before", {})
        for name, value in receipt.get("metrics", {}).items():
            if before.get(name) is not None:
                results[f"{stage.name}/{name}_before"] = before[name]
            if value is not None:
                results[f"{stage.name}/{name}"] = value
        if (taken := _total_seconds(receipt)) is not None:
            seconds[f"{SECONDS}/{stage.name}"] = taken
    return results | seconds


def _total_seconds(receipt: dict[str, Any]) -> float | None:
    phases = receipt.get("seconds", {})
    return phases.get("total", sum(phases.values())) if phases else None


def write_results(study_dir: Path, stages: Sequence[Stage]) -> Path:
    """Writes STUDY/results.json and STUDY/report.html of the finished stages; returns the page."""
    study_dir.mkdir(parents=True, exist_ok=True)
    path = study_dir / RESULTS
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(collect_results(stages), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return study_report(study_dir, [stage.run_dir for stage in stages if stage.is_finished])


def summarise(stages: Sequence[Stage]) -> list[tuple[str, str, str]]:
    """A row a stage: its name, the time that it took, and its main metrics with what they were before."""
    results = collect_results(stages)
    rows = []
    for stage in stages:
        taken = results.get(f"{SECONDS}/{stage.name}")
        prefix = f"{stage.name}/"
        names = [name for name in results if name.startswith(prefix) and not _is_detail(name, prefix, results)]
        metrics = [_describe_metric(name, prefix, results) for name in names[:MAX_METRICS_SHOWN]]
        state = format_seconds(taken) if taken is not None else "not done"
        rows.append((stage.name, state, ", ".join(metrics)))
    return rows


def _is_detail(name: str, prefix: str, results: dict[str, float]) -> bool:
    """A part of another metric (NAME/VALUE), or a value before training, which stands beside the one after it."""
    return "/" in name.removeprefix(prefix) or (name.endswith("_before") and name.removesuffix("_before") in results)


def _describe_metric(name: str, prefix: str, results: dict[str, float]) -> str:
    before = results.get(f"{name}_before")
    was = f" (before {format_number(before)})" if before is not None else ""
    return f"{name.removeprefix(prefix)} {format_number(results[name])}{was}"
