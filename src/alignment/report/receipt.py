"""receipt.json: what a result was made from, where, and what it measured.

A receipt holds facts only; what is not known has no key. It names neither this machine nor its user, and its hash is what a
run that starts from this one writes down, so that a chain of runs can be checked link by link.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment.errors import ArtifactError
from alignment.report.provenance import read_git, read_hardware, read_versions
from alignment.report.redact import redact

RECEIPT = "receipt.json"
FORMAT = 1


def make_receipt(
    *,
    stage: str,
    recipe_hash: str,
    recipe_dir: Path,
    seed: int,
    command: Sequence[str] = (),
    prepared_manifest_hash: str | None = None,
    template_hash: str | None = None,
    schedule: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    metric_errors: Mapping[str, float] | None = None,
    metrics_before: Mapping[str, float] | None = None,
    metric_errors_before: Mapping[str, float] | None = None,
    seconds: Mapping[str, float] | None = None,
    parents: Sequence[Mapping[str, Any]] = (),
    probe: Mapping[str, Any] | None = None,
    weights_hash: str | None = None,
    reload_gap: float | None = None,
    world_size: int = 1,
    strategy: str | None = None,
    dtypes: Mapping[str, str] | None = None,
    tokens: Mapping[str, int] | None = None,
    num_parameters: int | None = None,
    gpus: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Gathers a receipt; commits, versions, hardware and the time are looked up here.

    Args:
        recipe_dir: folder of the recipe file; its repository's commit is recorded.
        metric_errors: standard errors under the names of `metrics`; likewise before training.
        seconds: phase to duration, for example prepare, load, train, evaluate, save, total.
        parents: what the run started from: {"path", "receipt_hash", "kind"}; kind is model, tokenizer, reference, ...
        dtypes: use to dtype, for example {"compute": "bfloat16", "saved": "float32"}.
        tokens: for example {"seen": ..., "trained": ...}, over all processes and without padding.
        gpus: names of the devices, one entry each.
        probe: scores of the fixed prompts, as a fresh process computed them from final/.
        weights_hash: of the safetensors files in final/.
        reload_gap: greatest difference between those scores and the live model's, relative to the greatest value.
        notes: sentences about what the run did on its own account, for example that a LoRA parent was merged.
    """
    facts = {
        "format": FORMAT,
        "stage": stage,
        "recipe_hash": recipe_hash,
        "seed": seed,
        "command": " ".join(command),
        "metrics": metrics,
        "metric_errors": metric_errors,
        "metrics_before": metrics_before,
        "metric_errors_before": metric_errors_before,
        "parents": parents,
        "git": read_git(recipe_dir),
        "prepared_manifest_hash": prepared_manifest_hash,
        "template_hash": template_hash,
        "schedule": schedule,
        "tokens": tokens,
        "num_parameters": num_parameters,
        "world_size": world_size,
        "strategy": strategy,
        "dtypes": dtypes,
        "seconds": seconds,
        "hardware": read_hardware(gpus),
        "versions": read_versions(),
        "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "notes": notes,
        "weights_hash": weights_hash,
        "reload_gap": reload_gap,
        "probe": probe,
    }
    return {name: _plain(value) for name, value in facts.items() if value is not None and value not in ("", (), [], {})}


def _plain(value: Any) -> Any:
    """JSON values only: NaN and infinity become null, and no string keeps a secret or a path of this machine."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str | Path):
        return redact(str(value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_receipt(run_dir: Path, receipt: Mapping[str, Any]) -> str:
    """Writes RUN/receipt.json in one step and returns its hash."""
    path = Path(run_dir) / RECEIPT
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(receipt, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    return receipt_hash(receipt)


def read_receipt(run_dir: Path) -> dict[str, Any]:
    """The receipt of a run. Raises ArtifactError when there is none or it is not one."""
    path = Path(run_dir) / RECEIPT
    try:
        receipt = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: not found; every finished run has one. Run its recipe again.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: {error}; a JSON object was expected. Run its recipe again.") from error
    if not isinstance(receipt, dict) or receipt.get("format") != FORMAT:
        raise ArtifactError(f"{path}: not a receipt of format {FORMAT}. Run its recipe again with this version.")
    return receipt


def receipt_hash(receipt: Mapping[str, Any]) -> str:
    """First 16 hex digits of the sha256 over the receipt's content; neither its layout nor the order of its keys counts."""
    text = json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
