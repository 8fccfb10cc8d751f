"""From encoded rows to the tensors of one forward pass.

A packed batch carries `position_ids` that restart at each document and *no* attention mask: with `use_cache=False` that
is what keeps documents from seeing each other (transformers 5.23, `masking_utils.find_packed_sequence_indices`; held
by `measure.logps.check_packing`). On sdpa, eager and flex attention rows stay rows, so attention costs length
squared per row and not per batch; the variable-length kernels of flash attention want one flat row instead.

Shapes: B rows, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

IGNORE_INDEX = -100


def _pad(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def make_position_ids(seq_lengths: Sequence[int]) -> torch.Tensor:
    """Positions of the documents of one packed row: 0..n-1 for each, shape [sum(seq_lengths)]."""
    return torch.cat([torch.arange(length) for length in seq_lengths])


@dataclass(frozen=True)
class TokenCollator:
    """Batches rows of `input_ids` and `labels`, with `seq_lengths` when they are packed.

    Args:
        pad_id: token that fills short rows; never trained on.
        packed: rows carry `seq_lengths`; the batch gets `position_ids` instead of `attention_mask`.
        flatten: one row [1, B*T] with sequence boundaries, for flash attention.

    Returns:
        `input_ids`, `labels` [B, T] and `attention_mask` or `position_ids` [B, T].
    """

    pad_id: int
    packed: bool
    flatten: bool = False

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        input_ids = [torch.tensor(example["input_ids"]) for example in examples]
        labels = [torch.tensor(example["labels"]) for example in examples]
        if not self.packed:
            mask = [torch.ones_like(ids) for ids in input_ids]
            return {
                "input_ids": _pad(input_ids, self.pad_id),
                "attention_mask": _pad(mask, 0),
                "labels": _pad(labels, IGNORE_INDEX),
            }
        positions = [make_position_ids(example["seq_lengths"]) for example in examples]
        if self.flatten:
            return self._flat(input_ids, labels, positions)
        # Padding is a document of its own: its positions restart at 0 and stay there.
        return {
            "input_ids": _pad(input_ids, self.pad_id),
            "labels": _pad(labels, IGNORE_INDEX),
            "position_ids": _pad(positions, 0),
        }

    @staticmethod
    def _flat(
        input_ids: list[torch.Tensor], labels: list[torch.Tensor], positions: list[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        flat = {
            "input_ids": torch.cat(input_ids)[None],
            "labels": torch.cat(labels)[None],
            "position_ids": torch.cat(positions)[None],
        }
        starts = (flat["position_ids"][0] == 0).nonzero().flatten()
        bounds = torch.cat([starts, torch.tensor([flat["input_ids"].size(1)])]).to(torch.int32)
        longest = int(bounds.diff().max())
        return flat | {
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        }
