"""One base for all models of a run: the same training as with bases of their own, without the gradient traps of switched adapters."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from lora_reward import write_lora_reward
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from toy_ppo import get_weights, make_config, make_trainer, open_toy, read_lines
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from alignment.errors import LaunchError, RecipeError
from alignment.measure.logps import reward_scores
from alignment.models.lora import add_adapter
from alignment.recipe.loader import read_recipe
from alignment.recipe.model_spec import LoraSpec
from alignment.train.ppo.actor_critic import ActorCritic, token_logps, token_values
from alignment.train.ppo.rollout import collate
from alignment.train.ppo.shared_base import find_reward_adapter, make_classifier_on
from alignment.train.stages.ppo import build

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18, 19, 20, 21]]
BATCH = collate(ROWS, [2, 1, 5], 0)
SHARED = "ppo.share_base=true"


# ------------------------------------------------------------------------------------------------ gradients


def make_causal(name: str = "llama") -> LlamaForCausalLM:
    torch.manual_seed(0)
    if name == "gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=36,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=64,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    return LlamaForCausalLM(make_config(36, pad_token_id=0))


def fill(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Adapter and head of numbers: fresh ones are zero in half of their matrices, and so are their gradients."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def adapt(model, kind: str, seed: int) -> PeftModel:
    return fill(add_adapter(model, LoraSpec(r=4), kind), seed).double()


def make_pair(name: str, shared: bool, checkpointing: dict | None) -> ActorCritic:
    """Policy and critic on one base or on two of the same weights."""
    causal = make_causal(name)
    critic = make_classifier_on(causal if shared else make_causal(name))
    model = ActorCritic(adapt(causal, "causal", 1), adapt(critic, "reward", 2))
    if checkpointing is not None:
        for part in (model.policy, model.critic):
            part.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
    return model.train()


def gradients(model: ActorCritic) -> dict[str, torch.Tensor | None]:
    """Of a loss over both models, by one backward pass, as training does it."""
    logps, _, values = model("update", **BATCH, temperature=0.7)
    (logps.mean() + values.square().mean()).backward()
    return {name: one.grad for name, one in model.named_parameters() if one.requires_grad}


def worst(found: dict, expected: dict) -> float:
    """Greatest error of a gradient, relative to its greatest entry; a missing gradient counts as zeros."""
    assert found.keys() == expected.keys()
    pairs = [(found[name] if found[name] is not None else torch.zeros_like(one), one) for name, one in expected.items()]
    return max(((one - other).abs().max() / other.abs().max()).item() for one, other in pairs)


@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": False}, {"use_reentrant": True}], ids=str)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradients_are_those_of_models_with_bases_of_their_own(name: str, checkpointing: dict | None) -> None:
    expected = gradients(make_pair(name, False, None))
    shared = make_pair(name, True, checkpointing)
    found = gradients(shared)
    assert len(found) == len(expected) > 20
    assert worst(found, expected) < 1e-12
    frozen = {id(one) for one in shared.policy.get_base_model().base_model.parameters() if not one.requires_grad}
    assert frozen <= {id(one) for one in shared.critic.parameters()}
    assert all(one.grad is None for one in shared.parameters() if not one.requires_grad)


class Switched(torch.nn.Module):
    """peft's own form, planted: one model with two adapters, of which one is active at a time."""

    def __init__(self, switch: Callable, checkpointing: bool) -> None:
        super().__init__()
        self.policy = add_adapter(make_causal(), LoraSpec(r=4), "causal")
        self.policy.add_adapter("value", self.policy.peft_config["default"])
        for name, parameter in self.policy.named_parameters():
            parameter.requires_grad_("lora_" in name)
        reference = make_pair("llama", False, None)
        self.head = reference.critic.get_base_model().score
        own = {name: parameter for name, parameter in self.policy.named_parameters() if "lora_" in name}
        for part, adapter in ((reference.policy, "default"), (reference.critic, "value")):
            for name, parameter in part.named_parameters():
                if "lora_" in name:
                    own[name.replace(".default.", f".{adapter}.")].data = parameter.data
        self.double().train()
        self.switch = switch
        if checkpointing:
            self.policy.enable_input_require_grads()
            self.policy.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def gradients(self) -> dict[str, torch.Tensor | None]:
        with self.switch(self.policy, "default"):
            logps, _ = token_logps(self.policy, **BATCH, temperature=0.7)
        with self.switch(self.policy, "value"):
            body = self.policy.get_base_model().model
            hidden = body(BATCH["input_ids"], attention_mask=BATCH["attention_mask"], use_cache=False)[0]
            values = self.head(hidden)[..., 0][BATCH["before"]].float()
        (logps.mean() + values.square().mean()).backward()
        found = {}
        for name, parameter in self.policy.named_parameters():
            if "lora_" in name:
                part = "critic" if ".value." in name else "policy"
                found[f"{part}.{name.replace('.value.', '.default.')}"] = parameter.grad
        return found


