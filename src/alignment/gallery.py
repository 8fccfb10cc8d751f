"""The recipes and launcher configs that come with the package, and the table of the studies among them.

A wheel carries `recipes/` and `accelerate_configs/` inside the package; a checkout has them at its root. Nothing here runs a
recipe. `python -m alignment.gallery` writes recipes/README.md anew (`make gallery`); tests/test_recipes.py holds it fresh.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.recipe.loader import load_recipe
from alignment.recipe.locate import node_at, read_nodes
from alignment.recipe.mixtures import find_mixture
from alignment.recipe.pipeline import FILE_NAME, load_pipeline
from alignment.recipe.places import RUNS
from alignment.recipe.schema import Recipe

RECIPES_FOLDER = "recipes"
TABLE = "README.md"
EVIDENCE = "rehearsed.json"  # of each recipe that was rehearsed, the hash of its files, when and how
CURATION = "curate.yaml"
UNKNOWN = "unknown"
PARTS = ("What and why", "Commands", "Expected results", "What did not work", "Data and licence")
STATUSES = ("checked", "rehearsed", "trained")
_HARDWARE = re.compile(r"^Hardware: (.+?)\.(?:\s|$)", re.MULTILINE)
_STATUS = re.compile(rf"Status: ({'|'.join(STATUSES)}), (\d{{4}}-\d{{2}}-\d{{2}})\.")
_INTRODUCTION = """# Recipes

One folder a study: a file for each stage, `pipeline.yaml`, which runs them in order, and a README. Each recipe says where its
values were read and what differs. Start one of your own with `alignment new my-study --from zephyr-7b`.

Status: *checked* passes `alignment check`; *rehearsed* has also trained a shrunken model for a few steps under its launcher
config, as `rehearsed.json` notes of all its recipes as they are now (`make rehearse`); *trained* has been run as it stands, with its
results in its README.

"""


@dataclass(frozen=True)
class Study:
    """A folder of the gallery, as its files say it."""

    folder: Path
    recipes: tuple[Recipe, ...]  # of all its pipelines, in order
    hardware: str
    status: str
    date: str

    @property
    def bases(self) -> list[str]:
        """Hub models that its stages start from; `new weights` for a config."""
        found = []
        for recipe in self.recipes:
            model = recipe.model if "model" in type(recipe).model_fields else None
            if model is not None and model.path is None:
                found.append("new weights")
            elif model is not None and not model.path.startswith("runs/"):
                found.append(model.path)
        return list(dict.fromkeys(found))

    @property
    def data(self) -> list[str]:
        """Hub ids of its sources; `own` for files that its maker writes."""
        paths = [source.path for recipe in self.recipes for source in getattr(recipe.data, "train", ())]
        paths = [path for path in paths if not path.startswith(RUNS)]  # the recipe that makes it names its own
        return list(
            dict.fromkeys(path if "/" in path and not path.startswith((".", "data/")) else "own" for path in paths)
        )


def find_shipped(name: str) -> Path | None:
    """The folder `name` that comes with this package; None where it was not installed with one."""
    package = Path(__file__).resolve().parent
    return next((folder for place in (package, package.parent.parent) if (folder := place / name).is_dir()), None)


def find_galleries() -> list[Path]:
    """Where a study's name is looked for: recipes/ in the current folder, then the one that comes with the package."""
    folders = [Path(RECIPES_FOLDER), find_shipped(RECIPES_FOLDER)]
    found = [folder for folder in folders if folder is not None and folder.is_dir()]
    return [
        folder for index, folder in enumerate(found) if folder.resolve() not in {one.resolve() for one in found[:index]}
    ]


def find_studies(gallery: Path) -> list[Path]:
    """The study folders of a gallery, by name."""
    return sorted(path.parent for path in gallery.glob(f"*/{FILE_NAME}"))


