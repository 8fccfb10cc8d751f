"""README.md of a run, as a model card: facts of the receipt, the recipe and the prepared rows; what is not known is not said.

The front matter has the Hub's keys, and the results as `model-index`. A base model or a dataset is named there only when it is
on the Hub: a folder of this machine means nothing to a reader. Pushing is not this file's.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, RepoCard, try_to_load_from_cache

from alignment.report.energy import estimate_energy
from alignment.report.lineage_files import Ancestor, find_ancestors
from alignment.report.numbers import format_estimate, format_number, format_seconds
from alignment.report.redact import redact
from alignment.report.run_files import RunFiles, read_run
from alignment.report.run_report import make_provenance

CARD = "README.md"
UNKNOWN = "unknown"
CHAT_STAGES = ("sft", "dpo", "ppo")
MODEL_STAGES = ("pretrain", *CHAT_STAGES, "reward")
MAX_SAMPLES = 4
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+|[\w-]+")


def write_card(run_dir: Path) -> Path:
    """Writes RUN/README.md and returns its path."""
    run = read_run(run_dir)
    path = run.folder / CARD
    path.write_text(make_card(run), encoding="utf-8")
    return path


def make_card(run: RunFiles, hub_id: str | None = None) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        hub_id: where the result is published; None: on this disk.
    """
    ancestors = find_ancestors(run)
    sections = {
        "Load it": _loading(run, ancestors, hub_id or f"runs/{run.name}/final"),
        "Results": _results(run.receipt),
        "Samples": _samples(run),
        "Lineage": _lineage(run, ancestors),
        "Data": _data(run.manifest),
        "Limits": "\n".join(f"- {limit}" for limit in _limits(run)),
        "How it was trained": _training(run),
        "Where it was trained": _provenance(run),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items() if text)
    front = make_front_matter(run, ancestors).to_yaml()
    return f"---\n{front}\n---\n\n# {hub_id or run.name}\n\n{run.stage_title}. {_origin(run, ancestors)}\n\n{body}\n"


# ------------------------------------------------------------------------------------------------ front matter


def make_front_matter(run: RunFiles, ancestors: list[Ancestor]) -> ModelCardData:
    """The card's metadata. The licence is the base's where that says one, else unknown: it is never guessed."""
    base = _hub_base(ancestors)
    adapter = is_adapter_only(run)
    fields: dict[str, Any] = {"license": _find_license(ancestors)}
    if base:
        fields |= {"base_model": base.path, "base_model_relation": "adapter" if adapter else "finetune"}
    if datasets := _hub_datasets(run.manifest):
        fields["datasets"] = datasets
    if run.stage in MODEL_STAGES:
        fields["library_name"] = "peft" if adapter else "transformers"
        fields["pipeline_tag"] = "text-classification" if run.stage == "reward" else "text-generation"
    tags = ["alignment", run.stage, "lora" if run.recipe.get("lora") else ""]
    tags.append("conversational" if run.stage in CHAT_STAGES else "")
    if results := _index_results(run):
        fields |= {"model_name": run.name, "eval_results": results}
    return ModelCardData(**fields, tags=[tag for tag in tags if tag])


def _index_results(run: RunFiles) -> list[EvalResult]:
    """The metrics after training, for `model-index`."""
    held_out = _held_out(run.manifest)
    one = held_out[0] if len(held_out) == 1 and held_out[0].get("revision") else None
    names = ", ".join(dict.fromkeys(redact(source["path"]) for source in held_out))
    return [
        EvalResult(
            task_type="text-classification" if run.stage == "reward" else "text-generation",
            dataset_type=one["path"] if one else "held-out-rows",
            dataset_name=names or "held-out rows of the recipe",
            dataset_revision=one["revision"] if one else None,
            metric_type=name,
            metric_value=round(value, 6),
            metric_name=name,
        )
        for name, value in run.receipt.get("metrics", {}).items()
        if value is not None
    ]


def make_eval_results(run: RunFiles) -> dict[str, list[EvalResultEntry]]:
    """File name below `.eval_results/` to the metrics measured on that dataset of the Hub; empty where the rows are not one."""
    held_out = _held_out(run.manifest)
    if len(held_out) != 1 or not held_out[0].get("revision"):
        return {}
    errors = run.receipt.get("metric_errors", {})
    entries = [
        EvalResultEntry(
            dataset_id=held_out[0]["path"],
            task_id=name,
            value=round(value, 6),
            dataset_revision=held_out[0]["revision"],
            date=run.receipt.get("finished"),
            notes=f"held-out rows of the recipe; standard error {errors[name]:.3g}"
            if errors.get(name) is not None
            else None,
        )
        for name, value in run.receipt.get("metrics", {}).items()
        if value is not None
    ]
    return {f"{held_out[0]['path'].replace('/', '--')}.yaml": entries} if entries else {}


