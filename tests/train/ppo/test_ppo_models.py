"""Log-probabilities and values of generated tokens: alone and padded, of several architectures, without dropout."""

from pathlib import Path

import pytest
import torch
import toy_ppo
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2ForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from alignment.models.dropout import disable_dropout
from alignment.models.load import resolve_start
from alignment.models.lora import add_adapter
from alignment.recipe.model_spec import LoraSpec
from alignment.train import passes
from alignment.train.passes import spare_positions
from alignment.train.policy import (
    load_frozen,
    load_trainable_critic,
    load_trainable_policy,
    load_trainable_reward_model,
)
from alignment.train.ppo.actor_critic import ActorCritic
from alignment.train.ppo.rollout import collate

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18, 19, 20, 21]]
PROMPTS = [2, 1, 5]
PAD = 0


def make_llama(**further) -> ActorCritic:
    torch.manual_seed(0)
    config = toy_ppo.make_config(36, num_labels=1, pad_token_id=PAD, **further)
    return ActorCritic(LlamaForCausalLM(config), LlamaForSequenceClassification(config)).double()


def make_gpt2() -> ActorCritic:
    """Learned positions: RoPE hides wrong position ids, these do not."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=36, n_embd=32, n_layer=2, n_head=4, n_positions=64, num_labels=1, pad_token_id=PAD)
    return ActorCritic(GPT2LMHeadModel(config), GPT2ForSequenceClassification(config)).double()


def make_gemma2() -> ActorCritic:
    """Its forward caps logits after the head."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=36, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, num_labels=1, pad_token_id=PAD, final_logit_softcapping=0.5, max_position_embeddings=64,
    )  # fmt: skip
    return ActorCritic(Gemma2ForCausalLM(config), Gemma2ForSequenceClassification(config)).double()


MODELS = {"llama": make_llama, "gpt2": make_gpt2, "gemma2": make_gemma2}


