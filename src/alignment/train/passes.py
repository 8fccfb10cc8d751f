"""Passes in few positions: rows of like length go together, and what two rows begin with is computed once.

Changed is what the body of a model, below its head, computes: whoever calls the model, TRL's trainers among them, gets the hidden states
of the whole pass, and nothing above knows. Rows do not see each other and nothing sees padding, so outputs and gradients are the same but
for rounding; of rows that begin alike that is tried first (beginnings.py).

Shapes: B rows, T positions, H hidden.
"""

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.measure.batches import inner_model, is_sharded
from alignment.train.beginnings import Pairs, can_join, may_join

NUM_CUTS, LEAST_SAVED = 4, 0.1  # passes of a cut one at most, and the part of the work that must be saved
# What a further pass through a layer costs a CPU, whatever is in it: as much as the FLOPs of 200 positions where H is 192, 7 where it is 1,024.
# Measured with that model on two cores: about 100 in fp32 and 200 to 350 in bfloat16.
PASS_FLOPS = 200 * 24 * 192**2
# Positions of each pass of a cut one, on average: fewer would leave a GPU idle. (No GPU has measured it.)
LEAST_ON_GPU = 4096
# What a pass may be called with besides its rows; anything else that is set says of the rows what cutting would have to cut too.
_SETTINGS = {"use_cache", "return_dict", "output_hidden_states", "output_attentions", "output_router_logits"}
# What the body computes instead, the rows whose hidden states these are, and where in them each position's is [rows, T].
_Part = tuple[dict[str, Tensor], Tensor, Tensor]


def spare_positions(model: PreTrainedModel) -> PreTrainedModel:
    """Makes the model compute passes without a cache, padded on the right, in fewer positions where that saves enough."""
    inner = inner_model(model)
    body = inner.base_model
    if body is not inner:
        body.forward = types.MethodType(_forward, body)
    return model


