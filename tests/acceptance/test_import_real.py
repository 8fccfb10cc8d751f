"""Real recipes of other projects: how many become recipes that pass check. The numbers are printed by `pytest -rP`."""

import os
from pathlib import Path

import pytest

from alignment.commands.check import check_files
from alignment.convert.convert import convert_file
from alignment.convert.options import Options
from alignment.errors import RecipeError

pytestmark = pytest.mark.acceptance
# Not text-only recipes of SFT, DPO, reward or pretraining: launchers, images, other stages, exports and inference.
OUTSIDE = (
    "a launcher config",
    "a recipe for images",
    "do_train is not set",
    "there is no kto here",
    "export_lora",
    "tokens_cfg",
)


@pytest.mark.parametrize(("project", "least"), [("alignment-handbook", 0.9), ("llama-factory", 0.7), ("trl", 0.7)])
def test_most_recipes_convert_and_pass_check(project: str, least: float, tmp_path: Path) -> None:
    folder = Path(os.environ["ALIGNMENT_DATA"]) / "recipes" / project
    good, same, bad, outside = 0, 0, [], 0
    for number, path in enumerate(sorted(folder.rglob("*.yaml"))):
        try:
            made = convert_file(path, "recipe", Options(rows=100_000))
        except RecipeError as error:
            if any(word in str(error) for word in OUTSIDE):
                outside += 1
            else:
                bad.append(str(error))
            continue
        here = tmp_path / str(number)
        here.mkdir()
        for name, text in {"recipe.yaml": made.text, **made.files}.items():
            (here / name).write_text(text, encoding="utf-8")
        errors = check_files([here / "recipe.yaml"], [])[0].errors
        good += not errors
        same += not errors and not made.differs
        bad += [f"{path}: {errors[0].text()}"] if errors else []
    print(
        f"{project}: {good} of {good + len(bad)} convert and pass check ({same} without a difference); {outside} are no such recipes"
    )
    assert good / (good + len(bad)) >= least, bad
