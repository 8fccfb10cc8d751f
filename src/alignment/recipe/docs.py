"""Writes what is derived from the schema: `recipe.schema.json` for editors, and `docs/recipe.md`.

`make schema` runs this module; `tests/recipe/test_fresh.py` holds both files to it.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from alignment.errors import RecipeError
from alignment.recipe.curate_spec import StepSpec
from alignment.recipe.resolved import plain
from alignment.recipe.schema import RECIPES, Recipe
from alignment.recipe.shape import Kind, expected, field_kinds, model_types, walk_fields

SCHEMA_PATH = Path(__file__).with_name("recipe.schema.json")
DOCS_PATH = Path(__file__).parents[3] / "docs" / "recipe.md"
_SOURCE = "a source"
_METRIC = "a metric"
_REWARD = "a reward"
# Places whose keys are described once, under one heading.
_HEADINGS = {
    (): "top",
    ("data", "train", "[]"): _SOURCE,
    ("data", "eval", "[]"): _SOURCE,
    ("eval", "metrics", "[]"): _METRIC,
    ("evaluate", "metrics", "[]"): _METRIC,
    ("ppo", "rewards", "[]"): _REWARD,
    ("curate", "steps", "[]"): "a step",
    ("curate", "steps", "[]", "decontaminate", "evals", "[]"): "an evaluation set",
    **{("curate", "steps", "[]", name): name for name in StepSpec.model_fields},
}
_ORDER = (
    "top", "model", "model.config", "tokenizer", "lora", "chat", "data", _SOURCE, "train", "dpo", "reward", "ppo",
    "ppo.alerts", _REWARD, "eval", "evaluate", _METRIC,
    "curate", "curate.executor", "a step", "normalize", "exact_dedup", "language", "gopher_repetition", "gopher_quality",
    "c4", "fineweb", "near_dedup", "pii", "decontaminate", "balance", "an evaluation set",
)  # fmt: skip
_TITLES = {
    "top": "The top of a recipe",
    _SOURCE: "A source: an item of `data.train` or `data.eval`",
    _METRIC: "A metric: an item of `eval.metrics` or `evaluate.metrics`",
    _REWARD: "A programmatic reward: an item of `ppo.rewards`",
    "a step": "A step: an item of `curate.steps`",
    "an evaluation set": "An evaluation set: an item of `decontaminate.evals`",
}
_INTRO = """# Recipe keys

Generated from `src/alignment/recipe/schema.py` and the `*_spec.py` beside it by `make schema`; change it there. A recipe is one
YAML 1.2 file; a stage reads exactly the keys listed for it, and refuses every other. `alignment check RECIPE --resolved` shows the
value of each.

* `1e-5` is a number, `no` is text; numbers have no underscores. Anchors, aliases, tags and merge keys are refused.
* A key without a value is refused: `lora: {}` asks for LoRA with its defaults, no `lora` trains all weights.
* Data paths are relative to the recipe, `runs/...` to the current folder. `${NAME}` in a data path is an environment variable.
* Sources are written in block style, one `- ` each.

For completion in an editor, begin a recipe with
`# yaml-language-server: $schema=` and the path of `src/alignment/recipe/recipe.schema.json`.
"""


class _NoTitles(GenerateJsonSchema):
    """A key's name in capitals says nothing new."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schema_text() -> str:
    """The JSON schema of all recipes, told apart by `stage`."""
    recipes: Any = None
    for recipe in RECIPES.values():
        recipes = recipe if recipes is None else recipes | recipe
    schema = TypeAdapter(Annotated[recipes, Field(discriminator="stage")]).json_schema(schema_generator=_NoTitles)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "alignment recipe"}
    return json.dumps({**head, **schema}, indent=1, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------------ the tables


@dataclass(frozen=True)
class _Row:
    """A line of a table, without the stages that it holds for."""

    key: str
    type: str
    default: str
    meaning: str


def docs_text() -> str:
    """`docs/recipe.md`."""
    tables: dict[str, dict[_Row, list[str]]] = {heading: {} for heading in _ORDER}
    about: dict[str, str] = {}
    for stage, recipe in RECIPES.items():
        for path, name, section in walk_fields(recipe):
            heading = _HEADINGS.get(path, ".".join(path))
            about.setdefault(heading, _about(section))
            for_whom = model_types(section)[0] if model_types(section) else stage
            held_by = tables[heading].setdefault(_row(name, section), [])
            if for_whom not in held_by:
                held_by.append(for_whom)
    return "\n".join([_INTRO, *(_table(heading, about[heading], rows) for heading, rows in tables.items())])


def _table(heading: str, about: str, rows: dict[_Row, list[str]]) -> str:
    everybody = list(dict.fromkeys(name for held_by in rows.values() for name in held_by))
    column = "model_type" if heading == "model.config" else "stages"
    lines = [
        f"| `{row.key}` | {row.type} | {row.default} | {_names(rows[row], everybody)} | {row.meaning} |"
        for row in _order(heading, rows)
    ]
    head = [
        f"## {_TITLES.get(heading, f'`{heading}`')}",
        "",
        about,
        "",
        f"{column}: {', '.join(everybody)}.".capitalize(),
        "",
    ]
    return "\n".join([*head, f"| key | type | default | {column} | meaning |", "|---|---|---|---|---|", *lines, ""])


def _order(heading: str, rows: dict[_Row, list[str]]) -> list[_Row]:
    """Rows of one key together, in the order of the schema; what chooses the class comes first."""
    keys = ["stage", "model_type", "seed"] + (list(_ORDER) if heading == "top" else [])
    keys += [row.key for row in rows]
    return sorted(rows, key=lambda row: keys.index(row.key))


def _row(name: str, section: type[BaseModel]) -> _Row:
    field = section.model_fields[name]
    alternatives = field_kinds(section, name)
    inner = next((kind.section for kind in alternatives if kind.section), None)
    if name in ("stage", "model_type"):
        return _Row(name, "text", "required", "which stage this is" if name == "stage" else "the architecture")
    meaning = field.description or (_about(inner) if inner else "")
    return _Row(name, _escape(_type(alternatives)), _default(section, name), _escape(meaning))


def _type(alternatives: tuple[Kind, ...]) -> str:
    words = expected(alternatives)
    return "section" if words == "a mapping" else words.removeprefix("a ").removeprefix("one of ")


def _default(section: type[BaseModel], name: str) -> str:
    field = section.model_fields[name]
    if field.is_required():
        return "required"
    value = plain(
        field.default.model_dump(exclude_unset=True) if isinstance(field.default, BaseModel) else field.default
    )
    return "unset" if value is None else f"`{json.dumps(value)}`".replace('"', "")


def _names(held_by: list[str], everybody: list[str]) -> str:
    return "all" if held_by == everybody else ", ".join(held_by)


def _about(section: type[BaseModel]) -> str:
    if issubclass(section, Recipe):
        return "Which stage to run, and its sections."
    return "The architecture of a new model." if model_types(section) else (section.__doc__ or "").splitlines()[0]


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def derived_files() -> Iterator[tuple[Path, str]]:
    """Each file that comes from the schema, and its text."""
    yield SCHEMA_PATH, schema_text()
    yield DOCS_PATH, docs_text()


def main() -> int:
    """Writes both files. Raises RecipeError outside a checkout."""
    if not DOCS_PATH.parent.is_dir():
        raise RecipeError(f"{DOCS_PATH.parent}: no such folder; a checkout was expected. Run `make schema` in one.")
    for path, text in derived_files():
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
