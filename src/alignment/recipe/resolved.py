"""The resolved recipe: every key with its value, as one deterministic text and its hash."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from alignment.recipe.locate import Node, node_at, read_text
from alignment.recipe.mistakes import Origin
from alignment.recipe.schema import Recipe

# How a run is watched over, and where a curation is done: a run goes on, and is the same run, with other values.
WATCHING = ("train.hang_timeout", "train.max_restarts", "train.on_loss_spike", "curate.executor")


def recipe_fields(recipe: Recipe) -> dict[str, Any]:
    """All keys that say something, defaults included, as plain lists and dicts in schema order."""
    return plain(recipe.model_dump(exclude_none=True))


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def recipe_text(recipe: Recipe) -> str:
    """The resolved recipe as YAML; reading it gives an equal recipe."""
    return _to_text(recipe_fields(recipe))


def _to_text(fields: dict[str, Any]) -> str:
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4096
    stage = fields.pop("stage")
    stream = io.StringIO()
    yaml.dump(_escape_breaks({"stage": stage, **fields}), stream)
    return stream.getvalue()


def _escape_breaks(value: Any) -> Any:
    """Text with a next-line character in double quotes: ruamel.yaml 0.19 writes it bare and reads it as a space."""
    if isinstance(value, dict):
        return {_escape_breaks(key): _escape_breaks(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape_breaks(item) for item in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and "\x85" in value else value


def recipe_hash(recipe: Recipe) -> str:
    """First 16 hex digits of the sha256 of `recipe_text`, without the keys that decide nothing about the result."""
    fields = recipe_fields(recipe)
    for key in WATCHING:
        section, name = key.split(".")
        if section in fields:
            fields[section].pop(name, None)
    return hashlib.sha256(_to_text(fields).encode()).hexdigest()[:16]


def run_folder(recipe_path: Path) -> Path:
    """Where a run goes unless --out says otherwise: runs/<the recipe's folder>/<its stem>, in the current folder."""
    return Path("runs") / recipe_path.resolve().parent.name / recipe_path.stem


def marked_text(recipe: Recipe, given: Node) -> str:
    """The resolved recipe with `# default` behind each value that the file does not give."""
    text = recipe_text(recipe)
    root, _ = read_text(text, Origin("resolved", tuple(text.splitlines())))
    lines = text.splitlines()
    for line in _default_lines(root, given):
        lines[line] += "  # default"
    return "\n".join(lines)


def _default_lines(node: Node, given: Node | None) -> Iterator[int]:
    """Lines of the scalars and empty values below `node` that stand nowhere in `given`."""
    below = node.children or dict(enumerate(node.items or ()))
    if not below and given is None:
        yield node.place.line
    for name, child in below.items():
        yield from _default_lines(child, node_at(given, (name,)) if given is not None else None)
