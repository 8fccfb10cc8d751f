"""Attention of short rows under bfloat16 on CPUs: in fp32, which is both faster there and more exact.

torch 2.13's backward pass of `scaled_dot_product_attention` in bfloat16 on a CPU takes two to six times as long as in fp32 for rows of
up to 128 tokens, the forward pass as long or longer; from 512 tokens on it is the faster one (benchmarks/results/attention.md). Nothing is timed
at run time, so a resumed run computes as the one that it goes on with. GPUs, and whatever runs without autocast, are left alone.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

MAX_QUERIES = 256  # a row; of those that attend, not of the keys: a cache that is kept in fp32 needs no rounding either


def register_attention() -> None:
    """Makes `attend` what the models of this process call for `attn_implementation: sdpa`."""
    AttentionInterface.register("sdpa", attend)


@contextlib.contextmanager
def attention_as_on(gpu: bool) -> Iterator[None]:
    """While memory is counted on CPU tensors, attention is computed as on the device that is planned for."""
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    AttentionInterface.register("sdpa", sdpa_attention_forward if gpu else attend)
    try:
        yield
    finally:
        AttentionInterface.register("sdpa", before)


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **further: Any
) -> tuple[Tensor, None]:
    """As transformers' `sdpa_attention_forward`: queries [B, H, T, D], keys and values [B, h, S, D]; returns [B, T, H, D]."""
    short = query.device.type == "cpu" and query.shape[2] <= MAX_QUERIES
    if not (short and torch.is_autocast_enabled("cpu")):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **further)
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.float()
    with torch.autocast("cpu", enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), attention_mask, **further)
    return output.to(torch.get_autocast_dtype("cpu")), None