def look(model: ActorCritic, rows: list[list[int]], prompts: list[int], temperature: float = 0.7):
    return model("update", **collate(rows, prompts, PAD), temperature=temperature)


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_scored_as_the_whole_models_score_them(name: str) -> None:
    """Log-softmax of logits / temperature one position before the token; the value of that same position."""
    model = MODELS[name]().train()
    for row, prompt in zip(ROWS, PROMPTS, strict=True):
        logps, entropy, values = look(model, [row], [prompt])
        ids = torch.tensor([row])
        logits = (model.policy(ids, use_cache=False).logits.float() / 0.7)[0, prompt - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, ids[0, prompt:, None])[:, 0]
        torch.testing.assert_close(logps, expected)
        torch.testing.assert_close(entropy, torch.distributions.Categorical(logits=logits).entropy())
        body = model.critic.base_model(ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(values, model.critic.score(body)[0, prompt - 1 : -1, 0].float())


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing(name: str) -> None:
    model = MODELS[name]()
    together = look(model, ROWS, PROMPTS)
    alone = [look(model, [row], [prompt]) for row, prompt in zip(ROWS, PROMPTS, strict=True)]
    for position, found in enumerate(together):
        torch.testing.assert_close(found, torch.cat([one[position] for one in alone]))


LONG_AND_SHORT = [list(range(5, 30)), list(range(5, 20)), list(range(4, 12)), [7, 8, 9], [6, 7, 8], [5, 6]]


@pytest.fixture
def passes_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of models as small as these no pass would be cut."""
    monkeypatch.setattr(passes, "PASS_FLOPS", 0)


@pytest.mark.usefixtures("passes_cost_nothing")
@pytest.mark.parametrize("name", MODELS)
def test_passes_that_are_cut_to_save_padding_give_the_same_and_the_same_gradients(name: str) -> None:
    found = []
    for cut in (False, True):
        model, sizes = MODELS[name](), []
        model.policy.get_input_embeddings().register_forward_pre_hook(
            lambda _, arguments, sizes=sizes: sizes.append(tuple(arguments[0].shape))
        )
        if cut:
            spare_positions(model.policy)
            spare_positions(model.critic)
        outputs = look(model, LONG_AND_SHORT, [1] * 6)
        sum(one.sum() for one in outputs).backward()
        gradient = torch.cat([one.grad.reshape(-1) for one in model.parameters() if one.grad is not None])
        found.append((*outputs, gradient))
        assert sizes == ([(2, 25), (2, 8), (2, 3)] if cut else [(6, 25)])
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)  # Gemma's norms compute in fp32


def test_a_pad_token_that_is_also_sampled_counts_where_it_was_sampled() -> None:
    """With the stop token as pad token nothing is masked away: lengths decide, not ids."""
    model = make_llama()
    rows = [[5, 6, PAD, 8, PAD], [7, 8, 9]]
    together, alone = look(model, rows, [2, 1]), look(model, rows[:1], [2])
    assert together[0].numel() == 3 + 2
    other_pad = model("update", **collate(rows, [2, 1], 35), temperature=0.7)
    for found, expected, other in zip(together, alone, other_pad, strict=True):
        torch.testing.assert_close(found[:3], expected)
        torch.testing.assert_close(found, other)


def test_gradients_do_not_touch_padding_or_the_prompts_own_predictions() -> None:
    model = make_llama()
    inputs = collate(ROWS, PROMPTS, PAD)
    embeddings = model.policy.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
    handle = model.policy.get_input_embeddings().register_forward_hook(lambda *_: embeddings)
    logps, _, _ = model("update", **inputs, temperature=1.0)
    handle.remove()
    logps.sum().backward()
    assert embeddings.grad[inputs["attention_mask"] == 0].eq(0).all()
    # The last token of a row predicts nothing that counts.
    for number, row in enumerate(ROWS):
        assert embeddings.grad[number, len(row) - 1].eq(0).all()
        assert embeddings.grad[number, 0].abs().sum() > 0


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_neither_kind_of_dropout_is_left(name: str) -> None:
    model = make_llama(attention_dropout=0.5) if name == "llama" else make_gpt2()
    model.train()
    with torch.no_grad():
        first, second = look(model, ROWS, PROMPTS), look(model, ROWS, PROMPTS)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_dropout_would_have_shown() -> None:
    """transformers 5.23: the rate is a number of the attention layer, so silencing modules is not enough."""
    model = LlamaForCausalLM(toy_ppo.make_config(36, attention_dropout=0.5)).train()
    ids = torch.tensor(ROWS[:1])
    assert not torch.equal(model(ids).logits, model(ids).logits)
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_dropouts_of_other_names_are_found() -> None:
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model = Starcoder2ForCausalLM(
        Starcoder2Config(vocab_size=36, **sizes, residual_dropout=0.5, embedding_dropout=0.5)
    ).train()
    ids = torch.tensor(ROWS[:1])
    assert not torch.equal(model(ids).logits, model(ids).logits)
    disable_dropout(model)
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_the_reference_of_an_adapter_is_the_model_below_it() -> None:
    plain = make_llama().float()
    before = look(plain, ROWS, PROMPTS)[0].detach()
    policy = add_adapter(plain.policy, LoraSpec(r=4), "causal")
    model = ActorCritic(policy, plain.critic)
    inputs = collate(ROWS, PROMPTS, PAD) | {"temperature": 0.7}
    torch.testing.assert_close(look(model, ROWS, PROMPTS)[0], before)  # a fresh adapter adds nothing
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    assert (look(model, ROWS, PROMPTS)[0] - before).abs().max() > 1e-2
    with torch.no_grad():
        torch.testing.assert_close(model("reference", **inputs), before)
    assert (look(model, ROWS, PROMPTS)[0] - before).abs().max() > 1e-2
    assert all(parameter.requires_grad for name, parameter in policy.named_parameters() if "lora_" in name)


@pytest.mark.usefixtures("passes_cost_nothing")
def test_every_model_that_a_run_loads_is_cut(toy: Path) -> None:
    """Of any stage: trained models are settled, and a frozen reference is loaded, in one place each."""
    training = toy_ppo.open_toy(toy)
    models = [
        load_trainable_policy(training).model,
        load_trainable_reward_model(training).model,
        load_trainable_critic(training, resolve_start(str(toy / "reward"))).model,
        load_frozen(training, training.start.path),
    ]
    inputs = collate(LONG_AND_SHORT, [1] * 6, PAD)
    for model in models:
        sizes = []
        model.get_input_embeddings().register_forward_pre_hook(
            lambda _, arguments, sizes=sizes: sizes.append(tuple(arguments[0].shape))
        )
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False)
        assert sizes == [(2, 25), (2, 8), (2, 3)]