@contextlib.contextmanager
def by_set_adapter(model: PeftModel, name: str) -> Iterator[None]:
    before = model.active_adapter
    model.set_adapter(name)
    yield
    model.set_adapter(before)


@contextlib.contextmanager
def by_layers(model: PeftModel, name: str) -> Iterator[None]:
    """Only the choice, without `requires_grad`."""
    layers = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
    before = [one._active_adapter for one in layers]
    for one in layers:
        one._active_adapter = [name]
    yield
    for one, was in zip(layers, before, strict=True):
        one._active_adapter = was


def switched_gradients(switch: Callable, checkpointing: bool) -> tuple[float, int]:
    """Greatest error, and how many gradients are missing, of the planted form."""
    expected = {name: one for name, one in gradients(make_pair("llama", False, None)).items() if "lora_" in name}
    found = Switched(switch, checkpointing).gradients()
    return worst(found, expected), sum(one is None for one in found.values())


def test_the_comparison_catches_set_adapter_which_loses_the_critics_gradients() -> None:
    error, missing = switched_gradients(by_set_adapter, False)
    assert missing == 28
    assert error == 1.0


def test_the_comparison_catches_a_forward_that_checkpointing_repeats_under_another_adapter() -> None:
    assert switched_gradients(by_layers, False)[0] < 1e-6
    error, missing = switched_gradients(by_layers, True)
    assert missing == 0  # so nobody would notice
    assert error > 1.0


# ------------------------------------------------------------------------------------------------ training


def test_training_on_one_base_is_training_on_two_to_the_last_bit(toy) -> None:
    """From the start model both forms draw the same adapters; only the memory differs."""
    keys = ("train.max_steps=8", "ppo.value_model=start", "train.gradient_checkpointing=true")
    two = make_trainer(toy, *keys, run="two", lora=True, gate=True)
    two.train()
    one = make_trainer(toy, *keys, SHARED, run="one", lora=True, gate=True)
    one.train()
    assert read_lines(one) == read_lines(two)
    own = dict(one.model.named_parameters(remove_duplicate=False))
    assert all(torch.equal(own[name], value) for name, value in two.model.named_parameters())
    numbers = [sum(value.numel() for value in trainer.model.parameters()) for trainer in (one, two)]
    body = sum(value.numel() for value in make_start(toy).parameters())
    assert numbers[1] - numbers[0] == body


