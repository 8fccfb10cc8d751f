import math

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForSequenceClassification

from alignment.errors import RecipeError
from alignment.models.build import build_model, draw_score_head, fit_embeddings, make_reward_model, write_initial_model
from alignment.models.probe import make_prompts, probe, probe_gap, without_autocast
from alignment.models.tokenizer import train_tokenizer
from alignment.recipe.model_config import ModelConfigSpec
from alignment.recipe.model_spec import NewTokenizerSpec

DECODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
CONFIGS = {
    "llama": DECODER,
    "qwen3": DECODER | {"head_dim": 8},
    "mistral": DECODER,
    "mixtral": DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2, "router_aux_loss_coef": 0.01},
    "qwen3_moe": DECODER | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
}


def spec(model_type: str, **further):
    return TypeAdapter(ModelConfigSpec).validate_python({"model_type": model_type} | CONFIGS[model_type] | further)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [f"{a} {b}" for a in "abcdefgh" for b in ("one", "two", "three")]
    return train_tokenizer(texts, NewTokenizerSpec(algorithm="bpe", vocab_size=270), "chatml")


@pytest.mark.parametrize("model_type", CONFIGS)
def test_a_new_model_guesses_uniformly(model_type: str, tokenizer) -> None:
    model = build_model(spec(model_type), tokenizer, seed=0, max_length=64)
    ids = torch.randint(5, len(tokenizer), (4, 32))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
        )
    assert loss.item() == pytest.approx(math.log(len(tokenizer)), abs=0.1)


def test_weights_come_from_the_seed_and_leave_other_draws_alone(tokenizer) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (build_model(spec("llama"), tokenizer, seed=seed, max_length=64) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    prompts = make_prompts(len(tokenizer))
    assert probe_gap(probe(one, prompts), probe(again, prompts)) == 0
    assert probe_gap(probe(one, prompts), probe(other, prompts)) > 0.1


def test_initial_weights_are_drawn_once(tokenizer, tmp_path) -> None:
    arguments = {"seed": 0, "max_length": 64, "folder": tmp_path / "initial"}
    write_initial_model(spec("llama"), tokenizer, **arguments)
    before = (tmp_path / "initial/model.safetensors").stat().st_mtime_ns
    write_initial_model(spec("llama"), tokenizer, **arguments)
    assert (tmp_path / "initial/model.safetensors").stat().st_mtime_ns == before


def test_a_model_that_reads_less_than_the_rows_have_is_refused(tokenizer) -> None:
    with pytest.raises(RecipeError, match=r"reads 64 positions; data\.max_length asks for 65"):
        build_model(spec("llama"), tokenizer, seed=0, max_length=65)


def test_a_config_that_cannot_be_is_refused(tokenizer) -> None:
    with pytest.raises(RecipeError, match=r"model\.config"):
        build_model(spec("llama", hidden_size=30, head_dim=8), tokenizer, seed=0, max_length=64)


def test_a_reward_model_made_in_memory_has_the_body_of_its_model(tokenizer) -> None:
    causal = build_model(spec("llama"), tokenizer, seed=0, max_length=64)
    reward = make_reward_model(causal)
    draw_score_head(reward, seed=3)
    prompts = make_prompts(len(tokenizer))
    assert probe_gap(probe(causal, prompts), probe(reward, prompts), ["hidden"]) == 0
    head = reward.score.weight.clone()
    assert head.std().item() == pytest.approx(1 / math.sqrt(33), rel=0.5)
    torch.rand(7)
    draw_score_head(reward, seed=3)
    assert torch.equal(reward.score.weight, head)
    assert isinstance(reward, AutoModelForSequenceClassification._model_mapping[type(reward.config)])


def test_rows_are_added_for_new_tokens_only(tokenizer) -> None:
    model = build_model(spec("llama"), tokenizer, seed=0, max_length=64)
    assert fit_embeddings(model, tokenizer) == 0
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    assert fit_embeddings(model, tokenizer) == 1
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)


def test_probes_of_other_shapes_or_numbers_are_infinitely_apart() -> None:
    one = {"outputs": [[1.0, 2.0]], "hidden": [[1.0]]}
    assert probe_gap(one, {"outputs": [[1.0]], "hidden": [[1.0]]}) == float("inf")
    assert probe_gap(one, {"outputs": [[1.0, float("nan")]], "hidden": [[1.0]]}) == float("inf")
    assert probe_gap(one, {"outputs": [[1.0, 1.0]], "hidden": [[1.0]]}) == pytest.approx(0.5)
    assert probe_gap(one, {"outputs": [[1.0, 2.0]] * 2, "hidden": [[1.0]]}) == float("inf")


def test_a_score_near_zero_is_rounded_as_the_others_are() -> None:
    """A critic's scores in fp32 and in fp64: the first differs by more than a ten-thousandth of itself."""
    fp32 = {"outputs": [[-0.02189883589744568], [-1.0130736827850342], [-0.9431295394897461], [1.035482406616211]]}
    fp64 = {"outputs": [[-0.02189663238823414], [-1.0130733251571655], [-0.9431289434432983], [1.035482406616211]]}
    assert probe_gap(fp32, fp64, ["outputs"]) == pytest.approx(2.2035e-6 / 1.0354824, rel=1e-3)
    assert probe_gap({"outputs": [[1.0], [0.5]]}, {"outputs": [[1.0], [0.4]]}, ["outputs"]) == pytest.approx(0.1)


def test_autocast_is_taken_off_and_put_back(tokenizer, monkeypatch) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    monkeypatch.setattr(AcceleratorState, "_shared_state", {})  # whatever another test made of this process
    model = build_model(spec("llama"), tokenizer, seed=0, max_length=64)
    prompts = make_prompts(len(tokenizer))
    exact = probe(model, prompts)
    prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare_model(model)
    coarse = probe(prepared, prompts)
    with without_autocast(prepared):
        assert probe_gap(exact, probe(prepared, prompts)) == 0
    assert probe_gap(exact, coarse) > 0
    assert probe_gap(coarse, probe(prepared, prompts)) == 0
