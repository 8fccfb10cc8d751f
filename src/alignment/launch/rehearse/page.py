"""What a rehearsal shows: the table on the terminal, rehearsal.md with the difference to the original, rehearsal.json."""

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from alignment.launch.rehearse.rehearsal import RESULT, Rehearsal, Step

PAGE = "rehearsal.md"


def collect_steps(result: Rehearsal) -> list[Step]:
    """What was tried, then what could not be."""
    return [*result.steps, *(Step(remark.what, "not proven", remark.why) for remark in result.remarks)]


def recipe_diff(result: Rehearsal) -> str:
    """From the original to the rehearsed recipe, as `diff -u` writes it; empty where it came to none."""
    if not result.rehearsed:
        return ""
    lines = difflib.unified_diff(
        result.original.splitlines(),
        result.rehearsed.splitlines(),
        str(result.recipe_path),
        "rehearsed",
        n=1,
        lineterm="",
    )
    return "\n".join(lines)


def describe(result: Rehearsal) -> str:
    """The rehearsal in a line."""
    ended = "all that could be proven holds" if result.code == 0 else f"failed with exit code {result.code}"
    return f"{result.recipe_path}: {result.stage} under {result.strategy}: {ended}, {result.seconds:.0f} s"


def format_table(result: Rehearsal) -> str:
    """The table for a terminal."""
    return "\n".join(
        [describe(result), *(f"  {step.state:<12}{step.name}{_after(step.detail)}" for step in collect_steps(result))]
    )


def _after(detail: str) -> str:
    return f": {detail}" if detail else ""


def write_files(result: Rehearsal) -> Path:
    """Writes rehearsal.json and rehearsal.md into the rehearsal's folder; returns the page."""
    facts = {
        "recipe": str(result.recipe_path),
        "stage": result.stage,
        "strategy": result.strategy,
        "code": result.code,
        "seconds": round(result.seconds, 1),
        "steps": [asdict(step) for step in collect_steps(result)],
        "stand_ins": list(result.stand_ins),
        "diff": recipe_diff(result).splitlines(),
    }
    temporary = result.folder / f"{RESULT}.tmp"
    temporary.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, result.folder / RESULT)
    page = result.folder / PAGE
    page.write_text(_make_page(result), encoding="utf-8")
    return page


def _make_page(result: Rehearsal) -> str:
    parts = [f"# Rehearsal of {result.recipe_path}\n", describe(result) + ".\n", "| | what | |", "|---|---|---|"]
    parts += [f"| {step.state} | {_cell(step.name)} | {_cell(step.detail)} |" for step in collect_steps(result)]
    if result.stand_ins:
        parts += ["\n## What stood in\n", *(f"- {sentence}" for sentence in result.stand_ins)]
    if result.findings:
        parts += ["\n## What the preview says of these rows\n", *(f"- {sentence}" for sentence in result.findings)]
    if diff := recipe_diff(result):
        parts += ["\n## The recipe, and what was rehearsed of it\n", "```diff", diff, "```"]
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def format_summary(results: Sequence[Rehearsal]) -> str:
    """A line for each of several rehearsals."""
    width = max(len(str(result.recipe_path)) for result in results)
    lines = []
    for result in results:
        failed = next((step for step in result.steps if step.state == "failed"), None)
        how = "proven" if failed is None else f"FAILED ({result.code}) {failed.name}: {failed.detail}"
        line = f"  {result.recipe_path!s:<{width}}  {result.strategy:<11}  {result.seconds:5.1f} s  {how}"
        lines.append(f"{line}, {len(result.remarks)} not" if failed is None else line)
    return "\n".join(lines)
