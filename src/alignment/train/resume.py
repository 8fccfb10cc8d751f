"""Which checkpoint a run goes on from, and whether this launch can: what it would lose is refused by name.

What the engines can read of each other (measured, transformers 5.23, accelerate 1.15, DeepSpeed 0.19): one process and DDP
write the same files for any number of processes; FSDP2's are whole, for any number of FSDP2 processes; ZeRO's optimizer shards
are for exactly as many processes of the same stage, and are left out without a word by everything else.
"""

import logging
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from alignment.errors import LaunchError
from alignment.recipe.resolved import recipe_hash
from alignment.train import seal
from alignment.train.context import StageContext
from alignment.train.guard import CHECKPOINTS
from alignment.train.training import Training

logger = logging.getLogger(__name__)
# Strategies that read each other's checkpoints, and whether with another number of processes.
_FAMILIES = {
    "single": ("replicated", True),
    "ddp": ("replicated", True),
    "fsdp2": ("fsdp2", True),
    "zero1": ("zero1", False),
    "zero2": ("zero2", False),
    "zero3": ("zero3", False),
}


def find_checkpoint(training: Training) -> Path | None:
    """The newest checkpoint that verifies, the same on every rank; None to begin at step 0. Every rank must call it.

    Raises:
        LaunchError: it is of a launch whose checkpoints this one cannot read whole.
    """
    context = training.context
    found: list[Any] = [None, None]
    if context.rank == 0:
        path = seal.find_newest(context.run_dir / CHECKPOINTS)
        found = [path and str(path), path and find_obstacle(training, seal.read_seal(path), path)]
        if path is not None and found[1] is None:
            _say(seal.read_seal(path), context, path)
    if context.world_size > 1:
        broadcast_object_list(found)
    if found[1] is not None:
        raise LaunchError(found[1])
    return Path(found[0]) if found[0] else None


def find_obstacle(training: Training, sealed: dict[str, Any], path: Path) -> str | None:
    """Why a launch cannot go on from a verified checkpoint; None when it can."""
    context = training.context
    (there, _), (here, any_number) = _FAMILIES[sealed["strategy"]], _FAMILIES[context.strategy]
    theirs, ours = _describe(sealed["strategy"], sealed["world_size"]), _describe(context.strategy, context.world_size)
    if there != here or (not any_number and sealed["world_size"] != context.world_size):
        return (
            f"{path}: written by {theirs}, and this is {ours}, which would go on without its optimizer states. Launch it as {theirs}, "
            "or give --fresh to train anew."
        )
    if sealed["recipe_hash"] != recipe_hash(training.recipe):
        return (
            f"{path}: of recipe {sealed['recipe_hash']}, and this is {recipe_hash(training.recipe)}; the same recipe was expected. Give "
            "--fresh to train anew."
        )
    return None


def _describe(strategy: str, world_size: int) -> str:
    return (
        "one process" if strategy == "single" else f"{strategy} on {world_size} process{'es' if world_size > 1 else ''}"
    )


def _say(sealed: dict[str, Any], context: StageContext, path: Path) -> None:
    logger.info("going on from %s, which verifies", path)
    if sealed["world_size"] != context.world_size:
        logger.warning(
            "it was written by %d process(es) and goes on with %d: rows and optimizer states are the same; sums are rounded "
            "otherwise, and dropout draws other numbers",
            sealed["world_size"],
            context.world_size,
        )
