"""The stages of a pipeline as they stand on disk: which are done, which must be run, and why.

A stage is done when its run is verified, of exactly its recipe, and made from the parents and the local data that are there
now. Parents are compared by the hashes of their receipts, data by the content of its files; no times decide over a finished run.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignment.errors import DataError, RecipeError
from alignment.launch.inputs import changed_data, describe_missing, find_missing
from alignment.recipe.loader import read_recipe, report
from alignment.recipe.pipeline import Pipeline, find_order_mistakes
from alignment.recipe.resolved import run_folder
from alignment.recipe.schema import Recipe
from alignment.report.parents import find_run_dir, named_parents
from alignment.report.receipt import RECEIPT
from alignment.report.run_files import RECIPE
from alignment.train.run_folder import find_differences, find_stale_parents, is_finished

_NUM_SHOWN = 3


@dataclass(frozen=True)
class Stage:
    """One recipe of a pipeline and its run folder."""

    recipe_path: Path
    recipe: Recipe
    run_dir: Path

    @property
    def name(self) -> str:
        """What its results are filed under."""
        return self.run_dir.name

    @property
    def is_finished(self) -> bool:
        """Whether the run folder holds the verified result of exactly this recipe."""
        return is_finished(self.recipe, self.run_dir)


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a stage."""

    action: Literal["done", "new", "resume", "anew"]
    reason: str = ""  # of `anew`


def load_stages(pipeline: Pipeline) -> list[Stage]:
    """All recipes of a pipeline, read before anything starts.

    Raises:
        RecipeError: all mistakes of all recipes and of their order.
    """
    reads = {path: read_recipe(path) for path in pipeline.recipes}
    wrong = [report(path, read.mistakes) for path, read in reads.items() if read.recipe is None]
    if wrong:
        raise RecipeError("\n".join(wrong))
    order = [mistake for mistake in find_order_mistakes(pipeline, reads) if mistake.level == "error"]
    if order:
        raise RecipeError(report(pipeline.path, order))
    return [Stage(path, read.recipe, run_folder(path)) for path, read in reads.items()]


def check_stages(stages: Collection[Stage], study: Path, *, fresh: bool) -> None:
    """Names what would stop the pipeline later on.

    Raises:
        DataError, RecipeError: inputs that are not there and that no earlier stage makes.
        RecipeError: a run folder holds a run of another recipe, and `fresh` does not set it aside.
    """
    made: list[Path] = []
    missing = []
    for stage in stages:
        missing += find_missing(stage.recipe_path, stage.recipe, made)
        made.append(stage.run_dir)
    if missing:
        kind = DataError if any(one.is_data for one in missing) else RecipeError
        raise kind(describe_missing(missing, study))
    changed = [] if fresh else [text for stage in stages if (text := _describe_change(stage))]
    if changed:
        raise RecipeError(
            "\n".join(changed)
            + "\nRuns of these recipes as they are were expected; nothing was started. Train a changed one anew with "
            "`alignment train RECIPE --fresh`, which sets its old run aside, and give this command again; or give --fresh here, "
            "for all stages."
        )


def _describe_change(stage: Stage) -> str | None:
    if not (stage.run_dir / RECIPE).is_file():
        return None
    differences = find_differences(stage.run_dir / RECIPE, stage.recipe)
    shown = "; ".join(differences[:_NUM_SHOWN]) + ("; ..." if len(differences) > _NUM_SHOWN else "")
    return f"{stage.run_dir}: a run of another {stage.recipe_path} ({shown})" if differences else None


def judge_stage(stage: Stage) -> Verdict:
    """What is to be done with a stage, once those before it are done."""
    if not (stage.run_dir / RECIPE).is_file():
        return Verdict("new")
    if stage.is_finished:
        if stale := find_stale_parents(stage.recipe, stage.run_dir):
            return Verdict("anew", f"{stale[0].path} was made anew since")
        if data := changed_data(stage.recipe, stage.recipe_path.parent, stage.run_dir):
            return Verdict("anew", f"{data} has changed since")
        return Verdict("done")
    # What an unfinished run began with is written nowhere: its parent must be older than its beginning.
    began = (stage.run_dir / RECIPE).stat().st_mtime
    for _, name in named_parents(stage.recipe):
        run_dir = find_run_dir(name)
        if run_dir is not None and (run_dir / RECEIPT).stat().st_mtime > began:
            return Verdict("anew", f"{name} was made anew since it began")
    return Verdict("resume")
