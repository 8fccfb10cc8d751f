"""Passes that are cut to save padding, and rows that begin alike: the same outputs and gradients, in fewer positions, and only where that is safe."""

import copy
from collections.abc import Callable

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)

from alignment.models.lora import add_adapter
from alignment.recipe.model_spec import LoraSpec, SftLoraSpec
from alignment.train import beginnings, passes
from alignment.train.beginnings import Pairs
from alignment.train.passes import count_positions, cut_rows, spare_positions

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


@pytest.fixture(autouse=True)
def passes_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of models as small as these no pass would be cut."""
    monkeypatch.setattr(passes, "PASS_FLOPS", 0)


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
    "mixtral": lambda: MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, router_aux_loss_coef=0.0)),
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
            assert spare_positions(model) is model
        outputs = look(model, **make_batch())
        outputs.square().sum().backward()
        gradients = [one.grad.reshape(-1) for one in model.parameters() if one.grad is not None]
        found.append((outputs, torch.cat(gradients)))
        assert sizes == ([(2, 25), (2, 8), (2, 3)] if cut else [(6, 25)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", ["cut", "joined"])
def test_checkpointing_computes_the_passes_anew(kind: str) -> None:
    batch = make_batch() if kind == "cut" else make_pairs()
    gradients = []
    for spared in (False, True):
        model = make("llama").train()
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if spared:
            spare_positions(model)
        look(model, **batch)  # joining is tried
        sizes = watch_sizes(model)
        look(model, **batch).square().sum().backward()
        assert len(sizes) == ({"cut": 3, "joined": 4}[kind] if spared else 1)
        gradients.append(torch.cat([one.grad.reshape(-1) for one in model.parameters()]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-3)


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
    model = spare_positions(make("llama"))
    sizes = watch_sizes(model)
    model(**make_batch(), **further)
    assert sizes == [(6, 25)]


def test_a_count_beside_the_rows_says_nothing_of_them() -> None:
    """transformers' Trainer gives the tokens of the global batch along, as a number or a tensor."""
    model = spare_positions(make("llama"))
    sizes = watch_sizes(model)
    for count in (7, torch.tensor(7)):
        model(**make_batch(), num_items_in_batch=count)
    assert len(sizes) == 6


def test_rows_padded_on_the_left_stay_whole() -> None:
    """Without position ids their positions count from the padding."""
    model = spare_positions(make("gpt2"))
    sizes = watch_sizes(model)
    model(**make_batch(side="left"))
    assert sizes == [(6, 25)]


def test_routing_that_is_balanced_over_the_pass_stays_whole() -> None:
    model = spare_positions(make("mixtral"))
    sizes = watch_sizes(model)
    model.config.output_router_logits = True
    inputs = make_batch()
    model(**inputs, labels=inputs["input_ids"])
    assert sizes == [(6, 25)]


def test_a_model_that_is_dealt_out_is_never_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks have rows of different lengths, and each forward pass must meet those of the others."""
    model = spare_positions(make("llama"))
    sizes = watch_sizes(model)
    monkeypatch.setattr(passes, "is_sharded", lambda body: True)
    model(**make_batch())
    assert sizes == [(6, 25)]


def test_a_copy_computes_with_its_own_weights() -> None:
    model = spare_positions(make("llama"))
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert look(copied, **make_batch()).abs().max() > 0


def test_generation_is_as_before() -> None:
    model = make("llama")
    batch = make_batch([5, 25], side="left")
    before = model.generate(**batch, max_new_tokens=4, do_sample=False, use_cache=True)
    assert torch.equal(
        spare_positions(model).generate(**batch, max_new_tokens=4, do_sample=False, use_cache=True), before
    )


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


def test_passes_are_as_many_as_save_more_than_they_cost() -> None:
    lengths = [100, 90, 20, 20]  # 4 passes save 170 of 400 positions, 2 save 160, and 3 no more than 2
    counts = {positions: len(cut_rows(lengths, 100, pass_positions=positions)) for positions in (0, 4, 6, 100, 150)}
    assert counts == {0: 4, 4: 4, 6: 2, 100: 2, 150: 1}


@pytest.mark.parametrize(("hidden", "num_passes"), [(32, 1), (512, 3)])
def test_a_narrow_model_is_cut_less(hidden: int, num_passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its layers take as long for a few rows as for many; here a pass costs 8 positions of the wide one, and 2,048 of the narrow one."""
    monkeypatch.setattr(passes, "PASS_FLOPS", 8 * 24 * 512**2)
    config = LlamaConfig(**SIZES | {"hidden_size": hidden}, use_cache=False)
    model = spare_positions(LlamaForCausalLM(config))
    sizes = watch_sizes(model)
    model(**make_batch())
    assert len(sizes) == num_passes


def test_padding_that_all_rows_have_is_saved_too() -> None:
    assert count_positions(cut_rows([5, 5], 50), [5, 5]) == 10


