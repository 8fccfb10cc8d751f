"""Fixed prompts whose scores tell one set of weights from another.

The prompts depend on the vocabulary alone, so any process can make them again. They are token ids and not words: what is
compared is a model, not what it knows. Kept are a few logits of each last position, and a few numbers of the hidden state
there, which a language model and a reward model made from it have in common.

Shapes: B prompts, T positions, V vocabulary, H hidden.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

LENGTHS = (5, 9, 14, 20)
KEPT = 32
_MULTIPLIER = 7919  # a prime: neighbouring positions get unrelated ids

# Greatest difference of two computations of the same weights, relative to the greatest value. A model in 4 bits is another than its
# original: there the gap is that of the quantisation (0.09 to 0.16 on models of two layers).
TOLERANCE = {"float32": 1e-4, "bfloat16": 4e-2, "float16": 5e-3, "nf4": 0.25}


def make_prompts(vocab_size: int, max_positions: int | None = None) -> list[list[int]]:
    """Four prompts of token ids; shorter ones where the model reads fewer positions."""
    lengths = [min(length, max_positions or length) for length in LENGTHS]
    return [
        [(_MULTIPLIER * (31 * number + position + 1)) % vocab_size for position in range(length)]
        for number, length in enumerate(lengths)
    ]


def probe(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> dict[str, list[list[float]]]:
    """`outputs` (KEPT logits and their log-sum-exp, or the score) and `hidden` of each prompt, in fp32.

    Every rank must call it. The model is in evaluation mode afterwards as before, and no gradient is kept.
    """
    training = model.training
    model.eval()
    outputs, hidden = [], []
    device = next(model.parameters()).device
    with torch.no_grad(), _without_flash_attention(model):
        for prompt in prompts:
            ids_BT = torch.tensor([list(prompt)], device=device)
            result = model(
                input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), use_cache=False, output_hidden_states=True
            )
            outputs.append(_keep_outputs(result.logits))
            hidden.append(result.hidden_states[-1][0, -1, :KEPT].float().tolist())
    model.train(training)
    return {"outputs": outputs, "hidden": hidden}


@contextmanager
def without_autocast(model: PreTrainedModel) -> Iterator[None]:
    """Takes off the autocast that accelerate 1.15 puts around a prepared model's forward, where it did."""
    wrapped = model.__dict__.get("forward")
    if wrapped is None or not hasattr(model, "_original_forward"):
        yield
        return
    model.forward = model._original_forward
    try:
        yield
    finally:
        model.forward = wrapped


@contextmanager
def _without_flash_attention(model: PreTrainedModel) -> Iterator[None]:
    """Flash attention takes no fp32; what is compared are weights, so another kernel does as well."""
    configs = {id(config): config for one in model.modules() if (config := getattr(one, "config", None)) is not None}
    kernels = {name: getattr(config, "_attn_implementation", None) or "" for name, config in configs.items()}
    changed = {name: kernel for name, kernel in kernels.items() if kernel.startswith("flash_attention")}
    for name in changed:
        configs[name]._attn_implementation = "sdpa"
    try:
        yield
    finally:
        for name, kernel in changed.items():
            configs[name]._attn_implementation = kernel


def _keep_outputs(logits: torch.Tensor) -> list[float]:
    if logits.dim() == 2:  # a score [B, 1]
        return logits[0].float().tolist()
    last_V = logits[0, -1].float()
    kept = last_V[:: max(1, len(last_V) // KEPT)][:KEPT]
    return [*kept.tolist(), last_V.logsumexp(0).item()]


def probe_gap(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str] = ("outputs", "hidden")) -> float:
    """Greatest difference relative to the greatest value of the same prompt; infinite where the two do not have the same shape.

    A score is a single number that may come out near 0, where its rounding is as large as that of any other: scores are
    compared with the greatest one of all prompts.
    """
    gap = 0.0
    for name in names:
        ours, theirs = one[name], other[name]
        if [len(row) for row in ours] != [len(row) for row in theirs]:
            return float("inf")
        if ours and all(len(row) == 1 for row in ours):
            ours, theirs = [[row[0] for row in ours]], [[row[0] for row in theirs]]
        for a, b in zip(ours, theirs, strict=True):
            a_N, b_N = torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
            difference = (a_N - b_N).abs().max() / torch.maximum(a_N.abs().max(), b_N.abs().max()).clamp(min=1e-6)
            gap = max(gap, difference.item()) if torch.isfinite(difference) else float("inf")
    return gap
