"""report.html of one run: results, curves, data, generations before and after, and where it all came from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.report.curves import draw_charts, make_charts
from alignment.report.numbers import format_count, format_estimate, format_number, format_seconds
from alignment.report.page import Card, Section, bullet_list, card_grid, facts_table, folded, page
from alignment.report.parts import encode_table, metrics_table, mixture_table, sample_pairs
from alignment.report.run_files import RunFiles, read_run

REPORT = "report.html"
MAX_METRIC_CARDS = 8


def write_report(run_dir: Path) -> Path:
    """Writes RUN/report.html from the files of the run; what is not there yet is left out. Returns its path."""
    run = read_run(run_dir)
    path = run.folder / REPORT
    path.write_text(make_report(run), encoding="utf-8")
    return path


def make_report(run: RunFiles) -> str:
    """The page of a run."""
    return page(
        run.name,
        _make_sections(run),
        kicker=run.stage_title,
        lead=describe_run(run),
        footer="Everything on this page comes from files beside it: receipt.json, recipe.yaml, metrics.jsonl, samples.json.",
    )


def _make_sections(run: RunFiles) -> Iterator[Section]:
    yield Section("Results", card_grid(make_metric_cards(run)) + _all_metrics(run))
    yield Section("Run", card_grid(list(_run_cards(run))))
    yield Section("Notes", bullet_list(run.receipt.get("notes", ())))
    yield Section("Curves", draw_charts(make_charts(run.logs)))
    both = run.samples.get("before") and run.samples.get("after")
    yield Section("Generations before and after" if both else "Generations", sample_pairs(run.samples))
    yield Section("Data", mixture_table(run.manifest.get("mix", ())) + encode_table(run.manifest.get("encode", {})))
    yield Section(
        "Recipe", folded("The resolved recipe, with every default", run.recipe_text) if run.recipe_text else ""
    )
    yield Section("Provenance", facts_table(make_provenance(run.receipt)))


def describe_run(run: RunFiles) -> str:
    """One line: what was trained on what, for how long."""
    parts = []
    model, lora = run.recipe.get("model", {}), run.recipe.get("lora")
    method = f"LoRA, rank {lora['r']}," if lora else ""
    if model.get("path"):
        parts.append(f"{method} from {model['path']}".strip())
    elif "config" in model:
        parts.append("a new model")
    schedule = run.receipt.get("schedule", {})
    if "steps" in schedule:
        parts.append(f"{schedule['steps']:,} steps of {schedule.get('global_batch_size', '?')} rows")
    if "rows_in" in run.receipt:
        parts.append(f"{run.receipt['rows_kept']:,} of {run.receipt['rows_in']:,} rows kept")
    if "finished" in run.receipt:
        parts.append(f"finished {run.receipt['finished'].replace('T', ' ').removesuffix('Z')} UTC")
    elif not run.receipt:
        parts.append("not finished")
    return " · ".join(parts)


# ------------------------------------------------------------------------------------------------ cards


def make_metric_cards(run: RunFiles, limit: int = MAX_METRIC_CARDS) -> list[Card]:
    """The first metrics of the receipt, with their standard errors and what they were before training."""
    receipt = run.receipt
    errors, before = receipt.get("metric_errors", {}), receipt.get("metrics_before", {})
    errors_before = receipt.get("metric_errors_before", {})
    cards = []
    for name, value in list(receipt.get("metrics", {}).items())[:limit]:
        error = errors.get(name)
        cards.append(
            Card(
                name,
                format_number(value),
                detail=f"± {format_number(float(error))}" if error else "",
                before=f"before {format_estimate(before[name], errors_before.get(name))}" if name in before else "",
            )
        )
    return cards or _loss_cards(run)


def _loss_cards(run: RunFiles) -> list[Card]:
    """Of a run that measured no metric: its losses, first and last."""
    cards = []
    for name, title in (("loss", "loss"), ("eval_loss", "held-out loss")):
        values = [line[name] for line in run.logs if name in line]
        if values:
            cards.append(Card(title, format_number(values[-1]), before=f"first {format_number(values[0])}"))
    return cards


def _all_metrics(run: RunFiles) -> str:
    """The whole table, where the cards do not show everything."""
    if len(run.receipt.get("metrics", {})) <= MAX_METRIC_CARDS:
        return ""
    return f'<div style="margin-top:14px">{metrics_table(run.receipt)}</div>'


def _run_cards(run: RunFiles) -> Iterator[Card]:
    receipt = run.receipt
    if (seconds := run.total_seconds()) is not None:
        phases = ", ".join(f"{name} {format_seconds(s)}" for name, s in receipt["seconds"].items() if name != "total")
        yield Card("time", format_seconds(seconds), before=phases)
    if (speed := run.tokens_per_second()) is not None:
        yield Card("speed", format_count(speed), "tokens/s")
    for name, count in receipt.get("tokens", {}).items():
        yield Card(f"tokens {name.replace('_', ' ')}", format_count(count))
    if "num_parameters" in receipt:
        yield Card("parameters", format_count(receipt["num_parameters"]))


# ------------------------------------------------------------------------------------------------ provenance


def make_provenance(receipt: Mapping[str, Any]) -> dict[str, str]:
    """The facts of a receipt as text, in the order of the table; those that are not known are empty."""
    git = receipt.get("git", {})
    hardware = receipt.get("hardware", {})
    machine = [
        *_count_names(hardware.get("gpus", ())),
        hardware.get("cpu", ""),
        f"{hardware['cores']} cores" if "cores" in hardware else "",
        f"{hardware['memory_gib']:g} GiB" if "memory_gib" in hardware else "",
    ]
    processes = receipt.get("world_size")
    return {
        "command": receipt.get("command", ""),
        "started from": "\n".join(_describe_parent(parent) for parent in receipt.get("parents", ())),
        "recipe": f"hash {receipt['recipe_hash']}, seed {receipt['seed']}" if receipt else "",
        "code": _describe_commit(git.get("package") or git.get("recipe")),
        "recipe repository": _describe_commit(git.get("recipe")) if "package" in git else "",
        "data": _prefixed("prepared rows ", receipt.get("prepared_manifest_hash")),
        "chat template": _prefixed("hash ", receipt.get("template_hash")),
        "processes": f"{processes}, {receipt['strategy']}" if "strategy" in receipt else str(processes or ""),
        "precision": ", ".join(f"{use} {dtype}" for use, dtype in receipt.get("dtypes", {}).items()),
        "hardware": ", ".join(filter(None, machine)),
        "versions": ", ".join(f"{name} {version}" for name, version in receipt.get("versions", {}).items()),
    }


def _describe_parent(parent: Mapping[str, Any]) -> str:
    kind = f"{parent['kind']}: " if parent.get("kind") else ""
    receipt = f" (receipt {parent['receipt_hash']})" if parent.get("receipt_hash") else ""
    return f"{kind}{parent['path']}{receipt}"


def _describe_commit(facts: Mapping[str, Any] | None) -> str:
    if not facts:
        return ""
    return f"commit {facts['commit']}" + (" with changes that are not committed" if facts["dirty"] else "")


def _prefixed(prefix: str, value: str | None) -> str:
    return f"{prefix}{value}" if value else ""


def _count_names(names: Any) -> list[str]:
    return [f"{list(names).count(name)} x {name}" for name in dict.fromkeys(names)]
