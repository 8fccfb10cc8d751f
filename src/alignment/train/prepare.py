"""What must be on disk before a stage runs: prepared rows, and the first weights of a new model.

No process group is needed, and none should exist: preparing may take longer than a collective would wait.
"""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from alignment.data.prepare import Prepared, prepare
from alignment.errors import RecipeError
from alignment.models.build import write_initial_model
from alignment.models.load import resolve_start
from alignment.models.tokenizer import load_tokenizer
from alignment.recipe.schema import Recipe
from alignment.train.training import INITIAL


def prepare_run(recipe: Recipe, recipe_dir: Path, run_dir: Path, cache_dir: Path) -> Prepared:
    """Prepares the rows, and draws a new model's weights into RUN/initial. Every rank may call it; one does the work.

    Raises:
        AlignmentError: as `prepare`, `resolve_start` and `write_initial_model` raise it.
    """
    prepared = prepare(recipe, load_recipe_tokenizer(recipe), recipe_dir=recipe_dir, cache_dir=cache_dir)
    if recipe.stage == "pretrain" and recipe.model.config is not None:
        write_initial_model(
            recipe.model.config,
            load_tokenizer(prepared.folder / "tokenizer"),
            seed=recipe.seed,
            max_length=recipe.data.max_length,
            folder=run_dir / INITIAL,
        )
    return prepared


def load_recipe_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase | None:
    """The tokenizer that a recipe names, or its model's; None for the stage that makes one.

    Raises:
        RecipeError: a recipe of the stage that has no model and no tokenizer.
    """
    if recipe.stage == "curate":
        raise RecipeError(
            "stage curate: it trains nothing and encodes nothing. Run `alignment curate RECIPE --out DIR`."
        )
    if recipe.stage == "tokenizer":
        return None
    if "tokenizer" in type(recipe).model_fields and recipe.tokenizer.path:
        folder = Path(recipe.tokenizer.path).expanduser()
        return load_tokenizer(folder / "final" if (folder / "final").is_dir() else recipe.tokenizer.path)
    start = resolve_start(recipe.model.path, recipe.model.revision)
    return load_tokenizer(start.tokenizer, start.revision, trust_remote_code=recipe.model.trust_remote_code)
