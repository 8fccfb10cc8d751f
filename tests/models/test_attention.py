"""Attention under bfloat16 on CPUs: fp32 for short rows, and nothing else changed."""

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from alignment.models.attention import MAX_QUERIES, attend, attention_as_on
from alignment.models.load import load_weights


class Layer(nn.Module):
    is_causal = True
    num_key_value_groups = 2


def make_tensors(tokens: int = 12, keys: int | None = None) -> list[torch.Tensor]:
    """Queries and keys in fp32, as after rotary embeddings; values in bfloat16, as out of a layer under autocast."""
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, length, 8) for heads, length in ((4, tokens), (2, keys or tokens), (2, keys or tokens))
    )
    return [query.requires_grad_(), key.requires_grad_(), value.bfloat16().requires_grad_()]


def compute(function, tensors: list[torch.Tensor], mask: torch.Tensor | None, bf16: bool) -> list[torch.Tensor]:
    """The output and the gradients of the tensors."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output, _ = function(Layer(), *tensors, mask, dropout=0.0, scaling=0.3)
    output.float().square().sum().backward()
    found = [output.detach(), *(one.grad for one in tensors)]
    for one in tensors:
        one.grad = None
    return found


MASKS = {
    "none": None,
    "bool": torch.ones(12, 12, dtype=torch.bool).tril(-1) | torch.eye(12, dtype=torch.bool),
    "bfloat16": torch.zeros(12, 12).masked_fill(torch.ones(12, 12).triu(1) > 0, -1e9).bfloat16(),
}


@pytest.mark.parametrize("mask", MASKS)
def test_short_rows_are_computed_in_fp32(mask: str) -> None:
    """The bug to catch: autocast, or a mask in bfloat16, that rounds queries and keys all the same."""
    tensors = make_tensors()
    mask_TS = MASKS[mask] if MASKS[mask] is None else MASKS[mask].expand(2, 1, 12, 12)
    ours = compute(attend, tensors, mask_TS, bf16=True)
    exact = [one.detach().float().requires_grad_() for one in tensors]
    wanted = compute(sdpa_attention_forward, exact, mask_TS.float() if mask == "bfloat16" else mask_TS, bf16=False)
    assert ours[0].dtype == torch.bfloat16
    assert torch.equal(ours[0], wanted[0].bfloat16())
    rounded = compute(sdpa_attention_forward, tensors, mask_TS, bf16=True)
    for mine, theirs, right in zip(ours[1:], rounded[1:], wanted[1:], strict=True):
        assert (mine - right).norm() < 0.9 * (theirs - right).norm()


@pytest.mark.parametrize(("tokens", "bf16"), [(12, False), (MAX_QUERIES + 1, True)])
def test_long_rows_and_other_precisions_are_left_alone(tokens: int, bf16: bool) -> None:
    tensors = make_tensors(tokens)
    tensors[2] = tensors[2].detach().to(torch.bfloat16 if bf16 else torch.float32).requires_grad_()
    for ours, theirs in zip(
        compute(attend, tensors, None, bf16), compute(sdpa_attention_forward, tensors, None, bf16), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_one_query_after_a_long_cache_is_not_rounded() -> None:
    tensors = make_tensors(1, MAX_QUERIES + 50)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output, _ = attend(Layer(), *tensors, None)
    exact, _ = sdpa_attention_forward(Layer(), *(one.detach().float() for one in tensors), None)
    assert torch.equal(output, exact.bfloat16())


def test_every_loaded_model_attends_so_and_a_gpu_is_planned_without_it(tmp_path) -> None:
    config = LlamaConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = load_weights("causal", str(tmp_path), attn_implementation="sdpa")
    assert model.config._attn_implementation == "sdpa"
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend
    with attention_as_on(gpu=True):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa_attention_forward
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is attend
