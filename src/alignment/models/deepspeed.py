"""What this project takes from DeepSpeed itself; everything else goes through accelerate and transformers."""

from contextlib import AbstractContextManager
from typing import Any

import deepspeed
import torch


def gather(parameter: torch.nn.Parameter) -> AbstractContextManager:
    """ZeRO-3: the whole parameter on every rank; rank 0's changes are kept."""
    return deepspeed.zero.GatheredParameters([parameter], modifier_rank=0)


def forget_module_order(engine: Any) -> None:
    """Has an engine of ZeRO-3 learn anew in which order weights are needed; of any other model nothing happens.

    From two forward passes it knows which weights to fetch ahead. Where passes of another kind follow, as TRL's losses that read
    the head's weights by themselves follow a measurement, deepspeed 0.19 fails on weights that are on their way.
    """
    optimizer = getattr(engine, "optimizer", None)
    offload = getattr(optimizer, "parameter_offload", optimizer)
    if not hasattr(offload, "get_param_coordinator"):
        return
    coordinator = offload.get_param_coordinator()
    if not coordinator.is_invalid_trace():
        coordinator._invalidate_trace()
