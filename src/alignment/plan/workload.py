"""How much a recipe asks for: rows, tokens, steps, and the shapes of its passes. From prepared rows where there are, else as stated."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignment.data.prepare import Prepared, prepare
from alignment.errors import AlignmentError, RecipeError
from alignment.plan.dry_run import Shape
from alignment.recipe.places import means_local_data, place_data
from alignment.recipe.schedule import Schedule, make_rollout_schedule, make_schedule, row_order
from alignment.recipe.schema import Recipe
from alignment.train.prepare import load_recipe_tokenizer
from alignment.train.run_folder import prepared_folder
from alignment.train.token_counts import count_row_tokens, list_lengths

EVAL_ROWS = 8


@dataclass(frozen=True)
class Workload:
    """The steps of a run and what passes through the model.

    Attributes:
        tokens: without padding, of all steps; of ppo prompts and completions of all updates.
        positions: with padding, as if `train/passes.py` saved none of them.
        longest: of a training pass.
        known_from: in words, where rows and lengths are from.
        is_bound: lengths are at their limit because nobody knows them.
    """

    schedule: Schedule
    tokens: int
    positions: int
    longest: Shape
    known_from: str
    is_bound: bool


def read_workload(
    recipe: Recipe,
    recipe_path: Path,
    run_dir: Path,
    num_processes: int,
    *,
    rows: int | None,
    tokens_per_row: int | None,
) -> Workload:
    """Of a recipe on so many processes.

    Args:
        rows, tokens_per_row: as the user states them, for rows that are not here.

    Raises:
        RecipeError: the number of rows decides the steps, and nobody knows it.
    """
    if rows is None and tokens_per_row is None:
        prepared = find_prepared(recipe, recipe_path, run_dir)
        if prepared is not None:
            return _of_prepared(recipe, prepared, num_processes)
    return _as_stated(recipe, num_processes, rows, tokens_per_row, _find_missing(recipe, recipe_path))


def find_prepared(recipe: Recipe, recipe_path: Path, run_dir: Path) -> Prepared | None:
    """The rows, prepared now where everything they are made of is on this disk; None where it is not.

    Raises:
        RecipeError, DataError: rows that training would refuse too, as `prepare` raises them.
    """
    recipe_dir = recipe_path.resolve().parent
    if not all(place_data(source.path, recipe_dir).exists() for source in (*recipe.data.train, *recipe.data.eval)):
        return None
    try:
        tokenizer = load_recipe_tokenizer(recipe)
    except AlignmentError:
        return None  # no tokenizer yet: a stage before this one makes it, or the Hub has it
    return prepare(recipe, tokenizer, recipe_dir=recipe_dir, cache_dir=prepared_folder(run_dir))


def _find_missing(recipe: Recipe, recipe_path: Path) -> list[str]:
    """Local sources that are not on this disk: forgotten, misspelt, made by a run before this one, or on the cluster that is planned for."""
    paths = [source.path for source in (*recipe.data.train, *recipe.data.eval)]
    recipe_dir = recipe_path.resolve().parent
    return [path for path in paths if means_local_data(path) and not place_data(path, recipe_dir).exists()]


def _make_schedule(recipe: Recipe, num_rows: int, num_processes: int) -> Schedule:
    if recipe.stage == "ppo":
        return make_rollout_schedule(recipe, num_rows, num_processes)
    return make_schedule(recipe.train, num_rows, num_processes)


# ------------------------------------------------------------------------------------------------ rows that are here


def _of_prepared(recipe: Recipe, prepared: Prepared, num_processes: int) -> Workload:
    schedule = _make_schedule(recipe, len(prepared.train), num_processes)
    known = f"{len(prepared.train):,} prepared rows"
    if recipe.stage == "ppo":
        prompts = list_lengths(prepared.train, "prompt_ids")
        longest = int(prompts.max()) + recipe.ppo.max_new_tokens
        tokens = int((prompts.mean() + recipe.ppo.max_new_tokens) * schedule.num_positions)
        shape = Shape(schedule.per_device_batch_size, longest, int(prompts.max()))
        return Workload(schedule, tokens, tokens, shape, f"{known}, completions of full length", is_bound=True)
    packed = prepared.manifest["packing"]
    lengths = count_row_tokens(prepared.train)
    order = row_order(schedule, recipe.seed, None if packed else lengths)
    pairs = recipe.stage in ("reward", "dpo")
    width = _padded_lengths(prepared, recipe) if pairs else lengths
    passes = width[order].reshape(-1, schedule.per_device_batch_size)
    widest = passes.max(axis=1)
    positions = int(widest.sum()) * schedule.per_device_batch_size * (2 if pairs else 1)
    prompt = int(list_lengths(prepared.train, "prompt_ids").max()) if pairs else 0
    longest = int(widest.max())
    shape = Shape(schedule.per_device_batch_size, longest, min(prompt, longest - 1))
    return Workload(schedule, int(lengths[order].sum()), positions, shape, known, is_bound=False)


def _padded_lengths(prepared: Prepared, recipe: Recipe) -> np.ndarray:
    """Tokens of the longer side of each pair."""
    sides = [list_lengths(prepared.train, f"{side}_ids") for side in ("chosen", "rejected")]
    return list_lengths(prepared.train, "prompt_ids") + np.maximum(*sides)


# ------------------------------------------------------------------------------------------------ rows that are not


def _as_stated(
    recipe: Recipe, num_processes: int, rows: int | None, tokens_per_row: int | None, missing: Sequence[str] = ()
) -> Workload:
    stated = rows or _rows_of_sources(recipe)
    length = recipe.data.max_length
    packed = getattr(recipe.data, "packing", False)
    mean = min(tokens_per_row or length, length)
    known = f"{stated:,} rows" if stated else "no number of rows"
    how = "as given" if rows else "as the sources state" if stated else "the steps are given"
    if packed and stated is not None:
        stated = math.ceil(stated * mean / length)  # rows of max_length tokens, as packing leaves them
        how += f", packed into {stated:,}" if mean < length else ""
    if stated is None and recipe.train.max_steps is None:
        raise RecipeError(
            "data.train: its rows are not on this disk and their number decides the steps; --rows N was expected (and --tokens_per_row N for "
            "their mean length). Or run `alignment prepare` where the data are."
        )
    schedule = _make_schedule(recipe, stated or recipe.train.max_steps * recipe.train.global_batch_size, num_processes)
    if recipe.stage == "ppo":
        longest, prompt = length + recipe.ppo.max_new_tokens, length
        mean = mean + recipe.ppo.max_new_tokens
    else:
        longest, prompt = length, length // 2
    sides = 2 if recipe.stage in ("reward", "dpo") else 1
    tokens = schedule.num_positions * (length if packed else mean) * sides
    bound = tokens_per_row is None and not (packed and recipe.train.max_steps)
    return Workload(
        schedule,
        tokens=tokens,
        positions=tokens,
        longest=Shape(schedule.per_device_batch_size, longest, prompt),
        known_from=f"{known}, {how}"
        + ("; every row of max_length" if bound else "")
        + (f"; not on this disk: {', '.join(missing)}" if missing else ""),
        is_bound=bound,
    )


def _rows_of_sources(recipe: Recipe) -> int | None:
    """Their sum where every source states its rows."""
    numbers = [source.rows for source in recipe.data.train]
    if recipe.data.__class__.__name__ != "PromptDataSpec" and getattr(recipe.data, "total", None):
        return recipe.data.total if recipe.data.share_of == "rows" else None
    return sum(numbers) if all(numbers) else None
