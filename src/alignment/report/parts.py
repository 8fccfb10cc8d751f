"""Parts that the pages of a run, of a study and of a preview share."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alignment.report.numbers import format_estimate
from alignment.report.page import Bar, Long, table
from alignment.report.redact import redact

MAX_SAMPLES = 12
MAX_SAMPLE_CHARACTERS = 600
_MIX_COLUMNS = (
    "split", "source", "format", "asked", "available", "obtained", "unique", "kept", "tokens", "part_of_tokens",
    "trained_tokens", "length_quantiles", "truncated", "dropped_rows",
)  # fmt: skip


def mixture_table(mixture: Sequence[Mapping[str, Any]]) -> str:
    """Asked and obtained rows and tokens, one line a source and split."""
    lines = [{**row, **_describe_source(row, mixture)} for row in mixture]
    columns = [name for name in _MIX_COLUMNS if any(line.get(name) is not None for line in lines)]
    rows = [
        [redact(line[name]) if isinstance(line[name], str) else line.get(name) for name in columns] for line in lines
    ]
    return table([name.replace("_", " ") for name in columns], rows, caption="Mixture: rows asked for, drawn and kept")


def _describe_source(row: Mapping[str, Any], mixture: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is shown of a line of the mixture beyond its own numbers."""
    total = sum(other.get("tokens") or 0 for other in mixture if other["split"] == row["split"])
    lengths, dropped = row.get("lengths"), row.get("dropped")
    quantiles = f"{lengths['min']} · {lengths['p50']} · {lengths['p95']} · {lengths['max']}" if lengths else None
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items()) if dropped else None
    return {
        "part_of_tokens": Bar(row["tokens"] / total) if row.get("tokens") and total else None,
        "length_quantiles": quantiles,
        "dropped_rows": reasons,
    }


def encode_table(encode: Mapping[str, Mapping[str, Any]]) -> str:
    """What became of the rows, one line a split."""
    rows = []
    for split, report in encode.items():
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in report.get("dropped", {}).items()) or "0"
        counts = [report.get(name) for name in ("rows", "kept", "truncated", "split", "longest")]
        rows.append([split, *counts, Long(dropped)])
    columns = ("split", "rows", "kept", "truncated", "in pieces", "longest, tokens", "dropped")
    return table(columns, rows, caption="Encoding: what became of the rows")


def sample_pairs(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Generations for held-out prompts, before training on the left and after it on the right."""
    before = {sample["prompt"]: sample for sample in samples.get("before", ())}
    after = samples.get("after") or samples.get("before", ())
    shown = [
        _draw_sample(one, before.get(one["prompt"]) if samples.get("after") else None) for one in after[:MAX_SAMPLES]
    ]
    return "".join(shown)


def _draw_sample(sample: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    answer = sample.get("answer")
    expected = f'<p class="key">expected: {escape(_cut(str(answer)))}</p>' if answer is not None else ""
    left = _side("before", before) if before is not None else ""
    sides = left + _side("after" if left else "completion", sample)
    layout = f'<div class="sides">{sides}</div>' if left else f'<div style="margin-top:10px">{sides}</div>'
    return f'<article class="sample"><div class="text prompt">{escape(_cut(sample["prompt"]))}</div>{expected}{layout}</article>'


def _side(title: str, sample: Mapping[str, Any]) -> str:
    stop = "" if sample.get("stopped", True) else " · did not stop"
    text = escape(_cut(sample["completion"])) or '<span class="muted">(nothing)</span>'
    return f'<div class="{title}"><span class="tag">{escape(title + stop)}</span><span class="text">{text}</span></div>'


def _cut(text: str) -> str:
    if len(text) <= MAX_SAMPLE_CHARACTERS:
        return text
    half = MAX_SAMPLE_CHARACTERS // 2
    return f"{text[:half]} … {len(text) - 2 * half:,} characters … {text[-half:]}"


def metrics_table(receipt: Mapping[str, Any]) -> str:
    """Every metric of a receipt with its standard error, before and after training where both were measured."""
    after, before = receipt.get("metrics", {}), receipt.get("metrics_before", {})
    errors, errors_before = receipt.get("metric_errors", {}), receipt.get("metric_errors_before", {})
    names = list(dict.fromkeys([*after, *before]))
    if not before:
        rows = [(name, format_estimate(after[name], errors.get(name))) for name in names]
        return table(("metric", "value"), rows, caption="± standard error")
    rows = [
        (
            name,
            format_estimate(before[name], errors_before.get(name)) if name in before else None,
            format_estimate(after[name], errors.get(name)) if name in after else None,
        )
        for name in names
    ]
    return table(("metric", "before", "after"), rows, caption="On held-out rows, ± standard error")
