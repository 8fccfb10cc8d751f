"""Out of memory: the micro-batch shrinks and accumulation grows, so the global batch and the row order stay as they are."""

import gc
import logging

import torch

from alignment.errors import LaunchError
from alignment.recipe.schedule import Schedule
from alignment.recipe.schema import Recipe
from alignment.train.context import StageContext
from alignment.train.incidents import add_incident, read_incidents

logger = logging.getLogger(__name__)
SIZE = "per_device_train_batch_size"
# What the CPU allocator of torch 2.13 says, in a plain RuntimeError.
_CPU_WORDS = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")


class MicroBatchTooLarge(LaunchError):
    """The next start of this run takes a smaller micro-batch, which is noted in its folder."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_WORDS)


def smaller_size(schedule: Schedule, world_size: int) -> int | None:
    """The largest micro-batch of at most half the size that still divides the global batch; None below one row."""
    sizes = range(schedule.per_device_batch_size // 2, 0, -1)
    return next((size for size in sizes if schedule.global_batch_size % (size * world_size) == 0), None)


def shrink(schedule: Schedule, context: StageContext) -> MicroBatchTooLarge | LaunchError:
    """Notes a smaller micro-batch for the next start, and returns what to raise."""
    size, now = smaller_size(schedule, context.world_size), schedule.per_device_batch_size
    if size is None:
        return LaunchError(
            f"memory ran out with {now} row(s) in a forward pass, which cannot be fewer. Lower data.max_length, "
            "set train.gradient_checkpointing, train with LoRA, or shard with zero3 or fsdp2."
        )
    note = (
        f"Memory ran out with {now} rows in a forward pass of one process; {size} are taken since, with "
        f"{schedule.global_batch_size // (size * context.world_size)} passes a step. The global batch is still {schedule.global_batch_size}."
    )
    add_incident(context.run_dir, note, **{SIZE: size})
    return MicroBatchTooLarge(f"{note} The same command goes on.")


def free_memory() -> None:
    """Lets go of what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fit_recipe(recipe: Recipe, context: StageContext) -> Recipe:
    """The recipe with the micro-batch that this run's memory was found to hold; for its schedule alone."""
    size = read_incidents(context.run_dir).get(SIZE)
    if size is None or size >= recipe.train.per_device_train_batch_size:
        return recipe
    if context.rank == 0:
        logger.info("micro-batches of %d rows, as memory ran out with more; the global batch is the recipe's", size)
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={SIZE: size})})
