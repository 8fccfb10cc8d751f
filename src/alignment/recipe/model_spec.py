"""Which model, tokenizer, adapter and chat template: `model`, `tokenizer`, `lora` and `chat` of a recipe."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.recipe.model_config import ModelConfigSpec
from alignment.recipe.places import keeps_its_code
from alignment.recipe.spec import BrokenRule, Fraction, NonEmpty, Positive, Spec, Strings


def _one_origin(model: "ModelSpec") -> None:
    if (model.path is None) == (model.config is None):
        raise BrokenRule("give exactly one of 'path' (a folder or Hub id) and 'config' (a new model)", "path", "config")


def _revision_of_path(model: "ModelSpec") -> None:
    if model.config is not None and model.revision is not None:
        raise BrokenRule("'revision' belongs to a 'path'; a new model from 'config' has none", "revision")


def _code_is_pinned(model: "ModelSpec | LoadedModelSpec") -> None:
    """Code that may change under its name is run by nobody who has read it."""
    if model.trust_remote_code and model.path is not None and not keeps_its_code(model.path, model.revision):
        raise BrokenRule(
            "'trust_remote_code' runs Python of that repository: give the 'revision' that you have read, a commit of 40 hex digits "
            "(a folder's path begins with ./)",
            "trust_remote_code",
            "revision",
        )


Revision = Annotated[str | None, Field(description="branch, tag or commit of a Hub id")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    Field(description="dtype of the saved weights; auto: that of the weights it starts from"),
]
AttentionKernel = Annotated[
    Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3", "flex_attention"],
    Field(description="attention kernel"),
]
RemoteCode = Annotated[
    bool, Field(description="run Python code that comes with a Hub model; `revision` must be a commit then")
]


class ModelSpec(Spec):
    """The model that training starts from."""

    path: NonEmpty | None = Field(
        None, description="Hub id, or a folder such as runs/STUDY/sft/final; or give `config`"
    )
    config: ModelConfigSpec | None = Field(None, description="architecture of a new model; or give `path`")
    revision: Revision = None
    dtype: Dtype = "auto"
    attn_implementation: AttentionKernel = "sdpa"
    trust_remote_code: RemoteCode = False

    RULES = (_one_origin, _revision_of_path, _code_is_pinned)


class LoadedModelSpec(Spec):
    """The model that training starts from."""

    path: NonEmpty = Field(description="Hub id, or a folder such as runs/STUDY/sft/final")
    revision: Revision = None
    dtype: Dtype = "auto"
    attn_implementation: AttentionKernel = "sdpa"
    trust_remote_code: RemoteCode = False

    RULES = (_code_is_pinned,)


class TokenizerSpec(Spec):
    """Which tokenizer to use."""

    path: NonEmpty | None = Field(None, description="Hub id or folder; default: the model's own")


class NewTokenizerSpec(Spec):
    """The tokenizer to train."""

    algorithm: Literal["bpe", "unigram"] = Field("bpe", description="byte-level BPE, or SentencePiece unigram")
    vocab_size: Annotated[int, Field(ge=260)] = Field(description="entries, special tokens and bytes included")
    special_tokens: Strings = Field((), description="further special tokens, beside those the chat template needs")


class LoraSpec(Spec):
    """Train low-rank adapters (https://arxiv.org/abs/2106.09685) instead of all weights."""

    r: Positive = Field(16, description="rank")
    lora_alpha: Positive = Field(32, description="scale: updates are multiplied by lora_alpha / r")
    target_modules: str | Strings = Field("all-linear", description="module names, or all-linear")
    modules_to_save: Strings = Field((), description="modules trained whole beside the adapters, e.g. embed_tokens")
    use_dora: bool = Field(False, description="weight-decomposed LoRA, https://arxiv.org/abs/2402.09353")
    use_rslora: bool = Field(False, description="scale by lora_alpha / sqrt(r), https://arxiv.org/abs/2312.03732")
    load_in_4bit: bool = Field(False, description="QLoRA: base weights in nf4; needs the [qlora] extra")
    save: Literal["merged", "adapter"] = Field(
        "merged", description="merged: final/ is a whole model; adapter: only it"
    )
    start: Literal["merge", "continue"] = Field(
        "merge", description="when model.path is a LoRA run: train a new adapter on the merged model, or go on with its"
    )


class SftLoraSpec(LoraSpec):
    """Train low-rank adapters (https://arxiv.org/abs/2106.09685) instead of all weights."""

    # Only here: the other stages compare probabilities or scores, into which dropout would put chance.

    lora_dropout: Fraction = Field(0.0, description="dropout before the adapter")


class ChatSpec(Spec):
    """How messages become tokens."""

    template: str = Field("from_tokenizer", description="a template's name, a .jinja file, or from_tokenizer")
    pad_token: str | None = Field(
        None, description="a token of the vocabulary to pad with; default: a reserved or new one"
    )
    system: str | None = Field(None, description="system message for rows that have none")


class RowChatSpec(ChatSpec):
    """How messages become tokens."""

    control_tokens: Literal["refuse", "escape"] = Field(
        "refuse", description="messages that spell a special token: bad rows, or encoded as the text that they are"
    )


class SftChatSpec(RowChatSpec):
    """How messages become tokens, and which of them are trained on."""

    train_on: Literal["assistant", "last_assistant", "all"] = Field(
        "assistant", description="all assistant turns, the last one only, or every token"
    )
