"""TRL's head without logits (TRL 1.16, `kernels/chunked_logprob.py`), for counting what it allocates on a GPU where there is none."""

import contextlib
from collections.abc import Iterator

from trl.kernels import chunked_logprob


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
