"""How a measurement's rows become batches, and batches the work of ranks.

Every measurement goes through `map_batches`, so that evaluation mode, the split over processes and the order of the results
are right in one place. Nothing here knows what is measured.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled


class Progress:
    """Who wants to hear of every batch of a measurement: what watches over a training, so that a long one is no hang."""

    def __init__(self) -> None:
        self.tell: Callable[[], None] | None = None


PROGRESS = Progress()


def length_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row indices in batches of similar length, longest rows first (what does not fit in memory fails at once).

    The budget is the padded size of `batch_size` rows of the greatest length: batches of shorter rows hold more of them.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    budget = batch_size * max(max(lengths, default=1), 1)
    batches: list[list[int]] = []
    position = 0
    while position < len(order):
        size = budget // max(lengths[order[position]], 1)
        batches.append(order[position : position + size])
        position += size
    return batches


def is_sharded(model: PreTrainedModel) -> bool:
    """Whether a forward pass needs every rank (ZeRO-3, FSDP2)."""
    return is_deepspeed_zero3_enabled() or any(isinstance(module, FSDPModule) for module in model.modules())


def inner_model(model: PreTrainedModel) -> PreTrainedModel:
    """The transformers model below a PEFT wrapper, adapters included; of a model without one, itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def count_ranks() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """No dropout and no gradients; afterwards each module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def compute_in(model: PreTrainedModel, bf16: bool) -> torch.autocast:
    """Autocast to bfloat16 on the model's device, or nothing."""
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16)


def map_batches(
    model: PreTrainedModel, batches: Sequence[Sequence[int]], work: Callable[[int, Sequence[int]], list[Any]]
) -> list[Any]:
    """One result per row, in row order, on every rank. Every rank must call it with the same batches.

    Batches are dealt to the ranks in turn. A sharded model's forward needs all ranks the same number of times: there a rank
    that has no batch left in the last round works on the last one along with its owner.

    Args:
        batches: row indices; each row in one of them.
        work: (number of the batch, its row indices) to one picklable result per row; of a sharded model always in as many
            forward passes.
    """
    ranks = count_ranks()
    rank = dist.get_rank() if ranks > 1 else 0
    results: dict[int, Any] = {}
    with evaluation_mode(model):
        for number in range(rank, len(batches), ranks):
            results.update(zip(batches[number], work(number, batches[number]), strict=True))
            if PROGRESS.tell is not None:
                PROGRESS.tell()
        if is_sharded(model) and rank >= len(batches) % ranks > 0:
            work(len(batches) - 1, batches[-1])
    if ranks > 1:
        parts: list[dict[int, Any] | None] = [None] * ranks
        dist.all_gather_object(parts, results)
        results = {row: result for part in parts for row, result in part.items()}
    return [results[row] for row in sorted(results)]
