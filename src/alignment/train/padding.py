"""Passes with little padding: one whose rows differ in length is cut into a few, each as long as its longest row.

Cut is the body of a model, below its head: whoever calls the model, TRL's trainers among them, gets the hidden states of the whole
pass, and nothing above knows. Rows do not see each other and nothing sees padding, so outputs and gradients are the same but for
rounding, whatever the architecture.

Shapes: B rows, T positions, H hidden.
"""

import types
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from alignment.measure.batches import inner_model, is_sharded

NUM_CUTS, LEAST_SAVED = 4, 0.1  # passes of a cut one, and the part of its positions that a cut must save
# Positions of each pass of a cut one, on average: fewer would leave a GPU idle, while a core is as busy with a few rows. (No GPU has measured it.)
LEAST_ON_GPU = 4096
# What a pass may be called with besides its rows; anything else that is set says of the rows what cutting would have to cut too.
_SETTINGS = {"use_cache", "return_dict", "output_hidden_states", "output_attentions", "output_router_logits"}


def cut_padding(model: PreTrainedModel) -> PreTrainedModel:
    """Makes the model compute its ragged passes in several, where they are without a cache and padded on the right."""
    inner = inner_model(model)
    body = inner.base_model
    if body is not inner:
        body.forward = types.MethodType(_forward, body)
    return model


def cut_rows(lengths: Sequence[int], longest: int, least_positions: int = 1) -> list[list[int]]:
    """The rows of each pass, longest first, in one pass where more would not save `LEAST_SAVED`.

    Args:
        lengths: tokens of each row.
        longest: positions of a row in a single pass.
        least_positions: of a pass, on average.
    """
    whole = longest * len(lengths)
    most = min(NUM_CUTS, whole // least_positions)
    if most < 2:
        return [list(range(len(lengths)))]
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    size = -(-len(order) // most)
    passes = [order[start : start + size] for start in range(0, len(order), size)]
    if count_positions(passes, lengths) > (1 - LEAST_SAVED) * whole:
        return [list(range(len(lengths)))]
    return passes


def count_positions(passes: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Positions that are computed, padding included."""
    return sum(max(lengths[row] for row in rows) * len(rows) for rows in passes)


def _forward(self: PreTrainedModel, *args: Any, **inputs: Any) -> Any:
    """The body's forward; itself a method of the body, so that a deep copy's is the copy's."""
    if len(args) == 1:  # sequence classifiers give the tokens by position
        args, inputs = (), {"input_ids": args[0], **inputs}
    passes = None if args else _find_passes(self, inputs)
    if passes is None:
        return type(self).forward(self, *args, **inputs)
    input_ids, mask = inputs["input_ids"], inputs["attention_mask"]
    hidden, output = [], None
    for rows, longest in passes:
        own = {"input_ids": input_ids[rows, :longest], "attention_mask": mask[rows, :longest]}
        output = type(self).forward(self, **inputs | own)
        hidden.append(F.pad(output.last_hidden_state, (0, 0, 0, input_ids.size(1) - longest)))
    joined_BTH = torch.cat(hidden)
    order = [row for rows, _ in passes for row in rows]
    if order != sorted(order):
        places = sorted(range(len(order)), key=order.__getitem__)
        joined_BTH = joined_BTH[torch.tensor(places, device=joined_BTH.device)]
    return type(output)(last_hidden_state=joined_BTH)


def _find_passes(body: PreTrainedModel, inputs: dict[str, Any]) -> list[tuple[list[int], int]] | None:
    """Rows and length of each pass; None where the pass stays whole."""
    input_ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if not (isinstance(input_ids, Tensor) and isinstance(mask, Tensor) and mask.shape == input_ids.shape):
        return None
    if len(input_ids) < 2 or _wants_more(body, inputs):
        return None
    lengths = _right_padded_lengths(mask)
    if lengths is None:
        return None
    passes = cut_rows(lengths, input_ids.size(1), 1 if input_ids.device.type == "cpu" else LEAST_ON_GPU)
    # Of a model that is dealt out every rank must make the same passes.
    if len(passes) < 2 or is_sharded(body):
        return None
    return [(rows, max(1, *(lengths[row] for row in rows))) for rows in passes]


def _wants_more(body: PreTrainedModel, inputs: dict[str, Any]) -> bool:
    """Whether more is asked for than hidden states of rows, or more is told of them."""
    settings = {name: inputs.get(name) for name in _SETTINGS}
    settings = {name: getattr(body.config, name, None) if value is None else value for name, value in settings.items()}
    if settings.pop("return_dict") is False or any(settings.values()):
        return True
    further = (value for name, value in inputs.items() if name not in _SETTINGS | {"input_ids", "attention_mask"})
    return any(
        value.dim() > 0 if isinstance(value, Tensor) else not isinstance(value, (int, float))
        for value in further
        if value is not None
    )


def _right_padded_lengths(mask_BT: Tensor) -> list[int] | None:
    """Tokens of each row; None where something else than the end of rows is masked."""
    lengths_B = mask_BT.sum(1)
    expected_BT = torch.arange(mask_BT.size(1), device=mask_BT.device) < lengths_B[:, None]
    *lengths, is_right = [*lengths_B.tolist(), bool((expected_BT == mask_BT.bool()).all())]
    return lengths if is_right else None
