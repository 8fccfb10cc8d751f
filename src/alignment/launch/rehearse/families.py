"""Architectures: which one a model's name means, and the same one with tiny dimensions.

What a name means is knowledge and not looked up anywhere: whoever uses it says so. Nothing here imports torch.
"""

import re
from collections.abc import Mapping
from typing import Any

# Found anywhere in the lower-case name; the first that fits decides. The values are transformers' model types.
FAMILIES: dict[str, str] = {
    r"mixtral": "mixtral",
    r"mistral|zephyr": "mistral",
    r"smollm3": "smollm3",
    r"smollm|llama-?[123]|tinyllama|tulu-[23]|vicuna": "llama",
    r"qwen3-\d+b-a\d+b": "qwen3_moe",
    r"qwen3-[\d.]+b": "qwen3",
    r"qwen(1\.5|2|2\.5)-[\d.]+b": "qwen2",
    r"gemma-3-(270m|1b)": "gemma3_text",
    r"gemma-2-": "gemma2",
    r"gemma-[27]b": "gemma",
    r"olmoe-1b": "olmoe",
    r"olmo-2-": "olmo2",
    r"gpt2": "gpt2",
    r"pythia|gpt-neox": "gpt_neox",
    r"phi-[34]": "phi3",
    r"falcon3": "llama",
    r"granite-3": "granite",
}
# Dimensions by the names of transformers' configurations. What a configuration has none of stays out of it.
TINY: dict[str, int] = {
    "hidden_size": 32, "n_embd": 32, "intermediate_size": 64, "n_inner": 64, "num_hidden_layers": 2, "n_layer": 2,
    "num_attention_heads": 4, "n_head": 4, "head_dim": 8, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "query_pre_attn_scalar": 8,
}  # fmt: skip
_POSITIONS = ("max_position_embeddings", "n_positions")
_NUM_LAYERS = ("num_hidden_layers", "n_layer")
# Belong to the vocabulary or the weights that the configuration was read with, or are derived from other keys.
_NOT_KEPT = (
    "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "architectures", "transformers_version", "dtype", "torch_dtype",
    "_name_or_path", "auto_map", "quantization_config", "no_rope_layers", "id2label", "label2id", "num_labels", "use_cache",
)  # fmt: skip


def find_family(name: str) -> str | None:
    """The model type that a Hub id means; None for a name that is not known."""
    lower = name.lower()
    return next((kind for pattern, kind in FAMILIES.items() if re.search(pattern, lower)), None)


def shrink_config(fields: Mapping[str, Any], positions: int) -> dict[str, Any]:
    """The same architecture, small: its switches stay, its sizes become tiny.

    Args:
        fields: a configuration as config.json has it, or its model_type alone.
        positions: tokens that it must be able to read.
    """
    small = {key: value for key, value in fields.items() if key not in _NOT_KEPT}
    layers = next((fields[name] for name in _NUM_LAYERS if name in fields), None)
    for key, value in fields.items():
        if key in TINY and isinstance(value, int):
            small[key] = min(value, TINY[key])
        elif isinstance(value, list) and len(value) == layers and key in small:
            small[key] = _two_layers(value)
    if fields.get("num_key_value_heads"):
        small["num_key_value_heads"] = _shrink_key_heads(fields)
    for key in _POSITIONS:
        if key in small:
            small[key] = max(positions, min(small[key], 4096))
    if _scaling(small) == "longrope":  # its factors are as many as the original's dimensions
        small = {key: value for key, value in small.items() if key not in ("rope_scaling", "rope_parameters")}
    return small


def _two_layers(kinds: list[Any]) -> list[Any]:
    """The first layer's kind and, where there is one, another: local and global attention, dense and sparse."""
    return [kinds[0], next((kind for kind in kinds if kind != kinds[0]), kinds[0])]


def _shrink_key_heads(fields: Mapping[str, Any]) -> int:
    """Heads that share keys still do, one head of keys stays one."""
    keys, heads = fields["num_key_value_heads"], fields.get("num_attention_heads", 0)
    return 1 if keys == 1 else 4 if keys == heads else 2


def _scaling(fields: Mapping[str, Any]) -> str | None:
    rope = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    return rope.get("rope_type") or rope.get("type")
