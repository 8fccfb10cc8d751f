"""A package named flash_attn over the FlashAttention-2 kernels that torch itself carries, for machines without the real one.

What a recipe's `attn_implementation: flash_attention_2` meets is the same: bfloat16 alone is taken, documents of a flat row come with
their bounds, and the kernels are FlashAttention's. torch 2.11 and later (`torch.nn.attention.varlen`).
"""

from pathlib import Path

PACKAGE = """
import torch
from torch.nn.attention.varlen import varlen_attn

CALLS = {"dense": 0, "varlen": 0}


def _refuse(q):
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise RuntimeError("FlashAttention only support fp16 and bf16 data type")


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0, softmax_scale=None, causal=False,
    window_size=(-1, -1), softcap=0.0, alibi_slopes=None, deterministic=False, return_attn_probs=False, block_table=None,
):
    _refuse(q)
    assert dropout_p == 0 and softcap == 0 and alibi_slopes is None and block_table is None
    CALLS["varlen"] += 1
    k, v = (one.repeat_interleave(q.size(1) // one.size(1), 1) for one in (k, v))
    window = (window_size[0], 0) if causal else tuple(window_size)
    return varlen_attn(
        q, k, v, cu_seqlens_q, cu_seqlens_k, int(max_seqlen_q), int(max_seqlen_k), scale=softmax_scale, window_size=window
    )


def flash_attn_func(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
    deterministic=False, return_attn_probs=False,
):
    _refuse(q)
    CALLS["dense"] += 1
    (B, T, H, D), S = q.shape, k.size(1)
    bounds = [torch.arange(0, (B + 1) * n, n, dtype=torch.int32, device=q.device) for n in (T, S)]
    out = flash_attn_varlen_func(
        *(one.reshape(-1, one.size(2), D) for one in (q, k, v)), *bounds, T, S, softmax_scale=softmax_scale, causal=causal,
        window_size=window_size,
    )
    return out.view(B, T, H, D)


def flash_attn_with_kvcache(*_, **__):
    raise NotImplementedError
"""
PADDING = (
    "from transformers.modeling_flash_attention_utils import _pad_input as pad_input, _unpad_input as unpad_input\n"
)


def write_flash_attn(folder: Path) -> Path:
    """Writes the package so that it is found when `folder` is on the path. Returns the folder."""
    package, info = folder / "flash_attn", folder / "flash_attn-2.8.3.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text(PACKAGE)
    (package / "bert_padding.py").write_text(PADDING)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.8.3\n")
    (info / "top_level.txt").write_text("flash_attn\n")
    return folder
