"""Two ranks make the same completions and the same weights as one process, under every strategy, and resume as one process does."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from lora_reward import write_lora_reward
from toy_ppo import RECIPES_OWN, TextRewards, make_trainer, read_lines

from alignment.launch.check import check_launch
from alignment.launch.environment import settle_environment
from alignment.launch.ranks import run_ranks

CONFIGS = Path(__file__).parents[3] / "accelerate_configs"
KEYS = ("train.max_steps=8", "train.per_device_train_batch_size=2", "ppo.kl_target=0.5", "ppo.max_new_tokens=8")
# Adam would divide rounding by rounding, and ZeRO clips both models together.
SGD = ("train.optim=sgd", "train.learning_rate=0.02", "train.max_grad_norm=1000")


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def train(
    folder: Path, name: str, *keys: str, lora: bool = False, resume: str | None = None, rewards: str | None = None
) -> int:
    """Trains the toy in this rank; rank 0 writes the whole weights, the samples and the lines to `name`.pt."""
    environment = settle_environment()
    trainer = make_trainer(
        folder, *KEYS, *keys, run=f"{name}-{environment.rank}" if resume is None else name, lora=lora, gate=True,
        rewards=rewards or TextRewards(lambda text: len(text) / 10), rank=environment.rank, world_size=environment.world_size,
        strategy=environment.strategy,
    )  # fmt: skip
    trainer.args.output_dir = str(folder / name)  # of all ranks the same
    samples, real = [], trainer._make_rollout

    def make_rollout(update: int):
        samples.append((rollout := real(update)).rows)
        return rollout

    trainer._make_rollout = make_rollout
    real_begin = trainer.callback_handler.on_train_begin

    def on_train_begin(*arguments):
        check_launch(trainer, environment)
        return real_begin(*arguments)

    trainer.callback_handler.on_train_begin = on_train_begin
    trainer.train(resume_from_checkpoint=resume)
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    evaluated = trainer.evaluate()
    if environment.rank == 0:
        facts = {
            "weights": {key: value.detach().float().cpu() for key, value in state.items()},
            "samples": samples,
            "lines": read_lines(trainer),
            "evaluated": evaluated,
            "frozen": [share_held(model) for model in frozen_models(trainer)],
        }
        torch.save(facts, folder / f"{name}.pt")
    return 0


def frozen_models(trainer) -> list[torch.nn.Module]:
    reward = getattr(trainer.rewards, "_reward_model", None)
    return [model for model in (trainer.reference, reward and reward.model) if isinstance(model, torch.nn.Module)]


def share_held(model: torch.nn.Module) -> float:
    """The part of a model's weights that lies on this rank."""
    whole = held = 0
    for parameter in model.parameters():
        if hasattr(parameter, "ds_tensor"):
            whole, held = whole + parameter.ds_numel, held + parameter.ds_tensor.numel()
        else:
            own = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            whole, held = whole + parameter.numel(), held + own.numel()
    return held / whole


def load(folder: Path, name: str) -> dict:
    return torch.load(folder / f"{name}.pt", weights_only=False)


def launch(folder: Path, name: str, strategy: str | None, *keys: str, **further) -> dict:
    config = None if strategy is None else CONFIGS / f"{strategy}.yaml"
    num_processes = 1 if strategy is None else 2
    code = run_ranks(
        lambda: train(folder, name, *keys, **further),
        config=config,
        num_processes=num_processes,
        log_dir=folder / "logs",
    )
    assert code == 0
    return load(folder, name)


@pytest.fixture(scope="module")
def one_process(toy_folder, tmp_path_factory) -> dict[bool, tuple[Path, dict]]:
    """Without and with LoRA: the folder and what one process made."""
    os.environ["OMP_NUM_THREADS"] = "1"
    made = {}
    for lora in (False, True):
        folder = tmp_path_factory.mktemp("one") / "toy"
        shutil.copytree(toy_folder, folder)
        made[lora] = (folder, launch(folder, "one", None, *SGD, lora=lora))
    return made