# ------------------------------------------------------------------------------------------------ rows that begin alike

SHARED, ENDS = (
    [9, 14, 1, 6],
    [(2, 7), (5, 5), (3, 1), (0, 4)],
)  # of each pair; the first row of the last one is all beginning


def make_pairs() -> dict[str, torch.Tensor]:
    """Four pairs: the first rows, then the second ones."""
    generator = torch.Generator().manual_seed(2)
    rows: list[list[list[int]]] = [[], []]
    for shared, ends in zip(SHARED, ENDS, strict=True):
        beginning = torch.randint(1, 36, (shared,), generator=generator).tolist()
        for side, end in enumerate(ends):  # what follows differs in its first token
            further = torch.randint(1, 36, (end,), generator=generator).tolist()
            rows[side].append(beginning + [1 + side, *further][:end])
    both = rows[0] + rows[1]
    longest = max(map(len, both))
    ids = torch.tensor([row + [PAD] * (longest - len(row)) for row in both])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in both])
    return {"input_ids": ids, "attention_mask": mask}


def test_of_two_rows_that_begin_alike_the_beginning_is_computed_once() -> None:
    batch = make_pairs()
    pairs = Pairs.of(batch["input_ids"], batch["attention_mask"].sum(1))
    assert pairs.shared.tolist() == SHARED
    assert pairs.joined.tolist() == [18, 24, 5, 10]
    joined = pairs.take(torch.tensor([3, 0])).join(batch["input_ids"][[3, 0, 7, 4]], 18, "sdpa")
    first, second = batch["input_ids"][0, :11], batch["input_ids"][4, 9:16]
    assert joined["input_ids"][1].tolist() == [*first.tolist(), *second.tolist()]
    assert joined["position_ids"][1].tolist() == [*range(11), *range(9, 16)]
    mask = joined["attention_mask"][1, 0]
    assert mask[10].nonzero().flatten().tolist() == list(range(11))  # the end of the first row
    assert mask[12].nonzero().flatten().tolist() == [*range(9), 11, 12]  # the second row's second own token


@pytest.mark.parametrize("name", [*MODELS, "bfloat16"])
@pytest.mark.parametrize("cuts", [1, 4])
def test_joined_rows_give_the_outputs_and_gradients_of_the_rows(name: str, cuts: int, monkeypatch) -> None:
    monkeypatch.setattr(passes, "NUM_CUTS", cuts)
    found = []
    for spared in (False, True):
        model = make("llama").bfloat16() if name == "bfloat16" else make(name)
        if name in ("gemma2", "mistral"):
            model.config.sliding_window = 64
            model.base_model.config.sliding_window = 64
        if spared:
            spare_positions(model)
        look(model.eval(), **make_pairs())  # the try
        sizes = watch_sizes(model)
        outputs = look(model, **make_pairs())
        outputs.float().square().sum().backward()
        gradients = [one.grad.reshape(-1) for one in model.parameters() if one.grad is not None]
        found.append((outputs, torch.cat(gradients)))
        whole, joined = [(8, 19)], [(4, 24)] if cuts == 1 else [(1, 24), (1, 18), (1, 10), (1, 5)]
        if name == "bfloat16":  # roundings of whose weights are too large for a try
            joined = whole if cuts == 1 else [(3, 19), (3, 11), (2, 4)]
        assert sizes == (joined if spared else whole)
    for whole, parts in zip(*found, strict=True):
        exact = whole.dtype == torch.float32
        torch.testing.assert_close(parts, whole, atol=1e-5 if exact else 0.1, rtol=1e-3 if exact else 0.1)


@pytest.mark.parametrize(
    ("window", "num_rows"),
    [(12, 8), (20, 4)],  # rows have up to 19 tokens, joined ones 24
)
@pytest.mark.parametrize("kind", ["mistral", "gpt-neo"])
def test_rows_in_which_a_window_hides_something_are_not_joined(kind: str, window: int, num_rows: int) -> None:
    """The mask of a joined row knows no window; GPT-Neo's own, by slots, hides too much of any joined row that is longer."""
    torch.manual_seed(0)
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=window)).eval()
    else:
        layers = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
        config = GPTNeoConfig(vocab_size=36, max_position_embeddings=64, window_size=window, pad_token_id=PAD, **layers)
        model, num_rows = GPTNeoForCausalLM(config).eval(), 8
    model.config.use_cache = False
    expected = look(model, **make_pairs())
    spare_positions(model)
    look(model, **make_pairs())  # the try
    sizes = watch_sizes(model)
    torch.testing.assert_close(look(model, **make_pairs()), expected, atol=1e-5, rtol=1e-3)
    assert sum(rows for rows, _ in sizes) == num_rows


