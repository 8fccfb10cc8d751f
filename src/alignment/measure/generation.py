"""Completions of many prompts: left-padded, with attention mask and KV cache, cut at the first stop token.

The model's own generation config (a repetition penalty, top-k, ...) is set aside: what is measured is the policy's own
distribution, with the stop ids it was trained on.

Shapes: B rows, T positions.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import BaseStreamer

from alignment.errors import DataError
from alignment.measure.batches import (
    compute_in,
    count_ranks,
    evaluation_mode,
    inner_model,
    is_sharded,
    length_batches,
    map_batches,
)


@dataclass(frozen=True)
class Generation:
    """A completion. `ids` end in the stop token when `stopped`; `text` has no special tokens."""

    ids: tuple[int, ...]
    text: str
    stopped: bool


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` [B, T]; every row ends in the last column."""
    longest = max(map(len, rows))
    ids = [[pad_id] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {
        "input_ids": torch.tensor(ids, dtype=torch.long, device=device),
        "attention_mask": torch.tensor(mask, dtype=torch.long, device=device),
    }


def cut_at_stop(ids: Sequence[int], stop_ids: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """The tokens up to and with the first stop token, and whether there was one."""
    for position, token in enumerate(ids):
        if token in stop_ids:
            return tuple(ids[: position + 1]), True
    return tuple(ids), False


@contextmanager
def _generation_config(model: PreTrainedModel, config: GenerationConfig) -> Iterator[None]:
    # transformers 5.23 fills what a passed config leaves open from the model's own: so it is exchanged, not passed. PEFT
    # 0.21 reads the wrapper's or the inner model's, depending on the adapter's task type.
    holders = [model, inner_model(model)]
    saved = [holder.generation_config for holder in holders]
    for holder in holders:
        holder.generation_config = config
    try:
        yield
    finally:
        for holder, own in zip(holders, saved, strict=True):
            holder.generation_config = own


@contextmanager
def _own_random(model: PreTrainedModel, seed: int, number: int) -> Iterator[None]:
    """Random numbers of one batch, which do not disturb those of training."""
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed((seed * 1_000_003 + number) % 2**63)
        yield


def _make_config(stop_ids: Sequence[int], pad_id: int, max_new_tokens: int, temperature: float) -> GenerationConfig:
    # Stated because transformers' default for sampling is top_k=50, which is not the policy's distribution.
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=pad_id,
        use_cache=True,
        **(sampling or {"do_sample": False}),
    )


def _further_inputs(model: PreTrainedModel) -> dict[str, bool]:
    """Of a mixture of experts no balancing loss: transformers 5.23 computes one at every new token, against a mask of all tokens."""
    has_router = hasattr(model.config.get_text_config(), "output_router_logits")
    return {"output_router_logits": False} if has_router else {}


def _room(model: PreTrainedModel, lengths: Sequence[int], max_new_tokens: int) -> list[int]:
    """New tokens that each prompt has room for in the model's context."""
    if 0 in lengths:
        raise DataError(f"prompt {lengths.index(0)}: no tokens; generation needs at least one. Give the rows a prompt.")
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not lengths or limit is None:
        return [max_new_tokens] * len(lengths)
    full = [row for row, length in enumerate(lengths) if length >= limit]
    if full:
        raise DataError(
            f"prompt {full[0]}: {lengths[full[0]]} tokens, and {len(full) - 1} more like it; "
            f"the model reads {limit}. Shorten it (data.max_length)."
        )
    return [min(max_new_tokens, limit - length) for length in lengths]


def _make_groups(lengths: Sequence[int], room: Sequence[int], batch_size: int) -> list[list[list[int]]]:
    """Batches of rows with the same room, so that a row's completion does not depend on its neighbours; a list for each room.

    Ranks of a sharded model generate in step, and one that is done goes on for nothing: with less room it would leave the context.
    """
    groups = []
    for size in sorted(set(room), reverse=True):
        rows = [row for row in range(len(lengths)) if room[row] == size]
        local = length_batches([lengths[row] + size for row in rows], batch_size)
        groups.append([[rows[position] for position in batch] for batch in local])
    return groups


def generate_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts_ids: Sequence[Sequence[int]],
    stop_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    batch_size: int,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    bf16: bool = False,
) -> list[Generation]:
    """One completion per prompt, in the order of the prompts. Every rank must call it, and gets all of them.

    Args:
        batch_size: rows of the longest prompt in one batch; batches of shorter prompts hold more.
        temperature: 0 is greedy; else samples from the whole distribution, the same on any number of ranks.
        bf16: compute under bfloat16 autocast.

    Raises:
        DataError: a prompt is empty, or leaves no room in the model's context.
    """
    lengths = [len(prompt) for prompt in prompts_ids]
    room = _room(model, lengths, max_new_tokens)
    synced = is_sharded(model) and count_ranks() > 1

    def work(number: int, rows: Sequence[int]) -> list[Generation]:
        inputs = pad_left([prompts_ids[row] for row in rows], pad_id, model.device)
        config = _make_config(stop_ids, pad_id, room[rows[0]], temperature)
        with _generation_config(model, config), _own_random(model, seed, number), compute_in(model, bf16):
            output_BT = model.generate(**inputs, **_further_inputs(model), synced_gpus=synced)
        start = inputs["input_ids"].size(1)
        return [_read(tokenizer, ids, stop_ids) for ids in output_BT[:, start:].tolist()]

    made: dict[int, Generation] = {}
    first = 0
    for batches in _make_groups(lengths, room, batch_size):
        found = map_batches(model, batches, lambda number, rows, first=first: work(first + number, rows))
        made.update(zip(sorted(row for batch in batches for row in batch), found, strict=True))
        first += len(batches)
    return [made[row] for row in range(len(prompts_ids))]


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    stop_ids: Sequence[int],
    pad_id: int,
    max_new_tokens: int,
    *,
    temperature: float = 0.0,
    streamer: BaseStreamer | None = None,
) -> Generation:
    """One completion, given to `streamer` as it grows; sampled with torch's global generator.

    Raises:
        DataError: the prompt is empty, or leaves no room in the model's context.
    """
    [room] = _room(model, [len(prompt_ids)], max_new_tokens)
    inputs = pad_left([prompt_ids], pad_id, model.device)
    with evaluation_mode(model), _generation_config(model, _make_config(stop_ids, pad_id, room, temperature)):
        output_BT = model.generate(**inputs, streamer=streamer)
    return _read(tokenizer, output_BT[0, len(prompt_ids) :].tolist(), stop_ids)


def _read(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop_ids: Sequence[int]) -> Generation:
    kept, stopped = cut_at_stop(ids, stop_ids)
    said = kept[:-1] if stopped else kept
    return Generation(kept, tokenizer.decode(said, skip_special_tokens=True), stopped)