def cut_rows(
    lengths: Sequence[int], longest: int, *, least_positions: int = 1, pass_positions: float = 0.0
) -> list[list[int]]:
    """The rows of each pass, longest first, in one pass where more would not save `LEAST_SAVED`.

    Args:
        lengths: tokens of each row.
        longest: positions of a row in a single pass.
        least_positions: of a pass, on average.
        pass_positions: that cost as much as a pass does whatever is in it.
    """
    whole = longest * len(lengths)
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    best, cost = [list(range(len(lengths)))], (1 - LEAST_SAVED) * (whole + pass_positions)
    for number in range(2, min(NUM_CUTS, whole // least_positions) + 1):
        size = -(-len(order) // number)
        passes = [order[start : start + size] for start in range(0, len(order), size)]
        taken = count_positions(passes, lengths) + len(passes) * pass_positions
        if taken < cost:
            best, cost = passes, taken
    return best


def count_positions(passes: Sequence[Sequence[int]], lengths: Sequence[int]) -> int:
    """Positions that are computed, padding included."""
    return sum(rows * longest for rows, longest in _sizes(passes, lengths))


def _forward(self: PreTrainedModel, *args: Any, **inputs: Any) -> Any:
    """The body's forward; itself a method of the body, so that a deep copy's is the copy's."""
    if len(args) == 1:  # sequence classifiers give the tokens by position
        args, inputs = (), {"input_ids": args[0], **inputs}
    parts = None if args else _find_parts(self, inputs)
    if parts is None:
        return type(self).forward(self, *args, **inputs)
    hidden, output, begun = [], None, 0
    index_BT = torch.empty_like(inputs["input_ids"])
    for own, rows, places in parts:
        output = type(self).forward(self, **inputs | own)
        index_BT[rows] = places + begun
        hidden.append(output.last_hidden_state.flatten(0, 1))
        begun += len(hidden[-1])
    joined_BTH = torch.cat(hidden).index_select(0, index_BT.flatten()).unflatten(0, index_BT.shape)
    return type(output)(last_hidden_state=joined_BTH)


def _find_parts(body: PreTrainedModel, inputs: dict[str, Any]) -> Iterator[_Part] | None:
    """What is computed instead of the pass; None where it stays whole."""
    input_ids, mask = inputs.get("input_ids"), inputs.get("attention_mask")
    if not (isinstance(input_ids, Tensor) and isinstance(mask, Tensor) and mask.shape == input_ids.shape):
        return None
    # Of a model that is dealt out every rank must make the same passes.
    if len(input_ids) < 2 or _wants_more(body, inputs) or is_sharded(body):
        return None
    lengths = _right_padded_lengths(mask)
    if lengths is None or _depends_on_passes(body, input_ids.size(1)):
        return None
    on_cpu = input_ids.device.type == "cpu"
    cuts: dict[str, Any] = {"pass_positions": _pass_positions(body)} if on_cpu else {"least_positions": LEAST_ON_GPU}
    counted = lengths.tolist()
    passes = cut_rows(counted, input_ids.size(1), **cuts)
    if len(input_ids) % 2 == 0 and may_join(body, input_ids.device):
        pairs = Pairs.of(input_ids, lengths)
        joined = pairs.joined.tolist()
        joined_passes = cut_rows(joined, max(joined), **cuts)
        apart = _sizes(passes, counted) if len(passes) > 1 else [input_ids.shape]
        bound = (1 - LEAST_SAVED) * _work(body, apart, 0.5)
        # Of tokens too: rows without anything in common would be packed.
        saves = (
            sum(joined) <= (1 - LEAST_SAVED) * sum(counted) and _work(body, _sizes(joined_passes, joined), 1.0) <= bound
        )
        if saves and can_join(body, max(counted), max(joined)):
            return _joined_parts(body, input_ids, pairs, joined_passes)
    return _cut_parts(input_ids, mask, passes, counted) if len(passes) > 1 else None


def _sizes(passes: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Rows and positions of each pass."""
    return [(len(rows), max(lengths[row] for row in rows)) for rows in passes]


def _work(body: PreTrainedModel, sizes: Iterable[tuple[int, int]], attended: float) -> float:
    """FLOPs of passes up to a factor: 24 H^2 a token of a layer, and 4 H for each position that it looks at; and what a pass costs.

    Args:
        attended: positions that a token looks at, in row lengths: half where a kernel knows that it is causal, all where it is given a mask.
    """
    hidden, begun = _hidden_size(body), _pass_positions(body)
    return sum(6 * hidden * (rows * length + begun) + rows * length * attended * length for rows, length in sizes)


def _pass_positions(body: PreTrainedModel) -> float:
    """Positions that cost a CPU as much as a pass does whatever is in it."""
    return PASS_FLOPS / (24 * _hidden_size(body) ** 2)


def _hidden_size(body: PreTrainedModel) -> int:
    return getattr(body.config.get_text_config(), "hidden_size", None) or 1


def _depends_on_passes(body: PreTrainedModel, length: int) -> bool:
    """Whether a row is something else beside other rows, so that its pass has to stay as it is.

    Experts that are balanced over a pass: TRL tells a policy so with each pass, and its reference not. RoPE whose frequencies
    go by the longest row of a pass.
    """
    config = body.config.get_text_config()
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", 0):
        return True
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    kinds = [one for one in kinds if one.get("rope_type") in ("dynamic", "longrope")]
    known = getattr(config, "max_position_embeddings", 0)
    return any(length > one.get("original_max_position_embeddings", known) for one in kinds)


def _cut_parts(
    input_ids: Tensor, mask: Tensor, passes: Sequence[Sequence[int]], lengths: Sequence[int]
) -> Iterator[_Part]:
    device = input_ids.device
    for numbers in passes:
        rows = torch.tensor(numbers, device=device)
        longest = max(1, *(lengths[row] for row in numbers))
        own = {"input_ids": input_ids[rows, :longest], "attention_mask": mask[rows, :longest]}
        places_T = torch.arange(input_ids.size(1), device=device).clamp(max=longest - 1)
        yield own, rows, places_T + torch.arange(len(rows), device=device)[:, None] * longest


def _joined_parts(
    body: PreTrainedModel, input_ids: Tensor, pairs: Pairs, passes: Sequence[Sequence[int]]
) -> Iterator[_Part]:
    device = input_ids.device
    for numbers in passes:
        rows = torch.tensor(numbers, device=device)
        taken, both = pairs.take(rows), torch.cat([rows, rows + len(input_ids) // 2])
        longest = max(1, int(taken.joined.max()))
        begins = torch.arange(len(rows), device=device).repeat(2)[:, None] * longest
        own = taken.join(input_ids[both], longest, body.config.get_text_config()._attn_implementation)
        yield own, both, taken.places(input_ids.size(1)) + begins


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


def _right_padded_lengths(mask_BT: Tensor) -> Tensor | None:
    """Tokens of each row [B]; None where something else than the end of rows is masked."""
    lengths_B = mask_BT.sum(1)
    expected_BT = torch.arange(mask_BT.size(1), device=mask_BT.device) < lengths_B[:, None]
    return lengths_B if bool((expected_BT == mask_BT.bool()).all()) else None