def compare(found: dict, expected: dict) -> None:
    assert found["samples"] == expected["samples"]
    shared = found["weights"].keys() & expected["weights"].keys()
    only = {name for name in expected["weights"].keys() ^ shared if not name.endswith("lm_head.weight")}
    assert not only  # a tied head is written once or twice
    gaps = {name: (found["weights"][name] - expected["weights"][name]).abs().max().item() for name in shared}
    assert max(gaps.values()) < 1e-6, max(gaps, key=gaps.get)
    for one, other in zip(found["lines"], expected["lines"], strict=True):
        for name in ("loss", "objective/kl", "objective/scores", "policy/approxkl", "val/ratio", "loss/value", "lr"):
            if name in other:
                assert one[name] == pytest.approx(other[name], abs=1e-5), name
    for name, value in expected["evaluated"].items():
        assert found["evaluated"][name] == pytest.approx(value, abs=1e-5), name


def test_two_ranks_of_ddp_are_one_process(one_process) -> None:
    """Accumulation 4 on one process, 2 on two; completions included, which are sampled on both ranks."""
    folder, expected = one_process[False]
    compare(launch(folder, "ddp", "ddp", *SGD), expected)


@pytest.mark.slow
@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_two_ranks_of_every_strategy_are_one_process(one_process, strategy: str, lora: bool) -> None:
    folder, expected = one_process[lora]
    compare(launch(folder, f"{strategy}-all", strategy, *SGD, lora=lora), expected)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp2"])
def test_ranks_that_were_cut_off_go_on_to_the_same_weights(one_process, strategy: str) -> None:
    folder, _ = one_process[False]
    keys = ("train.save_steps=4",)
    whole = launch(folder, f"{strategy}-whole", strategy, *keys)
    checkpoint = folder / f"{strategy}-whole/checkpoint-4"
    again = launch(folder, f"{strategy}-again", strategy, *keys, resume=str(checkpoint))
    assert again["samples"] == whole["samples"][1:]
    assert all(torch.equal(value, again["weights"][name]) for name, value in whole["weights"].items())


@pytest.fixture(scope="module")
def judged(toy_folder, tmp_path_factory) -> tuple[Path, tuple[str, ...], dict]:
    """Full fine-tuning beside a reference and a reward model: the folder, the keys, and what one process made."""
    folder = tmp_path_factory.mktemp("judged") / "toy"
    shutil.copytree(toy_folder, folder)
    keys = (*SGD, f"ppo.reward_model={folder / 'reward'}", "ppo.value_model=reward", "ppo.rewards=[]")
    return folder, keys, launch(folder, "one", None, *keys, rewards=RECIPES_OWN)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp2"])
def test_reference_and_reward_model_are_dealt_out_where_the_policy_is(judged, strategy: str) -> None:
    folder, keys, expected = judged
    found = launch(folder, strategy, strategy, *keys, rewards=RECIPES_OWN)
    compare(found, expected)
    assert expected["frozen"] == [1, 1]
    assert found["frozen"] == pytest.approx([0.5, 0.5] if strategy in ("zero3", "fsdp2") else [1, 1], abs=0.01)


@pytest.fixture(scope="module")
def one_base(toy_folder, tmp_path_factory) -> tuple[Path, tuple[str, ...], dict]:
    """Policy, critic and reward model as adapters on one base: the folder, the keys, and what one process made."""
    folder = tmp_path_factory.mktemp("base") / "toy"
    shutil.copytree(toy_folder, folder)
    reward = write_lora_reward(folder)
    keys = ("ppo.share_base=true", f"ppo.reward_model={reward}", "ppo.rewards=[]", "train.save_steps=4")
    return folder, keys, launch(folder, "one", None, *SGD, *keys, lora=True, rewards=RECIPES_OWN)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3"])
def test_two_ranks_on_one_base_are_one_process_and_go_on_where_they_were_cut_off(one_base, strategy: str) -> None:
    folder, keys, expected = one_base
    form = {"lora": True, "rewards": RECIPES_OWN}
    whole = launch(folder, strategy, strategy, *SGD, *keys, **form)
    compare(whole, expected)
    checkpoint = folder / f"{strategy}/checkpoint-4"
    again = launch(folder, f"{strategy}-again", strategy, *SGD, *keys, **form, resume=str(checkpoint))
    assert all(torch.equal(value, again["weights"][name]) for name, value in whole["weights"].items())