def test_longer_rows_are_tried_anew() -> None:
    """Short rows see nothing of a window."""
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=12)).eval()
    model.config.use_cache = False
    spare_positions(model)
    pairs = make_pairs()
    short = {name: value[[2, 3, 6, 7], :10] for name, value in pairs.items()}
    computed = {}
    for name, batch in (("short", short), ("long", pairs), ("short again", short)):
        look(model, **batch)
        sizes = watch_sizes(model)
        look(model, **batch)
        computed[name] = sum(rows for rows, _ in sizes)
    assert computed == {"short": 2, "long": 8, "short again": 2}


@pytest.mark.parametrize("cuts", [1, 4])
def test_no_position_is_asked_for_that_the_rows_do_not_have(cuts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A joined row is longer than what the model has positions for, and what pads the others is no further than its rows."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=36, n_positions=19, n_embd=32, n_layer=2, n_head=4, pad_token_id=PAD)
    model = GPT2LMHeadModel(config).eval()
    model.config.use_cache = False
    expected = look(model, **make_pairs())
    monkeypatch.setattr(passes, "NUM_CUTS", cuts)
    found = look(spare_positions(model), **make_pairs())
    assert vars(model.base_model)[beginnings._PROVEN] == (19, 24)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)


class MakesItsOwnMask(LlamaModel):
    """As a model does that brings its own code, and knows of masks [B, T] only."""

    def forward(self, *args, attention_mask=None, **inputs):
        return super().forward(*args, **inputs)


def test_a_model_to_which_joined_rows_are_something_else_computes_the_rows() -> None:
    model = make("llama")
    model.model.__class__ = MakesItsOwnMask
    expected = look(model, **make_pairs())
    torch.testing.assert_close(look(spare_positions(model), **make_pairs()), expected, atol=1e-5, rtol=1e-3)
    assert vars(model.model)[beginnings._REFUSED]


def test_a_model_that_fails_in_the_try_computes_the_rows() -> None:
    class Refuses(LlamaModel):
        def forward(self, *args, attention_mask=None, **inputs):
            assert attention_mask is None or attention_mask.dim() == 2, "remote code may say no in any way"
            return super().forward(*args, attention_mask=attention_mask, **inputs)

    model = make("llama")
    model.model.__class__ = Refuses
    expected = look(model, **make_pairs())
    torch.testing.assert_close(look(spare_positions(model), **make_pairs()), expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("where", ["attention", "adapter"])
def test_under_dropout_rows_draw_for_themselves(where: str) -> None:
    """The rows of a joined one would share what is drawn for their beginning."""
    if where == "attention":
        model = make_llama(attention_dropout=0.1)
    else:
        model = add_adapter(make_llama(), SftLoraSpec(r=4, lora_dropout=0.1), "causal")
    model.config.use_cache = False
    spare_positions(model).train()
    sizes = watch_sizes(model)
    look(model, **make_pairs())
    assert sum(rows for rows, _ in sizes) == 8
    look(model.eval(), **make_pairs())  # nothing is drawn
    sizes.clear()
    look(model, **make_pairs())
    assert sum(rows for rows, _ in sizes) == 4


def test_experts_that_are_balanced_leave_policy_and_reference_the_same_passes() -> None:
    """TRL asks a policy for its router's logits and the reference for none; which experts a token has may hang on roundings."""
    model = spare_positions(MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, router_aux_loss_coef=0.1)))
    model.config.use_cache = False
    sizes = watch_sizes(model)
    for batch in (make_batch(), make_pairs()):
        model.eval()(**batch)
    assert [rows for rows, _ in sizes] == [6, 8]


@pytest.mark.parametrize("original", [8, 64])
def test_rope_that_goes_by_the_longest_row_of_a_pass_keeps_its_passes(original: int) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0, "original_max_position_embeddings": original}
    model = spare_positions(LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=rope))).eval()
    model.config.use_cache = False
    sizes = watch_sizes(model)
    model(**make_batch())
    assert len(sizes) == (1 if original == 8 else 3)


def test_long_rows_are_not_joined_for_little() -> None:
    """Attention pays for the mask and for length: of rows of eight times the model's width a fifth in common is too little."""
    ids = torch.randint(1, 36, (2, 256), generator=torch.Generator().manual_seed(0))
    for shared, joined in ((102, False), (240, True)):
        model = spare_positions(make("llama"))
        ids[1, :shared] = ids[0, :shared]
        look(model, input_ids=ids, attention_mask=torch.ones_like(ids))
        assert (beginnings._PROVEN in vars(model.base_model)) == joined


def test_a_try_leaves_modes_as_they_were() -> None:
    model = spare_positions(make("llama")).train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    look(model, **make_pairs())
    assert vars(model.base_model)[beginnings._PROVEN] == (19, 24)
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()


def test_rows_that_have_little_in_common_are_not_joined() -> None:
    """Joining them would be packing: fewer positions, and more for attention to do."""
    model = spare_positions(make("llama"))
    look(model, **make_batch())
    assert vars(model.base_model).keys().isdisjoint({beginnings._PROVEN, beginnings._REFUSED})  # it was not even tried