def _held_out(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [source for source in manifest.get("sources", ()) if source.get("split") == "eval"]


def is_adapter_only(run: RunFiles) -> bool:
    """Whether final/ holds an adapter and not a whole model."""
    return (run.recipe.get("lora") or {}).get("save") == "adapter"


def _hub_base(ancestors: list[Ancestor]) -> Ancestor | None:
    return next((one for one in ancestors if one.on_hub), None)


def _hub_datasets(manifest: Mapping[str, Any]) -> list[str]:
    """Only a Hub dataset has a revision."""
    ids = [source["path"] for source in manifest.get("sources", ()) if source.get("revision")]
    return list(dict.fromkeys(path for path in ids if _HUB_ID.fullmatch(path)))


def _find_license(ancestors: list[Ancestor]) -> str:
    """Of the nearest ancestor whose card is on this machine and names one."""
    for one in ancestors:
        card = _cached_card(one) if one.on_hub else one.folder and one.folder / CARD
        if card and card.is_file():
            license_ = RepoCard.load(card, ignore_metadata_errors=True).data.get("license")
            if license_ and license_ != UNKNOWN:
                return license_
    return UNKNOWN


def _cached_card(base: Ancestor) -> Path | None:
    found = try_to_load_from_cache(base.path, CARD, revision=base.revision)
    return Path(found) if isinstance(found, str) else None


# ------------------------------------------------------------------------------------------------ loading


def loading_lines(*, stage: str, path: str, base: str | None = None, revision: str | None = None) -> list[str]:
    """Python that loads a result.

    Args:
        path: the model's folder or Hub id.
        base: for an adapter, the model below it; None for a whole model.
        revision: of `base`.
    """
    reward = stage == "reward"
    name = "AutoModelForSequenceClassification" if reward else "AutoModelForCausalLM"
    pinned = (f', revision="{revision}"' if revision else "") + (", num_labels=1" if reward else "")
    lines = [f"from transformers import {name}, AutoTokenizer"]
    if base is None:
        lines.append(f'model = {name}.from_pretrained("{path}")')
    else:
        lines.insert(0, "from peft import PeftModel")
        lines.append(f'base = {name}.from_pretrained("{base}"{pinned})')
        lines.append(f'model = PeftModel.from_pretrained(base, "{path}")')
    return [*lines, f'tokenizer = AutoTokenizer.from_pretrained("{path}")']


def _loading(run: RunFiles, ancestors: list[Ancestor], folder: str) -> str:
    if run.stage not in MODEL_STAGES:
        return ""
    if not is_adapter_only(run):
        return _fence("\n".join(loading_lines(stage=run.stage, path=folder)), "python")
    base = ancestors[0]
    lines = loading_lines(stage=run.stage, path=folder, base=base.path, revision=base.revision)
    return _fence("\n".join(lines), "python")


# ------------------------------------------------------------------------------------------------ sections


def _origin(run: RunFiles, ancestors: list[Ancestor]) -> str:
    lora = run.recipe.get("lora")
    how = f"With LoRA of rank {lora['r']}, from" if lora else "From"
    if ancestors:
        return f"{how} {ancestors[0].describe()}."
    return "From new weights." if run.stage == "pretrain" else ""


def _results(receipt: Mapping[str, Any]) -> str:
    after, before = receipt.get("metrics", {}), receipt.get("metrics_before", {})
    if not after and not before:
        return ""
    errors, errors_before = receipt.get("metric_errors", {}), receipt.get("metric_errors_before", {})
    rows = []
    for name in dict.fromkeys([*after, *before]):
        cells = [name]
        if before:
            cells.append(format_estimate(before[name], errors_before.get(name)) if name in before else "")
        cells.append(format_estimate(after[name], errors.get(name)) if name in after else "")
        rows.append(cells)
    columns = ["metric", "before", "after"] if before else ["metric", "value"]
    return f"On held-out rows of the recipe; ± is the standard error.\n\n{_table(columns, rows)}"


def _samples(run: RunFiles) -> str:
    before = {sample["prompt"]: sample for sample in run.samples.get("before", ())}
    blocks = []
    for sample in run.samples.get("after", ())[:MAX_SAMPLES]:
        lines = [f"prompt: {sample['prompt']}"]
        if sample["prompt"] in before:
            lines.append(f"before: {before[sample['prompt']]['completion']}")
        blocks.append(_fence("\n".join([*lines, f"after:  {sample['completion']}"])))
    return "\n\n".join(blocks)


def _lineage(run: RunFiles, ancestors: list[Ancestor]) -> str:
    """The models before this one, and the curated data that any of them was trained on."""
    rows = [[one.kind, one.path, one.revision or "", one.receipt_hash or ""] for one in ancestors]
    receipts = [run.receipt, *(read_run(one.folder).receipt for one in ancestors if one.folder is not None)]
    parents = [parent for receipt in receipts for parent in receipt.get("parents", ()) if parent["kind"] == "data"]
    curated = {parent["path"]: parent.get("receipt_hash", "") for parent in reversed(parents)}
    rows += [["curated data", path, "", receipt_hash] for path, receipt_hash in curated.items()]
    return _table(["kind", "path", "revision", "receipt"], rows) if rows else ""


def _data(manifest: Mapping[str, Any]) -> str:
    revisions = {(one["split"], one["path"]): one.get("revision") for one in manifest.get("sources", ())}
    columns = ["split", "source", "revision", "format", "rows asked", "rows obtained", "rows kept", "tokens"]
    rows = []
    for row in manifest.get("mix", ()):
        path = row["source"].partition("[")[0]
        counts = [format_number(row.get(name)) for name in ("obtained", "kept", "tokens")]
        facts = [row["split"], redact(row["source"]), revisions.get((row["split"], path)) or ""]
        rows.append([*facts, row["format"], row["asked"], *counts])
    return _table(columns, rows) if rows else ""


def _limits(run: RunFiles) -> Iterator[str]:
    """What the run's own files show that a reader should know before relying on it."""
    if "max_length" in run.manifest:
        yield f"No row was longer than {run.manifest['max_length']:,} tokens."
    for split, report in run.manifest.get("encode", {}).items():
        if dropped := sum(report.get("dropped", {}).values()):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in report["dropped"].items())
            yield f"{dropped:,} of {report['rows']:,} rows of {split} were dropped: {reasons}."
        if report.get("truncated"):
            yield f"{report['truncated']:,} of {report['rows']:,} rows of {split} were cut at the end."
    if run.receipt.get("metrics"):
        yield "The metrics are of held-out rows of the sources above; nothing else was measured."
    endless = [sample for sample in run.samples.get("after", ()) if not sample.get("stopped", True)]
    if endless:
        yield f"{len(endless)} of {len(run.samples['after'])} sampled answers did not stop within their limit."
    if any(facts["dirty"] for facts in run.receipt.get("git", {}).values()):
        yield "The code or the recipe had changes that were not committed."
    yield from run.receipt.get("notes", ())


