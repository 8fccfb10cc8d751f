"""Two rows that begin alike, as one: what a pair's prompt and the first words of its answers are is computed once.

Of the rows beginning + a and beginning + b it makes the row beginning + a + b, in which b has the positions that follow the beginning and
does not see a. A causal model's hidden states are then those of the two rows, each token's at its own place.

Shapes: P pairs, T positions of a row, L of a joined one.
"""

import inspect
import logging
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.measure.batches import evaluation_mode
from alignment.measure.logps import PACKING_TOLERANCE

logger = logging.getLogger(__name__)
# Not on GPUs: their kernels for masks are slower than those without, and none has measured what is left of the gain.
DEVICES = ("cpu",)
_MASKED = {"sdpa": torch.bool, "eager": torch.float32}  # kernels that take any mask, and what they take it as
_PROVEN = "_alignment_joins_rows"
_PROBED = 7  # tokens


@dataclass(frozen=True)
class Pairs:
    """Rows n and n + P of a pass, by their lengths.

    Attributes:
        first, second: tokens of each row, shape [P].
        shared: tokens with which both begin.
    """

    first: Tensor
    second: Tensor
    shared: Tensor

    @classmethod
    def of(cls, input_ids: Tensor, lengths: Tensor) -> "Pairs":
        """The pairs of [2P, T] rows that are padded on the right."""
        (first_PT, second_PT), (first, second) = input_ids.chunk(2), lengths.chunk(2)
        alike_PT = (first_PT == second_PT).long().cumprod(1)
        return cls(first, second, torch.minimum(alike_PT.sum(1), torch.minimum(first, second)))

    @property
    def joined(self) -> Tensor:
        """Tokens of each joined row, shape [P]."""
        return self.first + self.second - self.shared

    def take(self, pairs: Tensor) -> "Pairs":
        return Pairs(self.first[pairs], self.second[pairs], self.shared[pairs])

    def join(self, input_ids: Tensor, longest: int, kernel: str) -> dict[str, Tensor]:
        """What the model computes instead of the [2P, T] rows: ids and positions [P, L], mask [P, 1, L, L].

        What lies behind a joined row sees it and is not seen by it.
        """
        first_PT, second_PT = input_ids.chunk(2)
        place_L = torch.arange(longest, device=input_ids.device)
        first, shared = self.first[:, None], self.shared[:, None]
        is_second_PL = place_L >= first
        # Behind the joined row too no position is one that a row does not have: models may know no further ones.
        positions_PL = torch.where(is_second_PL, place_L - first + shared, place_L).clamp(max=input_ids.size(1) - 1)
        ids_PL = torch.where(is_second_PL, second_PT.gather(1, positions_PL), first_PT.gather(1, positions_PL))
        of_first_PL = (place_L >= shared) & (place_L < first)
        visible_PLL = (place_L <= place_L[:, None]) & ~(is_second_PL[:, :, None] & of_first_PL[:, None, :])
        mask_P1LL = visible_PLL[:, None]
        if _MASKED[kernel] != torch.bool:
            mask_P1LL = torch.zeros_like(mask_P1LL, dtype=_MASKED[kernel]).masked_fill(
                ~mask_P1LL, torch.finfo(_MASKED[kernel]).min
            )
        return {"input_ids": ids_PL, "position_ids": positions_PL, "attention_mask": mask_P1LL}

    def places(self, length: int) -> Tensor:
        """Where in its joined row each token of the rows is, shape [2P, T]; of what is behind a row's end, anywhere in it."""
        place_T = torch.arange(length, device=self.first.device)
        second = torch.where(place_T < self.shared[:, None], place_T, place_T + (self.first - self.shared)[:, None])
        ends = (self.first, self.joined)
        rows = (place_T.expand(len(self.first), -1), second)
        return torch.cat([row.minimum((end[:, None] - 1).clamp(min=0)) for row, end in zip(rows, ends, strict=True)])


def can_join(body: PreTrainedModel, input_ids: Tensor, longest: int) -> bool:
    """Whether joined rows of up to `longest` tokens are to this model what the rows are: by its configuration, and by a try, once."""
    if input_ids.device.type not in DEVICES:
        return False
    config = body.config.get_text_config()
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    if config._attn_implementation not in _MASKED or any(window is not None and window < longest for window in windows):
        return False
    if _PROVEN not in vars(body) and input_ids.numel() >= _PROBED:
        vars(body)[_PROVEN] = _try(body, input_ids.reshape(-1)[:_PROBED])
    return vars(body).get(_PROVEN, False)


def _try(body: PreTrainedModel, ids: Tensor) -> bool:
    """Compares the hidden states of two short rows with those of the joined one, in the mode of an evaluation."""
    if "position_ids" not in inspect.signature(type(body).forward).parameters:
        return False
    rows = torch.stack([ids[:5], torch.cat([ids[:3], ids[5:]])])
    lengths = torch.full((2,), 5, device=ids.device)
    pairs = Pairs(lengths[:1], lengths[1:], lengths[:1] - 2)

    def compute(**inputs: Any) -> Tensor:
        return type(body).forward(body, use_cache=False, **inputs).last_hidden_state

    with evaluation_mode(body), torch.autocast(ids.device.type, enabled=False):
        expected = compute(input_ids=rows, attention_mask=torch.ones_like(rows))
        try:
            joined = compute(**pairs.join(rows, 7, body.config.get_text_config()._attn_implementation))
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            logger.debug("%s takes no joined rows: %s", type(body).__name__, error)
            return False
    found = joined[0][pairs.places(5)]
    gap = (found - expected).abs().max() / expected.abs().max()
    logger.debug("hidden states of joined rows differ from the rows' own by %.1e of the greatest", gap)
    return bool(gap <= PACKING_TOLERANCE[expected.dtype])