def make_start(toy: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(toy / "start")


def shared_toy(toy: Path, *keys: str, **further):
    write_lora_reward(toy)
    return open_toy(
        toy, SHARED, f"ppo.reward_model={toy / 'lora_reward'}", "ppo.rewards=[]", *keys, lora=True, **further
    )


def test_a_reward_run_that_was_lora_on_the_same_weights_is_an_adapter_too_and_the_critic_begins_as_it(toy) -> None:
    trainer, _, _ = build(shared_toy(toy))
    merged = AutoModelForSequenceClassification.from_pretrained(toy / "lora_reward/final").eval()
    expected = reward_scores(merged, ROWS, pad_id=0, batch_size=4)
    reward = trainer.rewards._reward_model.model
    assert reward_scores(reward, ROWS, pad_id=0, batch_size=4) == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(
        token_values(trainer.model.critic, **BATCH).detach(), token_values(merged, **BATCH).detach(), atol=1e-5, rtol=0
    )
    # The reward's adapter is no part of what is trained, and the critic's is not the reward's.
    trained = {name.split(".")[0] for name, one in trainer.model.named_parameters() if one.requires_grad}
    assert trained == {"policy", "critic"}
    weights = [sum(one.numel() for one in part.parameters()) for part in (make_start(toy), trainer.model)]
    assert weights[1] < 1.5 * weights[0]
    trainer.train()
    assert reward_scores(reward, ROWS, pad_id=0, batch_size=4) == pytest.approx(expected, abs=1e-5)
    assert not torch.equal(token_values(trainer.model.critic, **BATCH), token_values(merged, **BATCH))


def test_a_resumed_run_is_the_same_to_the_last_bit(toy) -> None:
    keys = ("train.max_steps=12", "train.save_steps=4", "ppo.kl_target=0.5", "ppo.kl_horizon=100")
    whole, _, _ = build(shared_toy(toy, *keys, run="whole"))
    whole.train()
    again, _, _ = build(open_toy(
        toy, SHARED, f"ppo.reward_model={toy / 'lora_reward'}", "ppo.rewards=[]", *keys, lora=True, run="again"
    ))  # fmt: skip
    torch.manual_seed(12345)
    again.train(resume_from_checkpoint=str(toy / "whole/checkpoints/checkpoint-4"))
    assert torch.equal(get_weights(whole), get_weights(again))
    assert [line for line in read_lines(again) if line["step"] > 4] == [
        line for line in read_lines(whole) if line["step"] > 4
    ]


# ------------------------------------------------------------------------------------------------ what is refused


def test_a_reward_run_on_other_weights_keeps_weights_of_its_own(toy) -> None:
    training = shared_toy(toy)
    assert find_reward_adapter(training) == toy / "lora_reward/adapter"
    model = make_start(toy)
    with torch.no_grad():
        model.model.norm.weight.add_(0.1)
    model.save_pretrained(toy / "other")
    for path in (*(toy / "start").glob("*token*"), toy / "start/chat_template.jinja"):
        (toy / "other" / path.name).write_bytes(path.read_bytes())
    keys = (f"model.path={toy / 'other'}", SHARED, f"ppo.reward_model={toy / 'lora_reward'}")
    assert find_reward_adapter(open_toy(toy, *keys, lora=True)) is None
    with pytest.raises(RecipeError, match=r"the adapter of .*lora_reward is on other weights than .*other"):
        find_reward_adapter(open_toy(toy, *keys, "ppo.value_model=reward", lora=True))
    full = (SHARED, f"ppo.reward_model={toy / 'reward'}", "ppo.value_model=reward")
    with pytest.raises(RecipeError, match="is no LoRA run, all its weights are its own"):
        find_reward_adapter(open_toy(toy, *full, lora=True))


def test_fsdp2_is_refused_because_a_tensor_cannot_be_dealt_out_twice(toy) -> None:
    with pytest.raises(LaunchError, match="fsdp2 deals out the weights of each model by itself"):
        build(open_toy(toy, SHARED, lora=True, strategy="fsdp2"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([], "one base is policy, reference and critic only below adapters; add a 'lora' section"),
        (["lora.load_in_4bit=true"], "4-bit weights that several models share were never run"),
        (["lora.r=4", "ppo.value_model=Qwen/Qwen3-0.6B"], "value_model may be start or reward"),
    ],
)
def test_a_recipe_that_cannot_share_is_refused_with_the_reason(toy, keys: list[str], message: str) -> None:
    open_toy(toy, run="written", lora=False)
    read = read_recipe(toy / "written.yaml", [SHARED, *keys])
    assert message in "\n".join(mistake.message + " " + mistake.advice for mistake in read.mistakes)
