"""The contract of every sampler, with real weights: what it says it sampled from is what it sampled from."""

import copy
import math

import pytest
import torch
import toy_ppo

from alignment.errors import LaunchError
from alignment.train.ppo.rollout import TokenTable, weigh_tokens
from alignment.train.ppo.samplers import Completion, EngineSampler, check_completions
from alignment.train.trl_bridge.vllm import VLLMEngine, make_engine


class CopyEngine:
    """An engine as vLLM is one: a copy of the weights, sampling and log-probabilities of its own."""

    def __init__(self, policy: torch.nn.Module, max_new_tokens: int, stop_id: int) -> None:
        self.policy, self.max_new_tokens, self.stop_id = policy, max_new_tokens, stop_id
        self.syncs = 0
        self.sync_weights()

    def sync_weights(self) -> None:
        self.copy = copy.deepcopy(self.policy).eval()
        self.syncs += 1

    def generate(self, prompts, seed: int) -> list[tuple[list[int], list[float]]]:
        generator = torch.Generator().manual_seed(seed)
        made = []
        for prompt in prompts:
            ids, logps = list(prompt), []
            while len(logps) < self.max_new_tokens and (not logps or ids[-1] != self.stop_id):
                with torch.no_grad():
                    row = self.copy(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
                token = torch.multinomial(row.exp(), 1, generator=generator).item()
                ids.append(token)
                logps.append(row[token].item())
            made.append((ids[len(prompt) :], logps))
        return made


def make_engine_trainer(toy, *keys: str):
    """A trainer whose sampler is an engine beside it."""
    trainer = toy_ppo.make_trainer(toy, *keys)
    stop_ids = trainer.training.prepared.manifest["stop_ids"]
    engine = CopyEngine(trainer.model.policy, 6, stop_ids[0])
    trainer.sampler = EngineSampler(engine, trainer.training.tokenizer, stop_ids)
    return trainer, engine


def make_sampler(toy, kind: str):
    if kind == "engine":
        return make_engine_trainer(toy)
    return toy_ppo.make_trainer(toy), None


@pytest.mark.parametrize("kind", ["transformers", "engine"])
def test_every_sampler_answers_every_prompt_with_the_weights_of_the_version_it_names(toy, kind: str) -> None:
    trainer, _ = make_sampler(toy, kind)
    prompts = trainer.training.prepared.train["prompt_ids"][:8]
    for version in (0, 4):
        made = trainer.sampler.sample(prompts, seed=3, version=version)
        check_completions(made, 8, version, trainer.sampler.is_policy)
        stop_ids = trainer.training.prepared.manifest["stop_ids"]
        assert all((one.ids[-1] in stop_ids) == one.stopped for one in made)
        assert not any(token in stop_ids for one in made for token in one.ids[:-1])
        rows = [[*prompt, *one.ids] for prompt, one in zip(prompts, made, strict=True)]
        table = trainer._look_at(rows, list(map(len, prompts)))
        if not trainer.sampler.is_policy:
            _, metrics = weigh_tokens(table, [one.logps for one in made], 2.0)
            assert metrics["sampler/logp_gap"] < 1e-5
            assert metrics["sampler/weight"] == pytest.approx(1.0, abs=1e-5)
        with torch.no_grad():
            trainer.model.policy.model.embed_tokens.weight.mul_(3.0)  # the weights of the next version


def test_an_engine_gets_the_weights_of_every_update_once(toy) -> None:
    trainer, engine = make_engine_trainer(toy, "train.max_steps=12", "train.learning_rate=1e-2")
    trainer.train()
    assert engine.syncs == 1 + 3
    lines = [line for line in toy_ppo.read_lines(trainer) if "sampler/weight" in line]
    assert len(lines) == 3
    assert all(line["sampler/weight"] == pytest.approx(1.0, abs=1e-4) for line in lines)


def test_an_engine_with_stale_weights_shows_in_the_weights_of_its_tokens(toy) -> None:
    trainer, engine = make_engine_trainer(toy, "train.max_steps=12", "train.learning_rate=3e-2")
    engine.sync_weights = lambda: None
    trainer.train()
    lines = [line for line in toy_ppo.read_lines(trainer) if "sampler/weight" in line]
    assert lines[0]["sampler/logp_gap"] < 1e-5
    assert lines[-1]["sampler/logp_gap"] > 1e-2


def test_importance_weights_are_the_ratios_worked_out_by_hand() -> None:
    """Policy 0.2 and 0.6 where the engine had 0.4 and 0.1: 0.5, and 6 capped at 2; the third position is padding."""
    zeros = torch.zeros(1, 3)
    table = TokenTable(torch.tensor([[1.0, 1, 0]]), torch.tensor([[0.2, 0.6, 1.0]]).log(), zeros, zeros, zeros)
    weights, metrics = weigh_tokens(table, [[math.log(0.4), math.log(0.1), 0.0]], cap=2.0)
    assert weights[0].tolist() == pytest.approx([0.5, 2.0, 0.0])
    assert metrics["sampler/weight"] == pytest.approx(1.25)
    assert metrics["sampler/capped"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        (Completion((5, 6), True, 3, (-1.0, -1.0)), "weights of step 3; those of step 4"),
        (Completion((), False, 4, ()), "no token"),
        (Completion((5, 6), True, 4, (-1.0,)), "1 log-probabilities for 2 tokens"),
        (Completion((5, 6), True, 4, (-1.0, math.nan)), "not finite"),
    ],
)
def test_a_completion_that_must_not_be_trained_on_is_refused(completion: Completion, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        check_completions([completion], 1, 4, is_policy=False)


def test_vllm_without_vllm_is_refused_with_what_to_do(toy) -> None:
    trainer = toy_ppo.make_trainer(toy)
    spec = trainer.spec.model_copy(update={"sampler": "vllm_colocate"})
    with pytest.raises(LaunchError, match=r"vllm is not installed.*never run on a GPU"):
        make_engine(trainer, spec, stop_ids=[1], max_length=64)


def test_what_trl_returns_is_read_as_ids_and_one_log_probability_each() -> None:
    """TRL 1.16: (prompt ids, completion ids, log-probabilities [tokens][1], their ids)."""

    class Generation:
        def generate(self, prompts, images, num_generations):
            assert (images, num_generations) == (None, 1)
            return prompts, [[7, 2]], [[[-0.5], [None]]], None

    [(ids, logps)] = VLLMEngine(Generation()).generate([[1]], seed=0)
    assert ids == [7, 2]
    assert logps[0] == -0.5
    assert math.isnan(logps[1])
