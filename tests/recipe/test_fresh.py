"""What is derived from the schema is what `make schema` would write now."""

import json
from pathlib import Path

import pytest

from alignment.recipe.docs import DOCS_PATH, SCHEMA_PATH, derived_files, main
from alignment.recipe.schema import RECIPES
from alignment.recipe.shape import walk_fields


@pytest.mark.parametrize(("path", "text"), list(derived_files()), ids=lambda value: getattr(value, "name", ""))
def test_the_file_is_fresh(path: Path, text: str) -> None:
    assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run `make schema`"


def test_make_schema_writes_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment.recipe.docs.SCHEMA_PATH", tmp_path / "a.json")
    monkeypatch.setattr("alignment.recipe.docs.DOCS_PATH", tmp_path / "a.md")
    assert main() == 0
    assert (tmp_path / "a.json").read_text() == SCHEMA_PATH.read_text()
    assert (tmp_path / "a.md").read_text() == DOCS_PATH.read_text()


def test_every_key_of_every_stage_has_a_row_and_a_meaning() -> None:
    lines = DOCS_PATH.read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")]
        for line in lines
        if line.startswith("| `")
    ]
    assert all(len(row) == 5 and all(row) for row in rows), [row for row in rows if len(row) != 5 or not all(row)]
    keys = {row[0].strip("`") for row in rows}
    assert keys == {name for recipe in RECIPES.values() for _, name, _ in walk_fields(recipe)}


def test_the_schema_tells_stages_apart_and_refuses_unknown_keys() -> None:
    schema = json.loads(SCHEMA_PATH.read_text())
    assert schema["discriminator"]["propertyName"] == "stage"
    assert set(schema["discriminator"]["mapping"]) == set(RECIPES)
    objects = [entry for entry in schema["$defs"].values() if entry.get("type") == "object"]
    assert len(objects) > 20
    assert all(entry["additionalProperties"] is False for entry in objects)
    rate = schema["$defs"]["TrainSpec"]["properties"]["learning_rate"]
    assert rate == {"description": "peak learning rate", "exclusiveMinimum": 0, "type": "number"}
