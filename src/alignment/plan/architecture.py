"""The real sizes of the models that a recipe names: from this disk, the cache of the Hub, the Hub itself, or a short table."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import RecipeError
from alignment.launch.rehearse.inputs import Origin, find_origin
from alignment.recipe.schema import Recipe

logger = logging.getLogger(__name__)
# Sizes of the bases that the gallery names, so that its studies can be planned without a network; config.json has the same.
# The number of parameters that follows from each is in tests/plan/test_architecture.py.
KNOWN: dict[str, dict[str, Any]] = {
    "mistralai/Mistral-7B-v0.1": {
        "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": False, "max_position_embeddings": 32768,
    },
    "meta-llama/Llama-3.1-8B": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False, "max_position_embeddings": 131072,
    },
    "meta-llama/Llama-3.1-70B": {
        "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False, "max_position_embeddings": 131072,
    },
    "Qwen/Qwen3-0.6B-Base": {
        "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True, "max_position_embeddings": 32768,
    },
    "Qwen/Qwen3-30B-A3B": {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
        "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "vocab_size": 151936, "tie_word_embeddings": False, "max_position_embeddings": 40960,
    },
    "HuggingFaceTB/SmolLM2-135M": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 8192,
    },
    "HuggingFaceTB/SmolLM2-1.7B": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 8192,
    },
    "HuggingFaceTB/SmolLM3-3B-Base": {
        "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 4, "vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 65536,
        "pad_token_id": 128004,
    },
    "EleutherAI/pythia-1b-deduped": {
        "model_type": "gpt_neox", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 8,
        "vocab_size": 50304, "tie_word_embeddings": False, "max_position_embeddings": 2048,
    },
    "openai-community/gpt2": {
        "model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """A model's configuration with its real sizes.

    Attributes:
        path: as the recipe names it.
        config: as config.json has it, `model_type` included.
        known_from: in words.
    """

    path: str
    config: dict[str, Any]
    known_from: str


def find_architecture(path: str, recipe_path: Path) -> Architecture:
    """Sizes of the model behind a path of a recipe.

    Raises:
        RecipeError: nothing here knows them, and the Hub cannot be asked.
    """
    origin = find_origin(path, recipe_path)
    maker = origin.known_from.split(" from ")[0]  # of a run; what is behind it decides the sizes, not who reads them
    if not origin.is_assumed:
        return Architecture(path, _with_vocabulary(origin), maker)
    run = f"{maker}: " if origin.known_from.startswith("made by") else ""
    if origin.hub_id in KNOWN:
        return Architecture(path, KNOWN[origin.hub_id], f"{run}published sizes of {origin.hub_id}")
    return Architecture(path, _ask_hub(origin.hub_id, recipe_path), f"{run}config.json of {origin.hub_id} on the Hub")


def find_own_architecture(recipe: Recipe, recipe_path: Path) -> Architecture:
    """Sizes of the model that a recipe trains: those of `model.config`, or of what `model.path` names."""
    if recipe.model.path is not None:
        return find_architecture(recipe.model.path, recipe_path)
    config = {"model_type": recipe.model.config.model_type} | recipe.model.config.arguments()
    tokens = find_origin(recipe.tokenizer.path, recipe_path)
    return Architecture("model.config", config | {"vocab_size": _vocabulary(tokens)}, "model.config of this recipe")


def _with_vocabulary(origin: Origin) -> dict[str, Any]:
    return origin.config if "vocab_size" in origin.config else origin.config | {"vocab_size": _vocabulary(origin)}


def _vocabulary(origin: Origin) -> int:
    if origin.tokenizer is not None:
        from alignment.models.tokenizer import load_tokenizer

        return len(load_tokenizer(origin.tokenizer))
    known = origin.vocab_size or KNOWN.get(origin.hub_id, {}).get("vocab_size")
    if known is None:
        raise RecipeError(
            f"{origin.path}: its tokenizer is not on this disk, and the vocabulary is a size of the model. Fetch it: "
            f"hf download {origin.path} tokenizer.json tokenizer_config.json"
        )
    return known


def _ask_hub(name: str, recipe_path: Path) -> dict[str, Any]:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        raise RecipeError(
            f"{recipe_path}: {name}: its sizes are not on this disk, and the Hub gave no config.json{offline}. Fetch it where there is a "
            f"network: hf download {name} config.json"
        ) from error
