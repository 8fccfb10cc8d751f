"""Two-layer models and a word tokenizer, made on the spot."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

PAD, STOP, VOCAB = 0, 1, 48
CONFIGS = {
    "llama": LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, pad_token_id=PAD, bos_token_id=None, eos_token_id=STOP,
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=PAD, bos_token_id=STOP, eos_token_id=STOP
    ),
    "opt": OPTConfig(
        vocab_size=VOCAB, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32,
        max_position_embeddings=64, pad_token_id=PAD, bos_token_id=STOP, eos_token_id=STOP,
    ),
}  # fmt: skip


def build(auto: type, name: str, seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    config = copy.deepcopy(CONFIGS[name])
    if auto is AutoModelForSequenceClassification:
        config.num_labels = 1
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # away from near-uniform predictions, so that mistakes show
            if parameter.dim() > 1:
                parameter.mul_(6)
    return model.eval()


@pytest.fixture
def make_causal():
    return lambda name="llama", seed=0: build(AutoModelForCausalLM, name, seed)


@pytest.fixture
def make_classifier():
    return lambda name="llama", seed=0: build(AutoModelForSequenceClassification, name, seed)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Word n is token n; 0 and 1 are special."""
    vocabulary = {"<pad>": PAD, "<stop>": STOP} | {f"w{n}": n for n in range(2, VOCAB)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="w2"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<stop>")
