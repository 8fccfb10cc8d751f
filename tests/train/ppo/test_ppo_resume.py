"""A run that was cut off ends as if it had not been, to the last bit; within an update there is nothing to go on from."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_ppo import get_weights, make_trainer, read_lines
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    MixtralForSequenceClassification,
    TrainerCallback,
)

from alignment.errors import ArtifactError
from alignment.train.ppo.actor_critic import ActorCritic
from alignment.train.ppo.checkpoint import load_parts, save_parts

# Everything that is carried over is on: adaptive KL, a running scale, alerts' first update, a critic's warm-up.
KEYS = (
    "train.max_steps=20", "train.save_steps=4", "train.save_total_limit=9", "train.lr_scheduler_type=cosine",
    "train.warmup_steps=3", "ppo.kl_target=0.5", "ppo.kl_horizon=100", "ppo.scale_scores=true", "ppo.critic_warmup_updates=1",
    "ppo.critic_learning_rate=2e-3",
)  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["full", "lora"])
def whole(request, toy_folder, tmp_path_factory):
    """A run of five updates with a checkpoint after each, and its trainer."""
    folder = tmp_path_factory.mktemp("whole") / "toy"
    shutil.copytree(toy_folder, folder)
    trainer = make_trainer(folder, *KEYS, run="whole", lora=request.param)
    trainer.train()
    return folder, trainer, request.param


def checkpoint(folder: Path, step: int) -> str:
    return str(folder / "whole/checkpoints" / f"checkpoint-{step}")


@pytest.mark.parametrize(
    "step", [4, 8, 12, 16]
)  # in warm-up's last moment, within an epoch of prompts, and in the next one
def test_a_resumed_run_is_the_same_to_the_last_bit(whole, step: int) -> None:
    folder, uncut, lora = whole
    again = make_trainer(folder, *KEYS, run=f"again{step}", lora=lora)
    torch.manual_seed(12345)  # another world
    again.train(resume_from_checkpoint=checkpoint(folder, step))
    assert torch.equal(get_weights(uncut), get_weights(again))
    assert vars(uncut.kl) == vars(again.kl)
    assert vars(uncut.scale) == vars(again.scale)
    assert vars(uncut.watch) == vars(again.watch)
    assert vars(uncut.tokens) == vars(again.tokens)
    ours = [line for line in read_lines(uncut) if line["step"] > step]
    assert [line for line in read_lines(again) if line["step"] > step] == ours
    assert len({line["objective/kl_coef"] for line in ours if "objective/kl_coef" in line}) == (20 - step) // 4


def test_a_checkpoint_holds_both_models_as_models(toy) -> None:
    trainer = make_trainer(toy, "train.max_steps=4")
    trainer.train()
    folder = toy / "run/checkpoints/checkpoint-4"
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    critic = AutoModelForSequenceClassification.from_pretrained(folder / "critic")
    for loaded, trained in ((policy, trainer.model.policy), (critic, trainer.model.critic)):
        assert all(
            torch.equal(one, other) for one, other in zip(loaded.parameters(), trained.parameters(), strict=True)
        )
    # transformers' own state_dict saving would have refused tied weights, or written them twice.
    assert "lm_head.weight" not in load_file(folder / "policy/model.safetensors")


def test_experts_of_policy_and_critic_come_back(tmp_path: Path) -> None:
    """transformers writes each by itself, and holds those of a layer as one."""
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    config = MixtralConfig(vocab_size=64, **sizes, num_local_experts=2, num_labels=1, pad_token_id=0)
    model = ActorCritic(MixtralForCausalLM(config), MixtralForSequenceClassification(config))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_parts(model, tmp_path, None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_parts(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_checkpoint_within_an_update_is_refused(toy) -> None:
    make_trainer(toy, "train.max_steps=8", "train.save_steps=4", run="whole").train()
    folder = toy / "whole/checkpoints/checkpoint-4"
    state = json.loads((folder / "trainer_state.json").read_text())
    (folder / "trainer_state.json").write_text(json.dumps(state | {"global_step": 3}))
    again = make_trainer(toy, "train.max_steps=8", "train.save_steps=4", run="again")
    with pytest.raises(ArtifactError, match="taken within an update of 4 steps"):
        again.train(resume_from_checkpoint=str(folder))


def test_a_save_or_stop_that_is_asked_for_within_an_update_waits_for_its_end(toy) -> None:
    trainer = make_trainer(toy, "train.max_steps=12")
    seen = []

    class Ask(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 5:
                control.should_save = control.should_training_stop = True
            return control

        def on_save(self, args, state, control, **_):
            seen.append(state.global_step)

    trainer.add_callback(Ask())
    trainer.train()
    assert seen == [8]
    assert trainer.state.global_step == 8


def test_a_checkpoint_that_lost_a_file_is_refused(toy) -> None:
    make_trainer(toy, "train.max_steps=8", "train.save_steps=4", run="whole").train()
    folder = toy / "whole/checkpoints/checkpoint-4"
    (folder / "ppo_state.json").unlink()
    with pytest.raises(ArtifactError, match=r"ppo_state\.json: not found"):
        make_trainer(toy, "train.max_steps=8", "train.save_steps=4", run="a").train(resume_from_checkpoint=str(folder))
    shutil.rmtree(folder / "critic")
    with pytest.raises(ArtifactError, match="critic: 21 weights are missing"):
        make_trainer(toy, "train.max_steps=8", "train.save_steps=4", run="b").train(resume_from_checkpoint=str(folder))
