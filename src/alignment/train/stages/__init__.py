"""One module a stage. Each has `run(recipe, context)`; a stage never imports another stage."""

import importlib

from alignment.recipe.schema import Recipe
from alignment.train.context import StageContext

STAGES: dict[str, str] = {
    "curate": "alignment.train.stages.curate",
    "tokenizer": "alignment.train.stages.tokenizer",
    "pretrain": "alignment.train.stages.pretrain",
    "sft": "alignment.train.stages.sft",
    "reward": "alignment.train.stages.reward",
    "dpo": "alignment.train.stages.dpo",
    "ppo": "alignment.train.stages.ppo",
    "evaluate": "alignment.train.stages.evaluate",
}


def run_stage(recipe: Recipe, context: StageContext) -> None:
    """Runs one stage in this process; under a launcher every rank calls it.

    Raises:
        AlignmentError: with the exit code of the command.
    """
    importlib.import_module(STAGES[recipe.stage]).run(recipe, context)