def read_study(folder: Path) -> Study:
    """What the table says about a study.

    Raises:
        RecipeError: a recipe or pipeline with mistakes.
    """
    pipelines = [load_pipeline(path) for path in sorted(folder.glob("pipeline*.yaml"), key=lambda path: len(path.name))]
    # Curation has a command of its own and need not stand in a pipeline.
    curation = [folder / CURATION] if (folder / CURATION).is_file() else []
    paths = dict.fromkeys([*curation, *(path for pipeline in pipelines for path in pipeline.recipes)])
    readme = (folder / TABLE).read_text(encoding="utf-8") if (folder / TABLE).is_file() else ""
    hardware, claimed = _HARDWARE.search(readme), _STATUS.search(readme)
    status, date = (claimed[1], claimed[2]) if claimed else (UNKNOWN, "")
    rehearsed = _find_rehearsal(folder.parent, [path for path in paths if path.name != CURATION])
    if rehearsed and status != "trained":
        status, date = "rehearsed", rehearsed
    return Study(
        folder,
        tuple(load_recipe(path) for path in paths),
        hardware[1] if hardware else UNKNOWN,
        status,
        date,
    )


def read_evidence(gallery: Path) -> dict[str, dict[str, Any]]:
    """What was rehearsed: STUDY/RECIPE.yaml to hash, date, strategy, and what was and was not proven."""
    path = gallery / EVIDENCE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def hash_recipe_files(path: Path) -> str:
    """Of a recipe and the mixture and chat template that it names: the first 16 digits of the sha256 of their bytes."""
    root, _ = read_nodes(path)
    files = [path]
    for section, key in (("data", "mixture"), ("chat", "template")):
        node = node_at(root, (section, key))
        if node is None or not isinstance(node.value, str):
            continue
        if key == "mixture":
            files.append(find_mixture(node.value, path))
        elif node.value.endswith(".jinja"):
            files.append(path.parent / node.value)
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _find_rehearsal(gallery: Path, recipes: list[Path]) -> str | None:
    """The day on which the last of some recipes was rehearsed as it is now; None where one was not."""
    evidence = read_evidence(gallery)
    dates = []
    for path in recipes:
        facts = evidence.get(f"{path.parent.name}/{path.name}")
        if facts is None or facts["hash"] != hash_recipe_files(path):
            return None
        dates.append(facts["date"])
    return max(dates, default=None)


def make_table(gallery: Path) -> str:
    """The gallery's README: an introduction and a line for each study."""
    header = "| study | stages | base | data | hardware | status | date |\n|---|---|---|---|---|---|---|\n"
    return _INTRODUCTION + header + "".join(map(_make_row, map(read_study, find_studies(gallery))))


def _make_row(study: Study) -> str:
    name = study.folder.name
    cells = [
        f"[{name}]({name}/{TABLE})" if (study.folder / TABLE).is_file() else name,
        ", ".join(_describe_stages(study)),
        ", ".join(study.bases),
        _shorten(study.data),
        study.hardware,
        study.status,
        study.date,
    ]
    return "| " + " | ".join(cells) + " |\n"


def _describe_stages(study: Study) -> Iterator[str]:
    """Each stage once, with the ways it is there: all weights, LoRA, QLoRA."""
    ways: dict[str, list[str]] = {}
    for recipe in study.recipes:
        lora = recipe.lora if "lora" in type(recipe).model_fields else None
        way = "full" if lora is None else "QLoRA" if lora.load_in_4bit else "LoRA"
        ways.setdefault(recipe.stage, []).append(way)
    for stage, found in ways.items():
        several = dict.fromkeys(found)
        yield stage if list(several) == ["full"] else f"{stage} ({', '.join(several)})"


def _shorten(data: list[str], limit: int = 3) -> str:
    more = len(data) - limit
    return ", ".join(data[:limit]) + (f" and {more} more" if more > 0 else "")


def main() -> int:
    """Writes the table of the gallery in the checkout."""
    gallery = find_shipped(RECIPES_FOLDER)
    (gallery / TABLE).write_text(make_table(gallery), encoding="utf-8")
    print(gallery / TABLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
