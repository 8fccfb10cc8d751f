"""Which rows each forward pass of an update takes: the same mini-batches for any number of processes and any accumulation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_PURPOSE = 0x9D0  # no other draw from the seed uses this number


@dataclass(frozen=True)
class MicroBatch:
    """The rows of one forward pass of one rank, and the generated tokens of its whole mini-batch over all ranks."""

    rows: tuple[int, ...]
    num_tokens: int


def plan_update(
    row_lengths: Sequence[int],
    token_counts: Sequence[int],
    *,
    num_epochs: int,
    global_batch_size: int,
    per_device_batch_size: int,
    rank: int,
    world_size: int,
    seed: int,
    update: int,
) -> list[MicroBatch]:
    """One rank's forward passes in order.

    Every epoch is a permutation drawn from (seed, update, epoch), cut into mini-batches. Within one, rows are dealt out by
    length, so that ranks wait little for each other and little of a pass is padding; a sum over tokens does not see it.

    Args:
        row_lengths: tokens of each row, prompt included.
        token_counts: generated tokens of each row.
    """
    plan = []
    for epoch in range(num_epochs):
        generator = np.random.Generator(np.random.PCG64([seed, _PURPOSE, update, epoch]))
        order = generator.permutation(len(row_lengths)).tolist()
        for start in range(0, len(order), global_batch_size):
            mini_batch = order[start : start + global_batch_size]
            num_tokens = sum(token_counts[row] for row in mini_batch)
            mine = sorted(mini_batch, key=lambda row: (-row_lengths[row], row))[rank::world_size]
            plan += [
                MicroBatch(tuple(mine[first : first + per_device_batch_size]), num_tokens)
                for first in range(0, len(mine), per_device_batch_size)
            ]
    return plan
