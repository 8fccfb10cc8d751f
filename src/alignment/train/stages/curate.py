"""The curate stage: raw rows to clean rows in final/, every removed row with its reason, and the page of both."""

import json
import time
from pathlib import Path

from alignment.curate.require import require_extra
from alignment.recipe.schema import CurateRecipe
from alignment.report.curate_page import write_curate_page
from alignment.report.run_files import TIMES
from alignment.report.run_report import REPORT
from alignment.train.context import StageContext


def run(recipe: CurateRecipe, context: StageContext) -> None:
    """Does what is left. Rank 0 works; other ranks have nothing to do.

    Raises:
        LaunchError: the [curate] extra is not installed.
        AlignmentError: as `alignment.curate.run.curate` raises it.
    """
    if context.rank == 0:
        curate_into(recipe, context.recipe_path.resolve().parent, context.run_dir)


def curate_into(recipe: CurateRecipe, recipe_dir: Path, run_dir: Path) -> dict:
    """Curates into a run folder and returns the receipt, which is the same wherever and however often it is done."""
    require_extra()
    from alignment.curate.plan import make_plan
    from alignment.curate.run import curate

    begun = time.perf_counter()
    receipt = curate(make_plan(recipe, recipe_dir, run_dir))
    write_curate_page(receipt, run_dir / REPORT)
    # Beside the receipt, which holds no time.
    (run_dir / TIMES).write_text(json.dumps({"total": round(time.perf_counter() - begun, 2)}) + "\n", encoding="utf-8")
    return receipt
