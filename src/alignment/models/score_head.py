"""The score of a reward model or critic, in fp32 whatever the body computes in.

bfloat16 has eight bits: around 8 it tells scores a sixteenth apart, and a Bradley-Terry loss comes in steps of 1/512.
"""

import torch
from torch import nn
from transformers import PreTrainedModel


class ScoreHead(nn.Linear):
    """A linear layer from hidden states [..., H] of any dtype to scores [..., 1] in fp32, under autocast too."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return nn.functional.linear(hidden.float(), self.weight.float(), bias)


def score_in_fp32(model: PreTrainedModel) -> PreTrainedModel:
    """Gives a sequence classifier such a head, with the weights it has. An adapter put on later copies it."""
    if type(model.score) is nn.Linear:
        model.score.__class__ = ScoreHead
    return model
