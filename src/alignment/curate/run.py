"""Runs a curation plan: segment after segment on a datatrove executor, then the final files, the counts and the receipt.

    DIR/final/00000.jsonl      the kept rows of the first input file: id, then every original field
    DIR/removed/<reason>/      the same of what was removed, with the step and what it found in `curate`
    DIR/receipt.json           the counts of every step; written last, so that it is there when all else is

The same command goes on where a killed one stopped. Whoever runs it, with how many processes: the files are the same bytes.
"""

import json
import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from alignment.curate import pii, steps
from alignment.curate.decontaminate import EvalIndex
from alignment.curate.documents import output_line
from alignment.curate.executor import run_tasks, started
from alignment.curate.joins import join
from alignment.curate.ledger import Ledger, read_records, write_json
from alignment.curate.plan import CuratePlan, PlannedStep, Segment
from alignment.curate.score import KEPT, Score
from alignment.curate.shards import describe_inputs
from alignment.errors import DataError
from alignment.recipe.curate_spec import PiiSpec
from alignment.recipe.resolved import recipe_hash

logger = logging.getLogger(__name__)
_NUM_SHOWN = 3
_SAMPLE_CHARACTERS = 600


def curate(plan: CuratePlan) -> dict[str, Any]:
    """Does what is left of a plan and returns its receipt. The caller sees to it that no other process works in the folder.

    Raises:
        DataError: rows that cannot be read; a step that removes all rows, or more or less than the recipe says; counts that do
            not add up.
        LaunchError: a task was lost, or the executor could not be started.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    receipt = read_receipt(plan.out)
    if receipt is not None and receipt.get("key") == plan.key:
        return receipt
    with started(plan.recipe.curate.executor):
        return _do_what_is_left(plan)


def read_receipt(out: Path) -> dict[str, Any] | None:
    """The receipt of a finished run, or None."""
    path = out / "receipt.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _do_what_is_left(plan: CuratePlan) -> dict[str, Any]:
    counts: dict[str, dict[str, Any]] = {}
    tallies: dict[str, Counter] = {}
    joins: dict[str, Any] = {}
    before: Path | None = None
    for segment in plan.segments:
        begun = time.perf_counter()
        _run_segment(plan, segment, before)
        if before is None:
            _check_sources(plan, segment)
        found = _collect(plan, segment, tallies)
        _check_counts(plan, segment, found, counts)
        counts |= found
        if segment.signs is not None:
            names = [shard.name for shard in plan.shards]
            labels = [source.path for source in plan.recipe.data.train]
            joins[segment.signs.name] = join(
                plan.folder(segment), names, segment.signs.kind, segment.signs.spec, labels
            )
        before = plan.folder(segment)
        last = list(found.values())[-1]
        logger.info("%s: %d rows left, %.1f s", ", ".join(found), last["kept"], time.perf_counter() - begun)
    receipt = _make_receipt(plan, counts, tallies, joins)
    _write_outputs(plan, receipt)
    write_json(plan.out / "receipt.json", receipt)
    shutil.rmtree(plan.out / "work")
    return receipt


# ------------------------------------------------------------------------------------------------ segments


def _run_segment(plan: CuratePlan, segment: Segment, before: Path | None) -> None:
    ledger = Ledger(plan.folder(segment))
    if before is None:
        pipeline: list[Any] = [steps.ReadFiles(ledger, list(plan.shards), plan.recipe.data)]
    else:
        pipeline = [steps.ReadRows(ledger, list(plan.shards), before, plan.recipe.data)]
        pipeline.append(steps.DropChosen(segment.drops.name, ledger, before))
    pipeline += [_make_step(plan, ledger, step) for step in segment.alone]
    if segment.signs is not None:
        pipeline.append(steps.Sign(ledger, segment.signs.kind, segment.signs.spec))
    pipeline.append(steps.KeepRows(ledger))
    run_tasks(pipeline, plan.tasks, plan.workers, plan.folder(segment) / "logs", plan.recipe.curate.executor)


def _make_step(plan: CuratePlan, ledger: Ledger, step: PlannedStep) -> steps.Judge:
    context: Any = step.kind
    if step.kind == "pii":
        context = f"pii {plan.recipe.seed}".encode()
    elif step.kind == "decontaminate":
        context = EvalIndex(step.spec, plan.recipe_dir)
    return steps.Judge(step.name, ledger, steps.ALONE[step.kind], step.spec, context)


def _check_sources(plan: CuratePlan, first: Segment) -> None:
    """Raises DataError for a source that has no rows, as the mixer does."""
    seen: Counter = Counter()
    for shard in plan.shards:
        read = json.loads((plan.folder(first) / "counts" / f"{shard.name}.json").read_text(encoding="utf-8"))
        seen[shard.source] += read["steps"].get("00-read", {"in": 0})["in"]
    for number, source in enumerate(plan.recipe.data.train):
        if not seen[number]:
            raise DataError(
                f"{source.path}: found no rows; at least one was expected. Correct 'path' or 'data_files', or remove the source."
            )


def _collect(plan: CuratePlan, segment: Segment, tallies: dict[str, Counter]) -> dict[str, dict[str, Any]]:
    """The segment's counts over all shards; every step is there, also where no row came to it."""
    names = ["00-read"] if segment.drops is None else [segment.drops.name]
    names += [step.name for step in segment.alone]
    found = {name: {"in": 0, "kept": 0, "removed": {}, "characters": 0} for name in names}
    for shard in plan.shards:
        read = json.loads((plan.folder(segment) / "counts" / f"{shard.name}.json").read_text(encoding="utf-8"))
        for name, one in read["steps"].items():
            for key in ("in", "kept", "characters"):
                found[name][key] += one[key]
            removed = Counter(found[name]["removed"]) + Counter(one["removed"])
            found[name]["removed"] = dict(sorted(removed.items()))
        for table, numbers in read["tallies"].items():
            tallies.setdefault(table, Counter()).update(numbers)
    return found


