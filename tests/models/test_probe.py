"""The fixed prompts are scored in fp32, which flash attention does not take."""

import torch
from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM

from alignment.models.probe import make_prompts, probe, probe_gap


def test_flash_attention_is_left_out_while_the_prompts_are_scored(monkeypatch):
    def refuse(module, query, *_, **__):
        raise RuntimeError(f"FlashAttention only support fp16 and bf16 data type, not {query.dtype}")

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4
    )
    model = LlamaForCausalLM(config)
    prompts = make_prompts(64)
    expected = probe(model, prompts)
    monkeypatch.setitem(AttentionInterface._global_mapping, "flash_attention_2", refuse)
    model.config._attn_implementation = "flash_attention_2"
    assert probe_gap(probe(model, prompts), expected) == 0
    assert model.config._attn_implementation == "flash_attention_2"
