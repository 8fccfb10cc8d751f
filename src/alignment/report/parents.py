"""What a recipe starts from, as its receipt says it and as it lies on this disk now."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.recipe.places import RUNS
from alignment.recipe.schema import Recipe
from alignment.report.receipt import RECEIPT, read_receipt, receipt_hash

_WORDS_OF_REFERENCE = ("start", "base")  # not paths
_WORDS_OF_VALUE_MODEL = (None, "reward", "start")


def named_parents(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """(kind, path) of every model, tokenizer and curated source that a recipe names."""
    fields = type(recipe).model_fields
    if "model" in fields and recipe.model.path:
        yield "model", recipe.model.path
    if recipe.stage != "tokenizer" and "tokenizer" in fields and recipe.tokenizer.path:
        yield "tokenizer", recipe.tokenizer.path
    if "dpo" in fields and recipe.dpo.reference not in _WORDS_OF_REFERENCE:
        yield "reference", recipe.dpo.reference
    if "ppo" in fields and recipe.ppo.reward_model:
        yield "reward model", recipe.ppo.reward_model
    if "ppo" in fields and recipe.ppo.value_model not in _WORDS_OF_VALUE_MODEL:
        yield "value model", recipe.ppo.value_model
    if "evaluate" in fields and recipe.evaluate.against:
        yield "against", recipe.evaluate.against
    yield from (("data", path) for path in dict.fromkeys(_curated(recipe)))


def _curated(recipe: Recipe) -> Iterator[str]:
    """Sources that another run has made."""
    for split in ("train", "eval"):
        sources = getattr(recipe.data, split) if split in type(recipe.data).model_fields else ()
        yield from (source.path for source in sources if source.path.startswith(RUNS))


def describe_parents(recipe: Recipe) -> list[dict[str, Any]]:
    """path and kind of each parent, with its receipt's hash where it is a finished run on this disk."""
    return [describe_parent(kind, path) for kind, path in named_parents(recipe)]


def describe_parent(kind: str, path: str) -> dict[str, Any]:
    """One parent, as `describe_parents` has it."""
    run_dir = find_run_dir(path)
    facts = {"path": path, "kind": kind}
    return facts if run_dir is None else facts | {"receipt_hash": receipt_hash(read_receipt(run_dir))}


def find_run_dir(path: str) -> Path | None:
    """The finished run that a path (a run folder, its final/ or adapter/) belongs to."""
    folder = Path(path).expanduser()
    return next((one for one in (folder, folder.parent) if (one / RECEIPT).is_file()), None)
