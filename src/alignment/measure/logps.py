"""Log-probabilities, divergences and reward scores of given rows, in fp32.

Every forward pass here has `use_cache=False`: with a cache the packed attention mask is not made, and every model of
transformers 5.23 leaks between packed documents. What is summed and averaged is for metrics.py to say.

Shapes: B rows, T positions, V vocabulary, N tokens that count.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from alignment.errors import DataError, LaunchError
from alignment.measure.batches import compute_in, evaluation_mode, inner_model, length_batches, map_batches

# Gap between packed and separate logits relative to the largest logit. Measured on two-layer models, torch 2.13, CPU: Llama,
# Qwen3, Mistral, Mixtral, GPT-2 and GPT-NeoX below 5e-7 in fp32 and 8e-3 in bf16; OPT, Falcon and GPT-OSS above 0.3.
PACKING_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2}


@dataclass(frozen=True)
class Logps:
    """Summed log-probability (nats) of `count` tokens."""

    sum: float
    count: int


def _pad(rows: Sequence[Sequence[int]], value: int, side: str, device: torch.device) -> torch.Tensor:
    longest = max(map(len, rows))
    filled = [[value] * (longest - len(row)) for row in rows]
    padded = [fill + list(row) if side == "left" else list(row) + fill for fill, row in zip(filled, rows, strict=True)]
    return torch.tensor(padded, dtype=torch.long, device=device)


def _accepted(model: PreTrainedModel) -> set[str]:
    """Names of the arguments of the model's forward, below an adapter if there is one."""
    return set(inspect.signature(inner_model(model).forward).parameters)


def _row_logits(model: PreTrainedModel, rows: Sequence[Sequence[int]], pad_id: int, packed: bool) -> list[torch.Tensor]:
    """Logits of each row, [T, V] in the dtype of the forward pass."""
    lengths = [len(row) for row in rows]
    if packed:
        ids = torch.tensor([[token for row in rows for token in row]], dtype=torch.long, device=model.device)
        position_ids = torch.cat([torch.arange(length) for length in lengths])[None].to(model.device)
        # No attention mask: its absence is what makes transformers read document bounds from position_ids.
        logits_TV = model(input_ids=ids, position_ids=position_ids, use_cache=False).logits[0]
        return list(logits_TV.split(lengths))
    inputs = {
        "input_ids": _pad(rows, pad_id, "right", model.device),
        "attention_mask": _pad([[1] * length for length in lengths], 0, "right", model.device),
    }
    logits_BTV = model(**inputs, use_cache=False).logits
    return [logits_TV[:length] for logits_TV, length in zip(logits_BTV, lengths, strict=True)]


def masked_logps(
    model: PreTrainedModel,
    input_ids: Sequence[Sequence[int]],
    loss_mask: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int,
    packed: bool = False,
    bf16: bool = False,
) -> list[Logps]:
    """Log-probability of the tokens whose mask is 1, given all tokens before them in the row.

    The first token of a row has nothing before it and never counts. Every rank must call it, and gets all rows.

    Args:
        batch_size: longest rows in one forward pass; shorter rows share it in greater number.
        packed: lay the rows of a batch end to end instead of padding them; `check_packing` the model first.
        bf16: compute under bfloat16 autocast; the normaliser is in fp32 all the same.
    """

    def work(number: int, rows: Sequence[int]) -> list[Logps]:
        with compute_in(model, bf16):
            logits = _row_logits(model, [input_ids[row] for row in rows], pad_id, packed)
        return [
            _sum_logps(logits_TV, input_ids[row], loss_mask[row]) for logits_TV, row in zip(logits, rows, strict=True)
        ]

    return map_batches(model, length_batches([len(row) for row in input_ids], batch_size), work)


def _sum_logps(logits_TV: torch.Tensor, ids: Sequence[int], mask: Sequence[int]) -> Logps:
    positions = torch.tensor([p for p in range(1, len(ids)) if mask[p]], dtype=torch.long, device=logits_TV.device)
    targets = torch.tensor(list(ids), device=logits_TV.device)[positions]
    nll_N = F.cross_entropy(logits_TV[positions - 1].float(), targets, reduction="none")
    return Logps(-nll_N.sum().item(), len(positions))


def token_logps(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int,
    packed: bool = False,
    bf16: bool = False,
) -> list[Logps]:
    """Log-probability of each completion given its prompt. Arguments as in `masked_logps`."""
    pairs = list(zip(prompt_ids, completion_ids, strict=True))
    rows = [[*prompt, *completion] for prompt, completion in pairs]
    masks = [[0] * len(prompt) + [1] * len(completion) for prompt, completion in pairs]
    return masked_logps(model, rows, masks, pad_id=pad_id, batch_size=batch_size, packed=packed, bf16=bf16)


