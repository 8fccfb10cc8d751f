"""The stage through the worker: what `alignment train` leaves behind, and what it refuses."""

import json

import pytest
import study as written
import torch
import toy_ppo
from lora_reward import write_lora_reward
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from alignment.launch.request import TrainRequest
from alignment.launch.worker import run_worker
from alignment.models.probe import make_prompts, probe, probe_gap
from alignment.recipe.loader import read_recipe

EVAL = """eval:
  num_samples: 2
  max_new_tokens: 6
  metrics:
    - score
    - stops
    - kl
"""


def write(toy, lora: bool = False) -> None:
    text = toy_ppo.RECIPE.format(start="start", lora=toy_ppo.LORA if lora else "", seed=1)
    text = text.replace("eval:\n  num_samples: 0\n", EVAL)
    (toy / "ppo.yaml").write_text(text, encoding="utf-8")


def run(toy, *overrides: str, lora: bool = False, fresh: bool = False) -> int:
    write(toy, lora=lora)
    request = TrainRequest(
        toy / "ppo.yaml", overrides=overrides, out=str(toy / "out"), fresh=fresh, command=("alignment", "train", "ppo")
    )
    return run_worker(request)


REWARD = ("ppo.reward_model=reward", "ppo.rewards=[{reward: stops, weight: 0.1}]", "ppo.gold=contains_answer")


