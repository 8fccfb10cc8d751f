"""TRL's head on a CPU: positions without a label are not computed, and nothing that comes out changes."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils

from alignment.train.trl_bridge import head

LABELS = torch.tensor([[-100, -100, 4, 9, 2, -100], [-100, 7, 1, -100, -100, -100]])


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Filled with the number of positions of each pass through the head."""
    counts: list[int] = []

    class Watched(ChunkedLogProbFunction):
        @staticmethod
        def forward(ctx, hidden, *arguments):
            counts.append(len(hidden))
            return ChunkedLogProbFunction.forward(ctx, hidden, *arguments)

    monkeypatch.setattr(utils, "_ChunkedLogProbFunction", Watched)
    monkeypatch.setattr(utils, "_use_triton", head._use_triton)  # whatever tests before have set
    return counts


def test_only_labels_are_scored_with_the_same_outputs_and_gradients(scored: list[int], monkeypatch) -> None:
    found = []
    for labels_only in (False, True):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
        model = LlamaForCausalLM(config)
        utils.add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        if labels_only:
            head.score_labels_only()
        output = model(input_ids=torch.arange(1, 13).view(2, 6), labels=LABELS, fused_lm_head=True)
        output.loss.backward()
        gradients = torch.cat([one.grad.flatten() for one in model.parameters()])
        found.append((output.loss, output.log_probs, output.entropy, output.is_top1.float(), gradients))
    assert scored == [10, 5]
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_a_pass_without_any_label_has_a_loss_of_zero(scored: list[int]) -> None:
    """The bug to catch: a graph that ends at no rows, and ranks that wait for the gradients of this one."""
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    )
    utils.add_fused_lm_head(model)
    head.score_labels_only()
    loss = model(input_ids=torch.ones(1, 4, dtype=torch.long), labels=torch.full((1, 4), -100), fused_lm_head=True).loss
    loss.backward()
    assert (scored, loss.item()) == ([0], 0.0)
    assert all(one.grad is not None and not one.grad.any() for one in model.parameters())
