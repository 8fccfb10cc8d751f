"""Attention in bfloat16 on a CPU, as `models/attention.py` computes it beside torch's kernel for bfloat16: milliseconds, as a table.

    python -m benchmarks.attention [--runs 5]

Inputs are what a Llama's layer hands over under autocast: queries and keys in fp32, since rotary embeddings are, values in bfloat16. Each
run takes both ways in turn; medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from alignment.models.attention import MAX_QUERIES, attend

# Rows, heads, tokens, size of a head.
SHAPES = (
    (32, 4, 24, 48),
    (32, 4, 40, 48),
    (32, 4, 64, 48),
    (16, 4, 128, 48),
    (8, 8, 256, 64),
    (4, 8, 512, 64),
    (2, 8, 1024, 64),
)
SECONDS = 0.5  # a way and run


class Layer(nn.Module):
    """What the functions read of a layer."""

    is_causal = True


def fp32_whatever_its_length(module: nn.Module, *tensors: Any) -> tuple[torch.Tensor, None]:
    """As `attend`, for rows that it leaves alone too."""
    query, key, value, mask = tensors
    with torch.autocast("cpu", enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask)
    return output.bfloat16(), None


def measure(way: Callable[..., Any], tensors: list[Any], gradient: torch.Tensor) -> tuple[float, float]:
    """Milliseconds of a forward and of a backward pass."""
    times: list[tuple[float, float]] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < SECONDS:
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = way(Layer(), *tensors)
        between = time.perf_counter()
        output.backward(gradient)
        times.append((between - start, time.perf_counter() - between))
    forward, backward = zip(*times, strict=True)
    return 1e3 * statistics.median(forward), 1e3 * statistics.median(backward)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {torch.backends.cpu.get_cpu_capability()}")
    print(
        "| rows, heads, tokens, head | bfloat16: forward, backward | fp32: forward, backward | fp32 / bfloat16 | used |"
    )
    print("|---|---:|---:|---:|---|")
    for rows, heads, tokens, size in SHAPES:
        generator = torch.Generator().manual_seed(0)
        query, key, value = (torch.randn(rows, heads, tokens, size, generator=generator) for _ in range(3))
        mask = torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(rows, 1, tokens, tokens)
        tensors = [query.requires_grad_(), key.requires_grad_(), value.bfloat16().requires_grad_(), mask]
        gradient = torch.randn(rows, tokens, heads, size, generator=generator).bfloat16()
        ours = attend if tokens <= MAX_QUERIES else fp32_whatever_its_length
        plain, fp32 = [], []
        for _ in range(runs):
            plain.append(measure(sdpa_attention_forward, tensors, gradient))
            fp32.append(measure(ours, tensors, gradient))
        (a, b), (c, d) = ([statistics.median(part) for part in zip(*way, strict=True)] for way in (plain, fp32))
        used = "fp32" if tokens <= MAX_QUERIES else "bfloat16"
        print(
            f"| {rows}, {heads}, {tokens}, {size} | {a:.2f}, {b:.2f} | {c:.2f}, {d:.2f} | {(c + d) / (a + b):.2f} | {used} |"
        )


if __name__ == "__main__":
    main()
