"""What this project takes from DeepSpeed itself; everything else goes through accelerate and transformers."""

from contextlib import AbstractContextManager

import deepspeed
import torch


def gather(parameter: torch.nn.Parameter) -> AbstractContextManager:
    """ZeRO-3: the whole parameter on every rank; rank 0's changes are kept."""
    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)