def _training(run: RunFiles) -> str:
    schedule = run.receipt.get("schedule", {})
    rows = [[name.replace("_", " "), format_number(value)] for name, value in schedule.items()]
    rows += [[f"tokens {name.replace('_', ' ')}", format_number(value)] for name, value in _facts(run, "tokens")]
    parts = [_table(["schedule", ""], rows) if rows else ""]
    if run.recipe_text:
        parts.append(f"The resolved recipe, with every default:\n\n{_fence(run.recipe_text.rstrip(), 'yaml')}")
    return "\n\n".join(filter(None, parts))


def _provenance(run: RunFiles) -> str:
    facts = make_provenance(run.receipt)
    facts.pop("started from")
    facts["time"] = ", ".join(f"{name} {format_seconds(value)}" for name, value in _facts(run, "seconds"))
    facts["energy"] = estimate_energy(run.receipt)
    facts["finished"] = run.receipt.get("finished", "")
    rows = [[name, value] for name, value in facts.items() if value]
    return _table(["fact", ""], rows) if run.receipt else ""


def _facts(run: RunFiles, name: str) -> list[tuple[str, Any]]:
    return list(run.receipt.get(name, {}).items())


# ------------------------------------------------------------------------------------------------ Markdown


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(map(_escape, line)) + " |" for line in [columns, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def _escape(cell: Any) -> str:
    return re.sub(r"([\\|<>*`\[\]])", r"\\\1", str(cell)).replace("\n", " ")


def _fence(text: str, language: str = "text") -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