@pytest.mark.parametrize("lora", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["full", "lora"])
def test_a_run_leaves_a_policy_and_a_critic_that_load_as_any_model(toy, monkeypatch, lora: bool) -> None:
    monkeypatch.chdir(toy)
    assert run(toy, *REWARD, "train.max_steps=8", lora=lora) == 0
    out = toy / "out"
    receipt = written.read_json(out / "receipt.json")
    policy, critic = (
        kind.from_pretrained(out / folder).eval()
        for kind, folder in ((AutoModelForCausalLM, "final"), (AutoModelForSequenceClassification, "critic"))
    )
    prompts = make_prompts(policy.config.vocab_size, policy.config.max_position_embeddings)
    assert probe_gap(probe(policy, prompts), receipt["probe"]) < 1e-5
    for folder, model in (("start", policy), ("reward", critic)):
        before = type(model).from_pretrained(folder)
        assert probe_gap(probe(before, prompts), probe(model, prompts)) > 1e-4
    assert AutoTokenizer.from_pretrained(out / "critic").chat_template
    assert (out / "adapter/adapter_config.json").is_file() == lora
    # What was measured before and after, samples with scores, tokens, parents, and a page that shows all.
    assert {"score", "stops", "kl"} <= receipt["metrics"].keys() & receipt["metrics_before"].keys()
    assert receipt["metrics_before"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert receipt["metrics"]["kl"] > 0
    samples = written.read_json(out / "samples.json")
    assert all("score" in one for moment in ("before", "after") for one in samples[moment])
    assert {parent["kind"] for parent in receipt["parents"]} == {"model", "reward model"}
    assert receipt["tokens"]["trained"] < receipt["tokens"]["seen"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert receipt["tokens"]["seen"] == max(line.get("tokens", 0) for line in lines)
    assert any("eval_objective/gold" in line for line in lines)
    page = (out / "report.html").read_text()
    assert "Score of completions" in page
    assert "Reinforcement learning (PPO)" in page


@pytest.mark.slow
def test_a_run_on_one_base_leaves_a_policy_and_a_critic_that_load_as_any_model(toy, monkeypatch) -> None:
    """What is written is read back by a fresh process before the command ends with 0, and compared with the live models."""
    monkeypatch.chdir(toy)
    write_lora_reward(toy)
    keys = ("ppo.share_base=true", "ppo.reward_model=lora_reward", "ppo.rewards=[]", "train.max_steps=8")
    assert run(toy, *keys, lora=True) == 0
    receipt = written.read_json(toy / "out/receipt.json")
    policy = AutoModelForCausalLM.from_pretrained(toy / "out/final").eval()
    prompts = make_prompts(policy.config.vocab_size, policy.config.max_position_embeddings)
    assert probe_gap(probe(policy, prompts), receipt["probe"]) < 1e-5
    critic = AutoModelForSequenceClassification.from_pretrained(toy / "out/critic").eval()
    reward = AutoModelForSequenceClassification.from_pretrained(toy / "lora_reward/final").eval()
    assert probe_gap(probe(reward, prompts), probe(critic, prompts)) > 1e-4
    for folder in ("adapter", "critic_adapter"):
        assert written.read_json(toy / "out" / folder / "base.json")["path"] == "start"


@pytest.mark.slow
def test_a_run_that_was_cut_off_is_gone_on_with_by_the_same_command(toy, monkeypatch) -> None:
    from alignment.train.callbacks import RunLog

    monkeypatch.chdir(toy)
    assert run(toy, "train.max_steps=12", "train.save_steps=4") == 0
    whole = (toy / "out/final/model.safetensors").read_bytes()
    real = RunLog.on_step_end

    def cut_off(self, args, state, control, **kwargs) -> None:
        real(self, args, state, control, **kwargs)
        if state.global_step == 6:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "on_step_end", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(toy, "train.max_steps=12", "train.save_steps=4", fresh=True)
    assert run(toy, "train.max_steps=12", "train.save_steps=4") == 0
    assert (toy / "out/final/model.safetensors").read_bytes() == whole
    lines = [json.loads(line) for line in (toy / "out/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 4, 8, 12]


@pytest.mark.slow
def test_a_start_that_changed_since_is_refused_before_step_1(toy, monkeypatch, capsys) -> None:
    """The gate of every stage, on a policy that is one of two models."""
    monkeypatch.chdir(toy)
    assert run(toy, "train.max_steps=4") == 0
    path = toy / "out/final"
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.model.norm.weight.add_(0.1)
    model.save_pretrained(path)
    write(toy)
    request = TrainRequest(
        toy / "ppo.yaml", overrides=("model.path=out/final", "train.max_steps=4"), out=str(toy / "next")
    )
    assert run_worker(request) == 7
    assert "before step 1 the fixed prompts score differently" in capsys.readouterr().err


def test_a_reward_model_without_a_trained_head_is_refused(toy, monkeypatch, capsys) -> None:
    monkeypatch.chdir(toy)
    assert run(toy, "ppo.reward_model=start") == 7
    assert "has no trained score head" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ recipes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.max_steps=10"],
            "10 is not a whole number of updates: 2 epochs x 2 mini-batches are 4 steps; write 8 or 12",
        ),
        (["train.save_steps=6"], "save_steps: 6 is not a whole number of updates"),
        (["ppo.rewards=[]"], "nothing rewards a completion"),
        (["ppo.reward_weight=2"], "'reward_weight' is the reward model's"),
        (["ppo.value_model=reward"], "there is none"),
        (["ppo.kl_horizon=100"], "kl_horizon belongs to the adaptive controller"),
        (["ppo.kl_target=6", "ppo.kl_coef=0"], "kl_coef: 0 stays 0"),
        (["ppo.importance_cap=2"], "corrects for an engine that samples with other kernels"),
        (["ppo.stop_on=[reward_hacking]"], "give 'gold'"),
        (["lora.start=continue"], "the reference is the model with its adapter off"),
        (["lora.lora_dropout=0.1"], "stage ppo does not read 'lora_dropout' here; stages that do: sft"),
        (["train.keep=best"], "last was expected"),
        (["ppo.rewards=[{reward: honst}]"], "did you mean 'honest'"),
    ],
)
def test_keys_that_would_train_something_else_are_refused(toy, overrides: list[str], message: str) -> None:
    write(toy, lora=any(one.startswith("lora") for one in overrides))
    read = read_recipe(toy / "ppo.yaml", overrides)
    assert message in "\n".join(mistake.message + " " + mistake.advice for mistake in read.mistakes)
