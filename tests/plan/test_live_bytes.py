"""The counter: values worked out by hand, and the same on tensors without storage as on real ones."""

import contextlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from alignment.plan.live_bytes import LiveBytes, without_storage

SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


def test_bytes_are_counted_while_they_are_referred_to():
    with LiveBytes() as counter:
        first = torch.zeros(1000)
        assert counter.live == 4000
        second = first.view(10, 100)  # the same storage
        assert counter.live == 4000
        third = second + 1
        assert counter.live == 8000
        del first, second
        assert counter.live == 4000
        del third
    assert (counter.live, counter.peak) == (0, 8000)


def test_what_is_left_out_is_not_counted_even_through_a_view():
    weight = torch.zeros(1000)
    counter = LiveBytes()
    counter.leave_out([weight])
    with counter:
        weight.view(10, 100)[0].add_(1)
    assert counter.peak == 0


def test_flops_of_a_product_of_matrices():
    with LiveBytes() as counter:
        torch.zeros(3, 4) @ torch.zeros(4, 5)
    assert counter.flops == 2 * 3 * 4 * 5


@pytest.mark.parametrize("causal", [False, True])
def test_flops_of_attention(causal):
    query = torch.zeros(2, 3, 8, 4, requires_grad=True)
    key = torch.zeros(2, 3, 8, 4)
    products = 2 * 2 * 3 * 8 * 8 * 4  # one of them, of all heads
    with LiveBytes() as counter:
        out = F.scaled_dot_product_attention(query, key, key, is_causal=causal)
        assert counter.flops == 2 * products / (2 if causal else 1)
        counter.restart()
        out.sum().backward()
    assert counter.flops == 5 * products / (2 if causal else 1)


def test_a_number_that_is_read_out_is_one_and_a_mask_chooses_all():
    with without_storage(), LiveBytes():
        values = torch.zeros(6)
        assert values.sum().item() == 1.0
        assert values[values > 0].shape == (6,)


def test_real_tensors_keep_their_values():
    with LiveBytes():
        assert torch.full((2,), 3.0).sum().item() == 6.0


def test_a_module_is_converted_and_keeps_what_is_trained():
    with without_storage():
        layer = nn.Linear(3, 4)
        layer.bias.requires_grad_(False)
        layer.to(torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    assert (layer.weight.requires_grad, layer.bias.requires_grad) == (True, False)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "qwen3", "qwen3_moe"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_without_storage_a_pass_takes_what_it_takes_with(kind, checkpointing):
    peaks, flops = zip(*(run_pass(kind, checkpointing, storage) for storage in (True, False)), strict=True)
    # Without storage a mixture's tokens are not dealt out unevenly, which takes some indices less.
    assert peaks[1] == pytest.approx(peaks[0], rel=0.08)
    assert flops[1] == pytest.approx(flops[0], rel=0.01)


def run_pass(kind: str, checkpointing: bool, storage: bool) -> tuple[int, int]:
    further = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64} if kind == "qwen3_moe" else {}
    sizes = {"n_embd": 64, "n_layer": 3, "n_head": 4, "vocab_size": 512} if kind == "gpt2" else SMALL | further
    with contextlib.nullcontext() if storage else without_storage():
        config = AutoConfig.for_model(kind, **sizes)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
        counter = LiveBytes()
        counter.leave_out([*model.parameters(), *model.buffers()])
        ids = torch.zeros(4, 64, dtype=torch.long)
        mask = torch.ones_like(ids)
        mask[0, -1] = 0  # without any padding a real pass makes no mask
        with counter:
            model(input_ids=ids, attention_mask=mask, labels=ids, use_cache=False).loss.backward()
    return counter.peak, counter.flops
