"""One training run from prepared rows to a verified final/, shared by every training stage.

A stage opens a `Training`, builds its model and trainer, and hands both to `complete`. Which trainer that is, and what
its loss is, stays in the stage; how a run begins, resumes, ends and proves itself is here and nowhere else.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from alignment.data.prepare import Prepared, load_prepared
from alignment.models.load import Start, resolve_start
from alignment.models.tokenizer import load_tokenizer
from alignment.recipe.schedule import Schedule, make_rollout_schedule, make_schedule, row_order
from alignment.recipe.schema import Recipe
from alignment.train.callbacks import FiniteGate, RunLog, SpikeWatch
from alignment.train.collate import TokenCollator
from alignment.train.console import Console
from alignment.train.context import StageContext
from alignment.train.memory import fit_recipe
from alignment.train.precision import resolve_bf16
from alignment.train.token_counts import PlannedTokens, count_row_tokens
from alignment.train.tracking import open_tracker

INITIAL = "initial"  # in the run folder: the weights of a new model, before training


@dataclass(frozen=True)
class Training:
    """Everything that is settled before a model is loaded."""

    recipe: Recipe
    fitted: Recipe  # with the batches that this run's memory was found to hold; for their sizes alone
    context: StageContext
    prepared: Prepared
    tokenizer: PreTrainedTokenizerBase
    schedule: Schedule
    start: Start
    bf16: bool
    order: np.ndarray  # row of the prepared rows at each position, int64 [num_positions]
    train_rows: Dataset  # in training order, one entry a position
    eval_rows: Dataset | None
    log: RunLog
    begun: float
    notes: list[str] = field(default_factory=list)  # what a run did on its own account, for the receipt

    @property
    def callbacks(self) -> list:
        """What every trainer gets."""
        on_spike = self.recipe.train.on_loss_spike
        watches = [] if on_spike == "ignore" else [SpikeWatch(self.context.run_dir, stop=on_spike == "stop")]
        return [FiniteGate(), *watches, self.log]


def open_training(recipe: Recipe, context: StageContext) -> Training:
    """Loads what `prepare` left, derives the schedule and puts the rows in training order.

    Raises:
        RecipeError: the global batch does not divide over this number of processes.
        DataError: there are fewer rows than one global batch.
    """
    begun = time.perf_counter()
    set_seed(recipe.seed)
    prepared = load_prepared(context.prepared_folder)
    fitted = fit_recipe(recipe, context)
    schedule = _make_schedule(fitted, len(prepared.train), context.world_size)
    # A rollout's prompts keep their order: the completions drawn for them depend on it.
    by_length = recipe.stage != "ppo" and not prepared.manifest["packing"]
    order = row_order(schedule, recipe.seed, count_row_tokens(prepared.train) if by_length else None)
    return Training(
        recipe=recipe,
        fitted=fitted,
        context=context,
        prepared=prepared,
        tokenizer=load_tokenizer(prepared.folder / "tokenizer"),
        schedule=schedule,
        start=_find_start(recipe, context),
        bf16=resolve_bf16(recipe.train.bf16),
        order=order,
        train_rows=prepared.train.select(order),
        eval_rows=prepared.eval if prepared.eval is not None and len(prepared.eval) else None,
        log=_open_log(recipe, context, prepared, schedule, order),
        begun=begun,
    )


def _make_schedule(recipe: Recipe, num_rows: int, world_size: int) -> Schedule:
    if recipe.stage == "ppo":
        return make_rollout_schedule(recipe, num_rows, world_size)
    return make_schedule(recipe.train, num_rows, world_size)


def _find_start(recipe: Recipe, context: StageContext) -> Start:
    if recipe.model.path is not None:
        return resolve_start(recipe.model.path, recipe.model.revision)
    return resolve_start(str(context.run_dir / INITIAL))


def make_collator(training: Training, model: PreTrainedModel) -> TokenCollator:
    """Padding or packing of rows of tokens, as the model's attention kernel wants it."""
    manifest = training.prepared.manifest
    flat = model.config._attn_implementation.startswith("flash_attention")
    return TokenCollator(manifest["pad_id"], packed=manifest["packing"], flatten=manifest["packing"] and flat)


def _open_log(
    recipe: Recipe, context: StageContext, prepared: Prepared, schedule: Schedule, order: np.ndarray
) -> RunLog:
    tracker = None
    if context.report_to and context.rank == 0:
        name = f"{context.run_dir.parent.name}/{context.run_dir.name}"
        tracker = open_tracker(context.report_to, context.run_dir, name)
    return RunLog(
        Path(context.run_dir) / "metrics.jsonl",
        # Of completions nobody knows before they are made: the stage puts its own count here.
        tokens=None if recipe.stage == "ppo" else PlannedTokens(prepared.train, order, schedule.steps),
        epochs_per_step=schedule.epochs / schedule.steps,
        console=Console(context.rank == 0),
        tracker=tracker,
    )
