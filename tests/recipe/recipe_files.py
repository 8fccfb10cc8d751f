"""The recipes that the tests of this folder go through, and how to take one apart."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from alignment.recipe.locate import Node
from alignment.recipe.model_config import Gpt2ConfigSpec, MistralConfigSpec, MixtralConfigSpec, Qwen3ConfigSpec
from alignment.recipe.model_config import LlamaConfigSpec as Llama
from alignment.recipe.model_config import Qwen3MoeConfigSpec as Qwen3Moe
from alignment.recipe.pipeline import is_pipeline

ROOT = Path(__file__).parents[2]
FULL = Path(__file__).parent / "full"  # one a stage; together they use every key
CONFIGS = (Llama, Qwen3ConfigSpec, MistralConfigSpec, MixtralConfigSpec, Qwen3Moe, Gpt2ConfigSpec)
# Values that transformers' configuration classes take together.
CONFIG_VALUES = {
    "initializer_range": "0.03", "tie_word_embeddings": "true", "hidden_size": "64", "intermediate_size": "176",
    "num_hidden_layers": "2", "num_attention_heads": "4", "num_key_value_heads": "2", "head_dim": "24",
    "hidden_act": "gelu", "max_position_embeddings": "96", "rms_norm_eps": "1e-3", "attention_dropout": "0.25",
    "rope_theta": "123.0", "attention_bias": "true", "mlp_bias": "true", "sliding_window": "33",
    "num_experts_per_tok": "3", "router_aux_loss_coef": "0.07", "num_local_experts": "5", "num_experts": "6",
    "moe_intermediate_size": "40", "decoder_sparse_step": "2", "norm_topk_prob": "true", "n_embd": "64",
    "n_layer": "3", "n_head": "4", "n_positions": "96", "n_inner": "100", "activation_function": "relu",
    "resid_pdrop": "0.11", "embd_pdrop": "0.12", "attn_pdrop": "0.13", "layer_norm_epsilon": "1e-4",
}  # fmt: skip


@cache
def repository_recipes() -> list[Path]:
    """Every recipe that users can run, and the full ones."""
    found = [*ROOT.glob("recipes/*/*.yaml"), *ROOT.glob("tests/acceptance/*.yaml"), *FULL.glob("*.yaml")]
    return sorted(path for path in found if not is_pipeline(path) and path.parent.name != "mixtures")


def config_recipe(config: type) -> str:
    """A pretraining recipe with every key of a model configuration."""
    model_type = config.model_fields["model_type"].annotation.__args__[0]
    keys = [f"    {name}: {CONFIG_VALUES[name]}" for name in config.model_fields if name != "model_type"]
    head = ["stage: pretrain", "model:", "  config:", f"    model_type: {model_type}"]
    tail = ["tokenizer: {path: runs/a/tokenizer/final}", "data:", "  train:", "    - path: a.txt", "      format: text"]
    return "\n".join([*head, *keys, *tail, "train:", "  max_steps: 1", "  learning_rate: 1e-3", ""])


def walk_nodes(node: Node, path: tuple = ()) -> Iterator[tuple[tuple, Node]]:
    """(path, node) of every key at every depth, also inside lists."""
    for name, child in (node.children or {}).items():
        yield (*path, name), child
        yield from walk_nodes(child, (*path, name))
    for index, item in enumerate(node.items or ()):
        yield from walk_nodes(item, (*path, index))
