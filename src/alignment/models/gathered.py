"""Writing to parameters that ZeRO-3 has dealt out to the ranks."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers.integrations import is_deepspeed_zero3_enabled


@contextmanager
def whole_parameter(parameter: torch.nn.Parameter) -> Iterator[None]:
    """Inside, `parameter` is whole; what rank 0 writes to it is dealt out again afterwards. Every rank must enter."""
    if not is_deepspeed_zero3_enabled() or not hasattr(parameter, "ds_id"):
        yield
        return
    from alignment.models.deepspeed import gather

    with gather(parameter):
        yield
