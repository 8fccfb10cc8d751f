"""Architectures that `model.config` can describe, with the names of transformers' own configuration classes.

A key left out keeps the default of transformers, save where it says otherwise. Vocabulary size and special-token ids are not here: they come from
the tokenizer. `tests/recipe/test_model_config.py` holds every key against the installed transformers.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from alignment.recipe.spec import BrokenRule, Positive, Spec

Dropout = Annotated[float, Field(ge=0, lt=1)]


def _heads_divide(config: "_Decoder") -> None:
    if config.head_dim is None and config.hidden_size % config.num_attention_heads:
        raise BrokenRule(
            f"hidden_size {config.hidden_size} is no multiple of num_attention_heads {config.num_attention_heads}; change one, or give head_dim",
            "num_attention_heads",
        )


def _groups_divide(config: "_Decoder") -> None:
    if config.num_key_value_heads and config.num_attention_heads % config.num_key_value_heads:
        raise BrokenRule(
            f"num_attention_heads {config.num_attention_heads} is no multiple of num_key_value_heads {config.num_key_value_heads}; change one",
            "num_key_value_heads",
        )


def _width_divides(config: "Gpt2ConfigSpec") -> None:
    if config.n_embd % config.n_head:
        raise BrokenRule(f"n_embd {config.n_embd} is no multiple of n_head {config.n_head}; change one", "n_head")


class _Config(Spec):
    initializer_range: float | None = Field(None, description="standard deviation of the initial weights")
    tie_word_embeddings: bool | None = Field(None, description="one matrix for input and output embeddings")

    def arguments(self) -> dict[str, Any]:
        """The keys that the recipe gives, as arguments of the transformers configuration class."""
        return {name: value for name, value in self.model_dump(exclude={"model_type"}).items() if value is not None}


class _Decoder(_Config):
    hidden_size: Positive = Field(description="width of the residual stream")
    intermediate_size: Positive = Field(description="width of the feed-forward layers")
    num_hidden_layers: Positive = Field(description="number of layers")
    num_attention_heads: Positive = Field(description="query heads")
    num_key_value_heads: Positive | None = Field(None, description="key and value heads; default: num_attention_heads")
    head_dim: Positive | None = Field(None, description="width of a head; default: hidden_size / num_attention_heads")
    hidden_act: str | None = Field(None, description="activation of the feed-forward layers")
    max_position_embeddings: Positive | None = Field(None, description="longest sequence in tokens")
    rms_norm_eps: float | None = Field(None, description="epsilon of the normalisation")
    attention_dropout: Dropout | None = Field(None, description="dropout on attention weights")
    rope_theta: float | None = Field(None, description="base of the rotary position embedding")

    RULES = (_heads_divide, _groups_divide)

    def arguments(self) -> dict[str, Any]:
        """As `_Config.arguments`; `rope_theta` goes into the `rope_parameters` of transformers 5.

        transformers' own number of key and value heads, and Qwen3's width of a head, are those of one published model,
        whatever the other sizes.
        """
        derived = {
            "num_key_value_heads": self.num_attention_heads,
            "head_dim": self.hidden_size // self.num_attention_heads,
        }
        given = derived | super().arguments()
        if "rope_theta" in given:
            given["rope_parameters"] = {"rope_type": "default", "rope_theta": given.pop("rope_theta")}
        return given


class LlamaConfigSpec(_Decoder):
    """Llama: decoder with rotary positions, RMS normalisation and gated feed-forward layers."""

    model_type: Literal["llama"]
    attention_bias: bool | None = Field(None, description="biases in the attention projections")
    mlp_bias: bool | None = Field(None, description="biases in the feed-forward layers")


class Qwen3ConfigSpec(_Decoder):
    """Qwen3: Llama's layout with normalised queries and keys."""

    model_type: Literal["qwen3"]
    attention_bias: bool | None = Field(None, description="biases in the attention projections")


class MistralConfigSpec(_Decoder):
    """Mistral: Llama's layout with a sliding attention window."""

    model_type: Literal["mistral"]
    sliding_window: Positive | None = Field(None, description="tokens that a position looks back at")


class _Experts(_Decoder):
    num_experts_per_tok: Positive | None = Field(None, description="experts that each token is sent to")
    router_aux_loss_coef: float | None = Field(None, description="weight of the load-balancing loss")


class MixtralConfigSpec(_Experts):
    """Mixtral: a mixture of experts in every feed-forward layer."""

    model_type: Literal["mixtral"]
    num_local_experts: Positive | None = Field(None, description="experts in each layer")
    sliding_window: Positive | None = Field(None, description="tokens that a position looks back at")


class Qwen3MoeConfigSpec(_Experts):
    """Qwen3 with a mixture of experts."""

    model_type: Literal["qwen3_moe"]
    num_experts: Positive | None = Field(None, description="experts in each layer")
    moe_intermediate_size: Positive | None = Field(None, description="width of one expert")
    decoder_sparse_step: Positive | None = Field(None, description="every n-th layer has experts")
    norm_topk_prob: bool | None = Field(None, description="renormalise the weights of the chosen experts")


class Gpt2ConfigSpec(_Config):
    """GPT-2: learned positions and LayerNorm."""

    model_type: Literal["gpt2"]
    n_embd: Positive = Field(description="width of the residual stream")
    n_layer: Positive = Field(description="number of layers")
    n_head: Positive = Field(description="attention heads")
    n_positions: Positive = Field(description="longest sequence in tokens")
    n_inner: Positive | None = Field(None, description="width of the feed-forward layers; default: 4 x n_embd")
    activation_function: str | None = Field(None, description="activation of the feed-forward layers")
    resid_pdrop: Dropout | None = Field(None, description="dropout on residual branches")
    embd_pdrop: Dropout | None = Field(None, description="dropout on embeddings")
    attn_pdrop: Dropout | None = Field(None, description="dropout on attention weights")
    layer_norm_epsilon: float | None = Field(None, description="epsilon of the normalisation")

    RULES = (_width_divides,)


ModelConfigSpec = Annotated[
    LlamaConfigSpec | Qwen3ConfigSpec | MistralConfigSpec | MixtralConfigSpec | Qwen3MoeConfigSpec | Gpt2ConfigSpec,
    Field(discriminator="model_type"),
]
