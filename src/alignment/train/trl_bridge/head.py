"""TRL's head without logits (TRL 1.16, `kernels/chunked_logprob.py`) on CPUs: which positions it scores, and what a GPU would allocate."""

import contextlib
from collections.abc import Iterator

import torch
from trl.kernels import chunked_logprob
from trl.trainer import utils

_use_triton = utils._use_triton  # asked there for this decision alone; the kernel asks in its own module


def score_labels_only() -> None:
    """On a CPU as on a GPU, positions without a label are not scored.

    TRL scores them wherever there is no Triton, for the sake of devices that compile anew for each shape. In a batch of questions with
    answers of ten tokens that is most of the head's work.
    """
    utils._use_triton = _has_labels_only


def _has_labels_only(device: torch.device) -> bool:
    return device.type == "cpu" or _use_triton(device)


@contextlib.contextmanager
def only_tiles(on_gpu: bool) -> Iterator[None]:
    """Inside, the work on a tile of logits is left out, as a GPU's kernel does it in place; a CPU's allocates."""
    kept = chunked_logprob._forward_tile, chunked_logprob._backward_tile
    if on_gpu:
        chunked_logprob._forward_tile = chunked_logprob._backward_tile = lambda *_, **__: None
    try:
        yield
    finally:
        chunked_logprob._forward_tile, chunked_logprob._backward_tile = kept
