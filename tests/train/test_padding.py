"""Passes that are cut to save padding: the same outputs and gradients, in fewer positions, and only where that is safe."""

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from alignment.models.lora import add_adapter
from alignment.recipe.model_spec import LoraSpec
from alignment.train import padding
from alignment.train.padding import count_positions, cut_padding, cut_rows

PAD = 0
LENGTHS = [3, 25, 8, 2, 15, 3]  # in no order
SIZES = {
    "vocab_size": 36,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
}


def make_llama(**further) -> PreTrainedModel:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **further))


def make_gpt2() -> PreTrainedModel:
    """Learned positions: RoPE hides wrong position ids, these do not."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=36, n_positions=64, n_embd=32, n_layer=2, n_head=4, pad_token_id=PAD))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": make_llama,
    "gpt2": make_gpt2,
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=8, sliding_window=4)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)),
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4)),
    "classifier": lambda: LlamaForSequenceClassification(LlamaConfig(**SIZES, num_labels=1)),
    "eager": lambda: make_llama(attn_implementation="eager"),
    "lora": lambda: add_adapter(make_llama(), LoraSpec(r=4), "causal"),
}


def make(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    model.config.use_cache = False
    return model


def make_batch(lengths: list[int] = LENGTHS, side: str = "right") -> dict[str, torch.Tensor]:
    longest = max(lengths)
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 36, (len(lengths), longest), generator=generator)
    places = torch.arange(longest).expand(len(lengths), -1)
    mask = places < torch.tensor(lengths)[:, None]
    mask = (mask if side == "right" else mask.flip(1)).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def watch_sizes(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Filled with the size of each pass of the body."""
    sizes: list[tuple[int, int]] = []
    model.get_input_embeddings().register_forward_pre_hook(
        lambda _, arguments: sizes.append(tuple(arguments[0].shape)) and None
    )
    return sizes


def look(model: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
    """What the model says of the tokens that are there."""
    logits = model(**inputs).logits
    return logits if logits.dim() == 2 else logits[inputs["attention_mask"].bool()]


@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_those_of_the_whole_pass(name: str) -> None:
    found = []
    for cut in (False, True):
        model = make(name)
        sizes = watch_sizes(model)
        if cut:
            assert cut_padding(model) is model
        outputs = look(model, **make_batch())
        outputs.square().sum().backward()
        gradients = [one.grad.reshape(-1) for one in model.parameters() if one.grad is not None]
        found.append((outputs, torch.cat(gradients)))
        assert sizes == ([(2, 25), (2, 8), (2, 3)] if cut else [(6, 25)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-3)


def test_checkpointing_computes_the_cut_passes_anew() -> None:
    gradients = []
    for cut in (False, True):
        model = make("llama").train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        sizes = watch_sizes(model)
        if cut:
            cut_padding(model)
        look(model, **make_batch()).square().sum().backward()
        assert len(sizes) == (3 if cut else 1)
        gradients.append(torch.cat([one.grad.reshape(-1) for one in model.parameters()]))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "further",
    [
        {"use_cache": True},
        {"output_hidden_states": True},
        {"output_attentions": True},
        {"position_ids": torch.arange(25).expand(6, -1)},
    ],
    ids=lambda further: next(iter(further)),
)
def test_a_pass_that_says_or_wants_more_stays_whole(further: dict) -> None:
    model = cut_padding(make("llama"))
    sizes = watch_sizes(model)
    model(**make_batch(), **further)
    assert sizes == [(6, 25)]


def test_a_count_beside_the_rows_says_nothing_of_them() -> None:
    """transformers' Trainer gives the tokens of the global batch along, as a number or a tensor."""
    model = cut_padding(make("llama"))
    sizes = watch_sizes(model)
    for count in (7, torch.tensor(7)):
        model(**make_batch(), num_items_in_batch=count)
    assert len(sizes) == 6


def test_rows_padded_on_the_left_stay_whole() -> None:
    """Without position ids their positions count from the padding."""
    model = cut_padding(make("gpt2"))
    sizes = watch_sizes(model)
    model(**make_batch(side="left"))
    assert sizes == [(6, 25)]


def test_routing_that_is_balanced_over_the_pass_stays_whole() -> None:
    model = cut_padding(make("mixtral"))
    sizes = watch_sizes(model)
    model.config.output_router_logits = True
    inputs = make_batch()
    model(**inputs, labels=inputs["input_ids"])
    assert sizes == [(6, 25)]


def test_a_model_that_is_dealt_out_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks have rows of different lengths, and each forward pass must meet those of the others."""
    model = cut_padding(make("llama"))
    sizes = watch_sizes(model)
    monkeypatch.setattr(padding, "is_sharded", lambda body: True)
    model(**make_batch())
    assert sizes == [(6, 25)]


def test_a_copy_computes_with_its_own_weights() -> None:
    model = cut_padding(make("llama"))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert look(copied, **make_batch()).abs().max() > 0


def test_generation_is_as_before() -> None:
    model = make("llama")
    batch = make_batch([5, 25], side="left")
    before = model.generate(**batch, max_new_tokens=4, do_sample=False, use_cache=True)
    assert torch.equal(cut_padding(model).generate(**batch, max_new_tokens=4, do_sample=False, use_cache=True), before)


# ------------------------------------------------------------------------------------------------ which rows go together


def test_rows_go_with_rows_of_their_length() -> None:
    passes = cut_rows(LENGTHS, 25)
    assert passes == [[1, 4], [2, 0], [5, 3]]
    assert count_positions(passes, LENGTHS) == 72


def test_rows_of_like_length_stay_together() -> None:
    assert cut_rows([20, *[19] * 7], 20) == [list(range(8))]


def test_passes_do_not_become_smaller_than_they_may() -> None:
    lengths = [100, 90, 20, 20]
    assert len(cut_rows(lengths, 100)) == 4
    assert len(cut_rows(lengths, 100, least_positions=200)) == 2
    assert len(cut_rows(lengths, 100, least_positions=201)) == 1


def test_padding_that_all_rows_have_is_saved_too() -> None:
    assert count_positions(cut_rows([5, 5], 50), [5, 5]) == 10
