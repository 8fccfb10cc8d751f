"""Out of memory: the batch that did not fit is halved for the next start, whichever it was.

Of a micro-batch accumulation grows, so the global batch and the row order stay as they are; a measurement is the same in smaller batches;
the completions of a rollout are drawn batch by batch, so that smaller ones are other draws of the same policy.
"""

import contextlib
import gc
import logging
from collections.abc import Iterator

import torch

from alignment.errors import LaunchError
from alignment.recipe.schedule import Schedule
from alignment.recipe.schema import Recipe
from alignment.train.context import StageContext
from alignment.train.incidents import add_incident, read_sizes

logger = logging.getLogger(__name__)
# Keys of batches that can shrink, as incidents.json has them. The first stands there without its section.
SIZE = "per_device_train_batch_size"
EVALUATION = "eval.per_device_eval_batch_size"
EVALUATE = "evaluate.per_device_eval_batch_size"
ROLLOUT = "ppo.per_device_rollout_batch_size"
_KEPT = {
    EVALUATION: "What is measured is the same.",
    EVALUATE: "What is measured is the same.",
    ROLLOUT: "Its completions are drawn batch by batch, so from here on other ones are drawn than the recipe alone would draw.",
}
# What the CPU allocator of torch 2.13 says, in a plain RuntimeError.
_CPU_WORDS = ("can't allocate memory", "not enough memory", "DefaultCPUAllocator")


class BatchTooLarge(LaunchError):
    """The next start of this run takes smaller batches, which is noted in its folder."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _CPU_WORDS)


def smaller_size(schedule: Schedule, world_size: int) -> int | None:
    """The largest micro-batch of at most half the size that still divides the global batch; None below one row."""
    sizes = range(schedule.per_device_batch_size // 2, 0, -1)
    return next((size for size in sizes if schedule.global_batch_size % (size * world_size) == 0), None)


def shrink(schedule: Schedule, context: StageContext) -> BatchTooLarge | LaunchError:
    """Of a forward and backward pass: notes a smaller micro-batch for the next start, and returns what to raise."""
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
    return BatchTooLarge(f"{note} The same command goes on.")


@contextlib.contextmanager
def shrinking(key: str, size: int, context: StageContext) -> Iterator[None]:
    """Around passes without gradients: when memory runs out in them, half of their batch is noted for the next start.

    Args:
        key: EVALUATION, EVALUATE or ROLLOUT.
        size: rows in a pass now.

    Raises:
        BatchTooLarge, LaunchError: memory ran out; the latter with a single row.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if size == 1:
            raise LaunchError(
                f"memory ran out with 1 row in a pass without gradients ({key}), which cannot be fewer. Lower data.max_length or "
                "max_new_tokens, or shard with zero3 or fsdp2."
            ) from error
    else:
        return
    note = f"Memory ran out with {size} rows in a pass without gradients; {key} is {size // 2} since. {_KEPT[key]}"
    add_incident(context.run_dir, note, **{key: size // 2})
    raise BatchTooLarge(f"{note} The same command goes on.")


def free_memory() -> None:
    """Lets go of what a failed attempt held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fit_recipe(recipe: Recipe, context: StageContext) -> Recipe:
    """The recipe with the batches that this run's memory was found to hold; for the sizes of batches alone."""
    for key, size in read_sizes(context.run_dir).items():
        section, _, name = key.rpartition(".")
        section = section or "train"
        own = getattr(recipe, section)
        if size >= getattr(own, name):
            continue
        if context.rank == 0:
            logger.info("%s.%s is %d, as memory ran out with more", section, name, size)
        recipe = recipe.model_copy(update={section: own.model_copy(update={name: size})})
    return recipe
