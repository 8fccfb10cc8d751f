"""The resolved recipe: every key with its value, as one deterministic text and its hash."""

import hashlib
import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from alignment.recipe.schema import Recipe


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """All keys that say something, defaults included, as plain lists and dicts in schema order."""
    return _plain(recipe.model_dump(exclude_none=True))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def recipe_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML; reading it gives an equal recipe."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    fields = recipe_fields(recipe)
    stage = fields.pop("stage")
    stream = io.StringIO()
    yaml.dump({"stage": stage, **fields}, stream)
    return stream.getvalue()


def recipe_hash(recipe: Recipe) -> str:
    """First 16 hex digits of the sha256 of `recipe_text`."""
    return hashlib.sha256(recipe_text(recipe).encode()).hexdigest()[:16]


def run_folder(recipe_path: Path) -> Path:
    """Where a run goes unless --out says otherwise: runs/<the recipe's folder>/<its stem>, in the current folder."""
    return Path("runs") / recipe_path.resolve().parent.name / recipe_path.stem
