"""Every recipe of the repository, rehearsed under the strategy that its study names; what held is noted for the gallery's table.

`python -m alignment.launch.rehearse.gallery` writes recipes/rehearsed.json (`make rehearse`). A line there counts for exactly the
files that it was made from: `alignment.gallery` compares their hash.
"""

import datetime
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from alignment.gallery import (
    EVIDENCE,
    RECIPES_FOLDER,
    TABLE,
    find_shipped,
    hash_recipe_files,
    make_table,
    read_evidence,
)
from alignment.launch.rehearse.page import describe, format_summary, write_files
from alignment.launch.rehearse.rehearsal import Rehearsal, rehearse
from alignment.recipe.loader import load_recipe
from alignment.recipe.pipeline import is_pipeline

_COMMAND = re.compile(r"alignment (?:run|train) recipes/(\S+)[^\n]*?--accelerate_config (\w+)")


def find_recipes(gallery: Path) -> list[Path]:
    """All recipes of all studies that have something to rehearse."""
    files = [
        path for path in sorted(gallery.glob("*/*.yaml")) if path.parent.name != "mixtures" and not is_pipeline(path)
    ]
    return [path for path in files if load_recipe(path).stage != "curate"]


def find_strategy(recipe_path: Path) -> str:
    """The launcher config that the study's README starts this recipe with; that of the study where it names the recipe nowhere."""
    readme = recipe_path.parent / TABLE
    commands = _COMMAND.findall(readme.read_text(encoding="utf-8")) if readme.is_file() else []
    study = recipe_path.parent.name
    for wanted in (f"{study}/{recipe_path.name}", study):
        for target, config in commands:
            if target == wanted:
                return config
    return commands[0][1] if commands else "ddp"


def rehearse_all(paths: Sequence[Path], gallery: Path) -> list[Rehearsal]:
    """Rehearses recipes one after the other, and notes each that holds as soon as it does."""
    results = []
    for path in paths:
        result = rehearse(path, accelerate_config=find_strategy(path))
        write_files(result)
        note(result, gallery)
        print(describe(result), flush=True)
        results.append(result)
    return results


def note(result: Rehearsal, gallery: Path) -> None:
    """Writes what held into the evidence, or takes out what no longer does."""
    name = str(result.recipe_path.relative_to(gallery))
    evidence = read_evidence(gallery)
    evidence.pop(name, None)
    if result.code == 0:
        evidence[name] = {
            "hash": hash_recipe_files(result.recipe_path),
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "strategy": result.strategy,
            "proven": [step.name for step in result.steps],
            "not_proven": [remark.what for remark in result.remarks],
        }
    known = {path: facts for path, facts in sorted(evidence.items()) if (gallery / path).is_file()}
    temporary = gallery / f"{EVIDENCE}.tmp"
    temporary.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, gallery / EVIDENCE)


def main(argv: Sequence[str]) -> int:
    """Rehearses the recipes that are named, or all, and writes evidence and table."""
    gallery = Path(os.path.relpath(find_shipped(RECIPES_FOLDER)))
    paths = [gallery / name for name in argv] or find_recipes(gallery)
    results = rehearse_all(paths, gallery)
    (gallery / TABLE).write_text(make_table(gallery), encoding="utf-8")
    print(f"\n{format_summary(results)}")
    return next((result.code for result in results if result.code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
