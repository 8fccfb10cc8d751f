"""Scores in fp32 from bodies in bfloat16."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from alignment.models.score_head import score_in_fp32


@pytest.fixture
def model() -> LlamaForSequenceClassification:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_labels=1
    )
    config.pad_token_id = 0
    return LlamaForSequenceClassification(config).eval()


def off_the_grid(scores: torch.Tensor) -> bool:
    return not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.parametrize("how", ["autocast", "weights"])
def test_a_score_keeps_what_bfloat16_would_round_away(model, how: str) -> None:
    ids = torch.arange(1, 41).view(4, 10)
    model = score_in_fp32(model if how == "autocast" else model.bfloat16())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        scores = model(ids).logits
    assert scores.dtype == torch.float32
    assert off_the_grid(scores)


def test_in_fp32_nothing_changes_and_a_copy_has_its_own_weights(model) -> None:
    ids = torch.arange(1, 41).view(4, 10)
    with torch.no_grad():
        before = model(ids).logits
        after = score_in_fp32(model)(ids).logits
        other = copy.deepcopy(model)
        other.score.weight.zero_()
        assert torch.equal(other(ids).logits, torch.zeros(4, 1))
        assert torch.equal(model(ids).logits, before)
    assert torch.equal(before, after)
