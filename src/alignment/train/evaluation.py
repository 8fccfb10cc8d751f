"""Held-out loss that does not depend on how many processes measure it.

transformers' own evaluation averages batch means, so the last, smaller batch and the number of ranks change the figure.
Here every rank sums loss times weight over its rows, the sums are added up, and the weight is the number of
trained tokens (or of pairs).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from alignment.train.guard import Guarded
from alignment.train.memory import EVALUATION, shrinking
from alignment.train.renamed import RenamedWeights

IGNORE_INDEX = -100


def count_weight(batch: dict[str, torch.Tensor]) -> int:
    """Trained tokens of a batch of tokens, pairs of a batch of preferences (which holds two rows a pair)."""
    if "labels" in batch:
        return int((batch["labels"][:, 1:] != IGNORE_INDEX).sum())
    return batch["input_ids"].size(0) // 2


def _rank_batches(num_rows: int, rank: int, ranks: int, batch_size: int) -> Iterator[tuple[list[int], bool]]:
    """The batches of one rank, and whether they count.

    Every rank gets as many batches of the same sizes, which sharded parameters and gathers need. What is left of the
    rows after the last full round is one more batch of one row; ranks without a row repeat row 0, and it does not count.
    """
    share = num_rows // ranks
    for start in range(0, share, batch_size):
        yield [position * ranks + rank for position in range(start, min(start + batch_size, share))], True
    if num_rows % ranks:
        position = share * ranks + rank
        yield ([position], True) if position < num_rows else ([0], False)


class ExactEvaluation(RenamedWeights, Guarded):
    """Mixin before a Trainer class: `evaluate` as described above. Every rank must call it."""

    def _fitting(self, batch_size: int) -> AbstractContextManager:
        return nullcontext() if self.guard is None else shrinking(EVALUATION, batch_size, self.guard.context)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict:
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        rank, ranks = self.args.process_index, self.args.world_size
        batch_size = self.args.per_device_eval_batch_size
        self.model.eval()
        totals = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for positions, counts in _rank_batches(len(rows), rank, ranks, batch_size):
            batch = self._prepare_inputs(self.data_collator([rows[position] for position in positions]))
            weight = count_weight(batch) if counts else 0
            with self._fitting(batch_size), torch.no_grad(), self.compute_loss_context_manager():
                loss = self.compute_loss(self.model_wrapped, batch)
            if self.guard is not None:
                self.guard.beat("evaluation")
            totals += torch.tensor([float(loss) * weight, weight], dtype=torch.float64, device=self.args.device)
        totals = self.accelerator.reduce(totals, reduction="sum")
        metrics = {f"{metric_key_prefix}_loss": (totals[0] / totals[1].clamp(min=1)).item()}
        self.log(metrics)
        self.model.train()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
