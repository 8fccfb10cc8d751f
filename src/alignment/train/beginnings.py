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
from alignment.models.dropout import has_dropout

logger = logging.getLogger(__name__)
# Not on GPUs: their kernels for masks are slower than those without, and none has measured what is left of the gain.
DEVICES = ("cpu",)
_MASKED = {"sdpa": torch.bool, "eager": torch.float32}  # kernels that take any mask, and what they take it as
ROUNDING = 1e-4  # of a token's hidden state, in fp32
# Of a body: tokens of the longest row and joined row that were tried; whether a try has failed.
_PROVEN, _REFUSED = "_joins_rows_up_to", "_joins_no_rows"


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


def may_join(body: PreTrainedModel, device: torch.device) -> bool:
    """Whether it is worth looking for pairs: what no try can tell, and costs nothing to know."""
    kernel = body.config.get_text_config()._attn_implementation
    return device.type in DEVICES and kernel in _MASKED and not (body.training and has_dropout(body))


def can_join(body: PreTrainedModel, longest_row: int, longest: int) -> bool:
    """Whether joined rows of up to `longest` tokens are to this model what rows of up to `longest_row` are: by a try at these lengths.

    Layers with windows or steps of their own show only in rows that are long enough, so longer ones are tried anew.
    """
    proven_row, proven = vars(body).get(_PROVEN, (0, 0))
    if longest_row <= proven_row and longest <= proven:
        return True
    lengths = max(longest_row, proven_row), max(longest, proven)
    if vars(body).get(_REFUSED) or not _are_alike(body, *lengths):
        vars(body)[_REFUSED] = True
        return False
    vars(body)[_PROVEN] = lengths
    return True


def _are_alike(body: PreTrainedModel, length: int, longest: int) -> bool:
    """Compares the hidden states of two rows of made-up tokens with those of the joined one, in the mode of an evaluation."""
    if "position_ids" not in inspect.signature(type(body).forward).parameters:
        return False
    config, device = body.config.get_text_config(), body.device
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(config.vocab_size, (2, length), generator=generator)
    shared = 2 * length - longest
    rows[1, :shared] = rows[0, :shared]
    rows, ends = rows.to(device), torch.tensor([length], device=device)
    pair = Pairs(ends, ends, 2 * ends - longest)

    def compute(**inputs: Any) -> Tensor:
        return type(body).forward(body, use_cache=False, **inputs).last_hidden_state

    try:
        with evaluation_mode(body), torch.autocast(device.type, enabled=False):
            expected = compute(input_ids=rows, attention_mask=torch.ones_like(rows))
            joined = compute(**pair.join(rows, longest, config._attn_implementation))[0]
    except (
        Exception
    ) as error:  # a model's own code may refuse a mask in any way; what fails without one too fails again in the pass
        logger.debug("%s takes no joined rows: %s", type(body).__name__, error)
        return False
    gap = ((joined[pair.places(length)] - expected).norm(dim=-1) / expected.norm(dim=-1)).max().item()
    logger.debug(
        "hidden states of joined rows of %d tokens: up to %.1e of a token's away from the rows' own", longest, gap
    )
    return expected.dtype == torch.float32 and gap <= ROUNDING
