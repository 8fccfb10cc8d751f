"""How many steps, which rows in which order: arithmetic that every process computes alike.

The epochs' permutations are laid end to end and cut into whole global batches, so the remainder of an epoch is carried
into the next one and only the very last incomplete batch is dropped. Neither the order nor the number of steps depends on
how many processes there are.
"""

from dataclasses import dataclass

import numpy as np

from alignment.errors import DataError, RecipeError
from alignment.recipe.schema import PpoRecipe
from alignment.recipe.train_spec import TrainSpec


@dataclass(frozen=True)
class Schedule:
    """The shape of one training run."""

    steps: int  # optimizer steps
    global_batch_size: int  # rows an optimizer step, over all processes
    per_device_batch_size: int  # rows a forward pass of one process
    accumulation: int  # forward passes an optimizer step
    num_rows: int
    epochs: float  # passes over the rows that the steps make
    dropped_rows: int  # rows of the last incomplete global batch
    warmup_steps: int

    @property
    def num_positions(self) -> int:
        """Rows consumed by all steps, repetitions counted."""
        return self.steps * self.global_batch_size


@dataclass(frozen=True)
class RolloutSchedule(Schedule):
    """The shape of a run that makes its own rows: each prompt is answered once, and each completion used in several steps."""

    updates: int
    rollouts: int  # completions of an update, over all processes
    steps_per_update: int

    @property
    def num_positions(self) -> int:
        """Prompts answered in all updates, repetitions counted."""
        return self.updates * self.rollouts


def make_rollout_schedule(recipe: PpoRecipe, num_rows: int, world_size: int) -> RolloutSchedule:
    """Derives updates, steps and accumulation for `world_size` processes.

    Raises:
        RecipeError: the global batch is not a whole number of forward passes on every process.
        DataError: the prompts do not fill one update.
    """
    train, ppo = recipe.train, recipe.ppo
    per_device, accumulation = split_batch(train, world_size)
    steps_per_update, rollouts = (
        ppo.num_ppo_epochs * ppo.num_mini_batches,
        train.global_batch_size * ppo.num_mini_batches,
    )
    wanted = (
        train.max_steps // steps_per_update * rollouts if train.max_steps else round(num_rows * train.num_train_epochs)
    )
    updates = wanted // rollouts
    if num_rows == 0 or updates == 0:
        raise DataError(
            f"data.train: {num_rows} prompts give {wanted} completions; at least one update of {rollouts} was expected. Lower "
            "train.global_batch_size or ppo.num_mini_batches, or add prompts."
        )
    return RolloutSchedule(
        steps=updates * steps_per_update,
        global_batch_size=train.global_batch_size,
        per_device_batch_size=per_device,
        accumulation=accumulation,
        num_rows=num_rows,
        epochs=updates * rollouts / num_rows,
        dropped_rows=wanted - updates * rollouts,
        warmup_steps=train.warmup_steps,
        updates=updates,
        rollouts=rollouts,
        steps_per_update=steps_per_update,
    )


def make_schedule(train: TrainSpec, num_rows: int, world_size: int) -> Schedule:
    """Derives steps and accumulation for `world_size` processes.

    Raises:
        RecipeError: the global batch is not a whole number of forward passes on every process.
        DataError: the rows do not fill one global batch.
    """
    per_device, accumulation = split_batch(train, world_size)
    wanted = train.max_steps * train.global_batch_size if train.max_steps else round(num_rows * train.num_train_epochs)
    steps = wanted // train.global_batch_size
    if num_rows == 0:
        raise DataError(
            f"data.train: 0 rows; at least one global batch of {train.global_batch_size} was expected. Correct the sources."
        )
    if steps == 0:
        raise DataError(
            f"data.train: {num_rows} rows x {train.num_train_epochs} epochs are {wanted}; at least one global batch of "
            f"{train.global_batch_size} was expected. Lower train.global_batch_size or add rows."
        )
    return Schedule(
        steps=steps,
        global_batch_size=train.global_batch_size,
        per_device_batch_size=per_device,
        accumulation=accumulation,
        num_rows=num_rows,
        epochs=steps * train.global_batch_size / num_rows,
        dropped_rows=wanted - steps * train.global_batch_size,
        warmup_steps=train.warmup_steps,
    )


def split_batch(train: TrainSpec, world_size: int) -> tuple[int, int]:
    """Rows a forward pass and passes a step. A batch smaller than one pass of every process shrinks the pass."""
    batch, per_device = train.global_batch_size, train.per_device_train_batch_size
    if batch % world_size == 0 and batch // world_size < per_device:
        per_device = batch // world_size
    if batch % (per_device * world_size):
        fitting = [size for size in range(per_device, 0, -1) if batch % (size * world_size) == 0]
        advice = (
            f"per_device_train_batch_size {fitting[0]} would" if fitting else f"no batch on {world_size} processes can"
        )
        raise RecipeError(
            f"train.global_batch_size: {batch} rows are not a whole number of passes of {per_device} rows on {world_size} "
            f"processes; a multiple of {per_device * world_size} was expected. Change it or the number of processes; {advice} divide it."
        )
    return per_device, batch // (per_device * world_size)


def row_order(schedule: Schedule, seed: int, lengths: np.ndarray | None = None) -> np.ndarray:
    """The row at each position, int64 [num_positions]. Epoch e is a permutation drawn from (seed, e).

    Args:
        lengths: tokens of each row, shape [num_rows]. Rows of one global batch then stand by length, the longest first: its
            passes, and the ranks that share a pass, pad little, and the batch is the same set of rows.
    """
    epochs = -(-schedule.num_positions // schedule.num_rows)
    orders = [
        np.random.Generator(np.random.PCG64([seed, epoch])).permutation(schedule.num_rows) for epoch in range(epochs)
    ]
    order = np.concatenate(orders)[: schedule.num_positions].astype(np.int64)
    if lengths is None:
        return order
    batches = order.reshape(-1, schedule.global_batch_size)
    by_length = np.argsort(-lengths[batches], axis=1, kind="stable")
    return np.take_along_axis(batches, by_length, axis=1).reshape(-1)