def completion_kl(
    model: PreTrainedModel,
    against: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    completion_ids: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int,
    bf16: bool = False,
) -> list[float]:
    """KL(model || against) in nats, over the whole vocabulary, summed over the tokens of each completion.

    Raises:
        DataError: the models have different vocabularies.
    """
    pairs = list(zip(prompt_ids, completion_ids, strict=True))
    rows = [[*prompt, *completion] for prompt, completion in pairs]
    starts = [len(prompt) for prompt in prompt_ids]

    def work(number: int, batch: Sequence[int]) -> list[float]:
        with evaluation_mode(against), compute_in(model, bf16):
            ids = [rows[row] for row in batch]
            ours = _row_logits(model, ids, pad_id, packed=False)
            theirs = _row_logits(against, ids, pad_id, packed=False)
        return [
            _sum_kl(p_TV[starts[row] - 1 : -1], q_TV[starts[row] - 1 : -1].to(p_TV.device))
            for p_TV, q_TV, row in zip(ours, theirs, batch, strict=True)
        ]

    return map_batches(model, length_batches([len(row) for row in rows], batch_size), work)


def _sum_kl(p_NV: torch.Tensor, q_NV: torch.Tensor) -> float:
    if p_NV.size(-1) != q_NV.size(-1):
        raise DataError(
            f"kl: a vocabulary of {p_NV.size(-1)} against one of {q_NV.size(-1)}; the divergence needs the same tokens. "
            "Compare with a model of the same tokenizer."
        )
    p_logps, q_logps = p_NV.float().log_softmax(-1), q_NV.float().log_softmax(-1)
    return F.kl_div(q_logps, p_logps, reduction="sum", log_target=True).item()


def check_packing(model: PreTrainedModel, rows: Sequence[Sequence[int]], *, pad_id: int, bf16: bool = False) -> float:
    """Proves that packed documents do not see each other, on this model class and attention kernel.

    Args:
        rows: at least two documents of different tokens.

    Returns:
        The greatest gap between packed and separate logits, relative to the greatest logit.

    Raises:
        LaunchError: the model leaks or cannot be packed.
    """
    subject = f"packing: {type(inner_model(model)).__name__} with {model.config._attn_implementation} attention"
    if "position_ids" not in _accepted(model):
        raise LaunchError(
            f"{subject}: takes no position_ids, so packed documents see each other. Write packing: false."
        )
    with evaluation_mode(model), compute_in(model, bf16):
        packed = _row_logits(model, rows, pad_id, packed=True)
        alone = [_row_logits(model, [row], pad_id, packed=False)[0] for row in rows]
    gaps = [(a.float() - b.float()).abs().max().item() for a, b in zip(packed, alone, strict=True)]
    scale = max(logits_TV.float().abs().max().item() for logits_TV in alone)
    gap = max(gaps) / scale
    tolerance = PACKING_TOLERANCE[torch.bfloat16 if bf16 else model.dtype]
    if not gap <= tolerance:
        raise LaunchError(
            f"{subject}: packed logits differ from the documents' own by {gap:.1e} of the greatest; at most "
            f"{tolerance:.0e} is rounding. Its documents see each other: write packing: false."
        )
    return gap


def _score_head(model: PreTrainedModel) -> torch.nn.Module:
    heads = [module for name, module in model.named_modules() if name.split(".")[-1] == "score"]
    if len(heads) != 1:
        raise LaunchError(
            f"reward: {type(model).__name__} has {len(heads)} modules named score; one is expected. Use a sequence classifier."
        )
    return heads[0]


def reward_scores(
    model: PreTrainedModel,
    rows: Sequence[Sequence[int]],
    *,
    pad_id: int,
    batch_size: int,
    padding_side: str = "right",
    bf16: bool = False,
) -> list[float]:
    """Score of each row at its last token, the same alone or in a batch, padded left or right.

    The position comes from the attention mask. transformers' own pooling (5.23) looks for the last token that is not the pad
    id, and so reads one token early where a row ends in it.
    """
    head = _score_head(model)
    takes_positions = "position_ids" in _accepted(model)

    def work(number: int, batch: Sequence[int]) -> list[float]:
        ids = [rows[row] for row in batch]
        mask_BT = _pad([[1] * len(row) for row in ids], 0, padding_side, model.device)
        inputs = {"input_ids": _pad(ids, pad_id, padding_side, model.device), "attention_mask": mask_BT}
        if takes_positions:
            inputs["position_ids"] = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        with compute_in(model, bf16):
            scores_BT = _position_scores(model, head, inputs)
        last_B = (mask_BT * torch.arange(mask_BT.size(1), device=model.device)).argmax(-1)
        return scores_BT.gather(1, last_B[:, None])[:, 0].tolist()

    return map_batches(model, length_batches([len(row) for row in rows], batch_size), work)


def _position_scores(model: PreTrainedModel, head: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Score at every position [B, T]: the head's output before pooling.

    A hook, because calling the body and the head by themselves goes around what ZeRO-3 and FSDP2 attach to the whole model.
    """
    seen: list[torch.Tensor] = []
    handle = head.register_forward_hook(lambda module, arguments, output: seen.append(output))
    try:
        model(**inputs, use_cache=False)
    finally:
        handle.remove()
    return seen[0][..., 0].float()