def _check_counts(plan: CuratePlan, segment: Segment, found: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Raises DataError where rows are lost between or inside steps, and for a step that removes too much or too little."""
    specs = {step.name: step.spec for step in [*segment.alone, *([segment.drops] if segment.drops else [])]}
    coming = list(earlier.values())[-1]["kept"] if earlier else None
    for name, one in found.items():
        gone = sum(one["removed"].values())
        if one["in"] != one["kept"] + gone or (coming is not None and one["in"] != coming):
            raise DataError(
                f"curate {name}: {coming} rows came, {one['in']} were seen, {one['kept']} kept and {gone} removed; equal sums were"
                f" expected. Delete {plan.out / 'work'} and run again; if it stays, it is a defect."
            )
        coming = one["kept"]
        spec = specs.get(name)
        least, most = (0.0, 1.0) if spec is None else (spec.min_removed, spec.max_removed)
        too_many = one["in"] and (not one["kept"] or gone > most * one["in"])
        if too_many or gone < least * one["in"]:
            at = (
                f"at most {most:.4g} of them"
                if too_many and most < 1
                else "some to be left"
                if too_many
                else f"at least {least:.4g}"
            )
            raise DataError(
                f"curate {name}: it removed {gone} of {one['in']} rows ({_reasons(one)}); {at} was expected."
                f"{_examples(plan, segment, name)} Correct the step, or its min_removed and max_removed."
            )


def _reasons(one: dict[str, Any]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in Counter(one["removed"]).most_common(4)) or "no reason"


def _examples(plan: CuratePlan, segment: Segment, name: str) -> str:
    shown = []
    for shard in plan.shards:
        for record in read_records(plan.folder(segment), "removed", shard.name):
            if record["step"] == name and len(shown) < _NUM_SHOWN:
                text = json.dumps(record["row"], ensure_ascii=False)[:80]
                shown.append(f" {record['id']} ({record['reason']}): {text}...")
    return "".join(shown)


# ------------------------------------------------------------------------------------------------ the result


def _make_receipt(
    plan: CuratePlan, counts: dict[str, Any], tallies: dict[str, Counter], joins: dict[str, Any]
) -> dict[str, Any]:
    """Everything but samples; no time and no path of this machine, so that it is the same everywhere."""
    removed: Counter = Counter()
    for one in counts.values():
        removed.update(one["removed"])
    return {
        "format": 1,  # as all receipts have it
        "key": plan.key,
        "stage": "curate",
        "recipe_hash": recipe_hash(plan.recipe),
        "seed": plan.recipe.seed,
        **describe_inputs(plan.recipe, plan.recipe_dir, plan.shards),
        "rows_in": counts["00-read"]["in"],
        "rows_kept": list(counts.values())[-1]["kept"],
        "rows_removed": dict(sorted(removed.items())),
        "steps": [{"step": name, **one} for name, one in counts.items()],
        "groups": joins,
        "tallies": {name: dict(sorted(numbers.items())) for name, numbers in sorted(tallies.items())},
    }


def _write_outputs(plan: CuratePlan, receipt: dict[str, Any]) -> None:
    """Writes final/ and removed/ beside the old ones, counts their lines and puts them in place; adds samples."""
    new = plan.out / "work" / "output"
    shutil.rmtree(new, ignore_errors=True)
    (new / "final").mkdir(parents=True)
    (new / "removed").mkdir()
    score = Score(plan.recipe.curate.truth) if plan.recipe.curate.truth else None
    lines, after = _write_final(plan, new, receipt, score)
    removed = _write_removed(plan, new, receipt, score)
    gone = sum(receipt["rows_removed"].values())
    if lines != receipt["rows_kept"] or removed != receipt["rows_removed"] or receipt["rows_in"] != lines + gone:
        raise DataError(
            f"{plan.out}: read {receipt['rows_in']} rows, wrote {lines} kept and {sum(removed.values())} removed; equal sums were"
            f" expected. Delete {plan.out / 'work'} and run again; if it stays, it is a defect."
        )
    receipt["tallies"] |= {name: dict(sorted(numbers.items())) for name, numbers in after.items()}
    receipt |= score.result() if score is not None else {}
    for name in ("final", "removed"):
        if (plan.out / name).exists():
            shutil.rmtree(plan.out / name)
        (new / name).rename(plan.out / name)


def _write_final(
    plan: CuratePlan, new: Path, receipt: dict[str, Any], score: Score | None
) -> tuple[int, dict[str, Counter]]:
    lines, after = 0, {"source_after": Counter(), "language_after": Counter()}
    samples: list[str] = []
    for shard in plan.shards:
        with (new / "final" / f"{shard.name}.jsonl").open("w", encoding="utf-8") as file:
            for record in read_records(plan.folder(plan.segments[-1]), "rows", shard.name):
                line = output_line(record)
                file.write(line)
                lines += 1
                if score is not None:
                    score.add(record["row"], KEPT)
                after["source_after"][shard.label] += 1
                if record["language"] is not None:
                    after["language_after"][record["language"] or "none"] += 1
                if len(samples) < plan.recipe.curate.samples:
                    samples.append(_sample(line))
    receipt["samples"] = {"kept": samples}
    return lines, {name: numbers for name, numbers in after.items() if numbers}


def _sample(line: str) -> str:
    """What the page shows of a row. Rows that were removed early still hold personal data; the page may be passed on."""
    text = line.rstrip("\n")[:_SAMPLE_CHARACTERS]
    return pii.replace(text, pii.find(text, PiiSpec().types)).encode("utf-8", "replace").decode()


def _write_removed(plan: CuratePlan, new: Path, receipt: dict[str, Any], score: Score | None) -> dict[str, int]:
    """One folder a reason; returns the lines of each."""
    lines: Counter = Counter()
    samples = receipt["samples"]
    for shard in plan.shards:
        by_reason: dict[str, list[str]] = {}
        for segment in plan.segments:
            for record in read_records(plan.folder(segment), "removed", shard.name):
                if score is not None:
                    score.add(record["row"], record["reason"])
                why = {"step": record["step"], **record["details"]}
                line = output_line(record, curate=why)
                by_reason.setdefault(record["reason"], []).append(line)
                shown = samples.setdefault(record["reason"], [])
                if len(shown) < plan.recipe.curate.samples:
                    shown.append(_sample(line))
        for reason, written in by_reason.items():
            folder = new / "removed" / reason
            folder.mkdir(exist_ok=True)
            (folder / f"{shard.name}.jsonl").write_text("".join(written), encoding="utf-8")
            lines[reason] += len(written)
    return dict(sorted(lines.items()))
