"""The trainer: what must hold at its first step, how many steps there are, what it does not depend on, and that it learns."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from toy_ppo import TextRewards, get_weights, make_trainer, read_lines, vowel_share

from alignment.errors import DataError, DivergedError, LaunchError
from alignment.measure.batches import PROGRESS
from alignment.train.callbacks import FirstStepGate
from alignment.train.incidents import read_sizes
from alignment.train.memory import BatchTooLarge

SHORT = ("train.max_steps=4",)


def test_the_first_step_finds_kl_0_ratio_1_and_a_possible_entropy(toy) -> None:
    """In two mini-batches: the first is at the old policy, the second has moved."""
    trainer = make_trainer(toy, "train.max_steps=8", "train.logging_steps=1", gate=True)
    trainer.train()
    lines = read_lines(trainer)
    assert lines[0]["objective/kl"] == lines[0]["objective/kl_k3"] == 0.0
    assert lines[0]["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert lines[0]["policy/approxkl"] == pytest.approx(0.0, abs=1e-6)
    assert 0 <= lines[0]["policy/entropy"] <= math.log(270)
    assert lines[1]["val/ratio_var"] > 1e-8
    assert lines[4]["objective/kl"] != 0.0  # the second update's rollout
    assert lines[4]["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    assert set(lines[0]) >= {
        "objective/entropy", "objective/scores", "objective/rlhf_reward", "objective/non_score_reward", "loss/policy",
        "loss/value", "policy/clipfrac", "val/clipfrac", "val/explained_variance", "rollout/length", "rollout/eos_rate",
        "rollout/num_truncated", "lr",
    }  # fmt: skip
    assert {"time/rollout", "time/score", "time/update"} <= set(trainer.state.log_history[0])


@pytest.mark.parametrize("spoiled", ["reference", "temperature"])
def test_a_reference_or_temperature_that_is_not_the_policys_stops_the_run(toy, spoiled: str, monkeypatch) -> None:
    trainer = make_trainer(toy, *SHORT, gate=True)
    assert any(isinstance(one, FirstStepGate) for one in trainer.callback_handler.callbacks)
    if spoiled == "reference":
        with torch.no_grad():
            trainer.reference.model.norm.weight.mul_(1.5)
    else:
        real = trainer._reference_logps
        monkeypatch.setattr(trainer, "_reference_logps", lambda inputs: real(inputs | {"temperature": 0.5}))
    with pytest.raises(DivergedError, match="step 0: objective/kl"):
        trainer.train()


@pytest.mark.parametrize(("epochs", "mini_batches", "per_device"), [(1, 1, 8), (3, 1, 4), (2, 4, 2)])
def test_optimizer_steps_are_updates_times_epochs_times_mini_batches(
    toy, epochs: int, mini_batches: int, per_device: int
) -> None:
    trainer = make_trainer(
        toy, f"train.max_steps={2 * epochs * mini_batches}", f"ppo.num_ppo_epochs={epochs}",
        f"ppo.num_mini_batches={mini_batches}", f"train.per_device_train_batch_size={per_device}",
    )  # fmt: skip
    rollouts, steps = [], []
    real = trainer._make_rollout
    trainer._make_rollout = lambda update: rollouts.append(real(update)) or rollouts[-1]
    created = trainer.create_optimizer()
    created.register_step_post_hook(lambda *_: steps.append(1))
    trainer.train()
    assert len(steps) == trainer.state.global_step == 2 * epochs * mini_batches
    assert [len(rollout.rows) for rollout in rollouts] == [8 * mini_batches] * 2
    asked = [
        tuple(row[:length])
        for rollout in rollouts
        for row, length in zip(rollout.rows, rollout.prompt_lengths, strict=True)
    ]
    prompts = [tuple(ids) for ids in trainer.training.prepared.train["prompt_ids"]]
    assert asked == [prompts[row] for row in trainer.training.order]


def cut_raggedly(trainer) -> None:
    """Completions of 1 to 12 tokens: this policy hardly ever stops by itself."""
    real = trainer.sampler.sample

    def sample(prompts, *, seed: int, version: int) -> list:
        made = real(prompts, seed=seed, version=version)
        return [dataclasses.replace(one, ids=one.ids[: 1 + 5 * n % 12]) for n, one in enumerate(made)]

    trainer.sampler.sample = sample


def test_accumulation_is_not_seen(toy) -> None:
    """Completions of different lengths; SGD shows the gradient itself."""
    weights = []
    for per_device in (8, 2):
        trainer = make_trainer(
            toy, "train.max_steps=4", f"train.per_device_train_batch_size={per_device}", "train.optim=sgd",
            "train.learning_rate=0.1", "ppo.max_new_tokens=12", run=f"split{per_device}",
        )  # fmt: skip
        cut_raggedly(trainer)
        before = get_weights(trainer)
        trainer.train()
        weights.append(get_weights(trainer))
    assert (weights[0] - before).abs().max() > 1e-3
    assert (weights[0] - weights[1]).abs().max() < 2e-6


def test_sampling_depends_on_seed_and_update_alone(toy) -> None:
    def sample(run: str, disturb: bool, seed: int = 1) -> list:
        trainer = make_trainer(toy, "train.max_steps=8", "train.learning_rate=1e-12", run=run, seed=seed)
        seen, real = [], trainer._make_rollout

        def make_rollout(update: int):
            if disturb:
                torch.rand(17)
            seen.append((rollout := real(update)).rows)
            return rollout

        trainer._make_rollout = make_rollout
        trainer.train()
        return seen

    calm, disturbed, other = sample("a", False), sample("b", True), sample("c", False, seed=2)
    assert calm == disturbed
    assert calm[0] != calm[1]
    assert calm != other


def test_policy_and_critic_have_learning_rates_of_their_own(toy) -> None:
    trainer = make_trainer(toy, *SHORT, "ppo.critic_learning_rate=5e-3")
    trainer.train()
    assert read_lines(trainer)[-1]["lr"] == pytest.approx(1e-3)
    assert read_lines(trainer)[-1]["lr_critic"] == pytest.approx(5e-3)
    groups = trainer.optimizer.param_groups
    critic = {id(one) for one in trainer.model.critic.parameters()}
    assert {group["lr"] for group in groups if id(group["params"][0]) in critic} == {5e-3}
    assert sum(len(group["params"]) for group in groups) == sum(1 for _ in trainer.model.parameters())


def test_a_critic_warms_up_while_the_policy_stays_where_it_is(toy) -> None:
    trainer = make_trainer(
        toy, "train.max_steps=8", "ppo.critic_warmup_updates=1", "train.weight_decay=0.1", "train.logging_steps=1"
    )
    start = {name: one.detach().clone() for name, one in trainer.model.named_parameters()}
    moved = []
    trainer.create_optimizer().register_step_post_hook(
        lambda *_: moved.append(
            {part: any(not torch.equal(one, start[name]) for name, one in trainer.model.named_parameters() if name.startswith(part))
             for part in ("policy", "critic")}
        )
    )  # fmt: skip
    trainer.train()
    assert [one["policy"] for one in moved] == [False] * 4 + [True] * 4
    assert all(one["critic"] for one in moved)
    lines = read_lines(trainer)
    assert [line["grad_norm/policy"] == 0 for line in lines] == [True] * 4 + [False] * 4
    assert lines[4]["objective/kl"] == 0.0


def test_gradients_of_policy_and_critic_are_clipped_apart(toy) -> None:
    trainer = make_trainer(toy, *SHORT, "train.max_grad_norm=0.01")
    norms = []

    def take(*_) -> None:
        for part in (trainer.model.policy, trainer.model.critic):
            norms.append(
                torch.stack([one.grad.norm() for one in part.parameters() if one.grad is not None]).norm().item()
            )

    trainer.create_optimizer().register_step_pre_hook(take)
    trainer.train()
    assert norms == pytest.approx([0.01] * len(norms), rel=1e-3)
    line = read_lines(trainer)[0]
    assert line["grad_norm"] == pytest.approx(math.hypot(line["grad_norm/policy"], line["grad_norm/critic"]))


def test_an_evaluation_changes_nothing_of_training(toy) -> None:
    plain = make_trainer(toy, "train.max_steps=12", run="plain")
    plain.train()
    watched = make_trainer(toy, "train.max_steps=12", "train.eval_steps=4", "ppo.gold=contains_answer", run="watched")
    watched.train()
    assert torch.equal(get_weights(plain), get_weights(watched))
    evaluations = [line for line in watched.state.log_history if "eval_objective/scores" in line]
    assert len(evaluations) == 3
    assert evaluations[-1]["eval_objective/kl"] > 0
    assert "eval_objective/gold" in evaluations[0]


@pytest.mark.parametrize("longest", [1, 2])
def test_completions_that_are_all_cut_off_after_a_token_or_two_train(toy, longest: int) -> None:
    trainer = make_trainer(
        toy,
        *SHORT,
        f"ppo.max_new_tokens={longest}",
        "ppo.missing_eos_penalty=1",
        rewards=TextRewards(lambda text: sum(map(ord, text)) % 7),
    )
    before = get_weights(trainer)
    trainer.train()
    [line] = [line for line in read_lines(trainer) if "rollout/num_truncated" in line]
    assert line["rollout/length"] <= longest
    assert line["objective/non_score_reward"] == pytest.approx(-line["rollout/num_truncated"] / 16)
    after = get_weights(trainer)
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


def test_a_mini_batch_of_one_token_trains(toy) -> None:
    trainer = make_trainer(
        toy, "train.max_steps=2", "train.global_batch_size=1", "ppo.max_new_tokens=1", "ppo.num_mini_batches=1",
        rewards=TextRewards(len),
    )  # fmt: skip
    trainer.train()
    assert torch.isfinite(get_weights(trainer)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_or_weight_that_is_no_number_ends_the_run(toy, bad: float) -> None:
    trainer = make_trainer(toy, *SHORT, rewards=TextRewards(lambda text: bad))
    with pytest.raises(DivergedError, match="finite"):
        trainer.train()


def test_a_stale_completion_is_refused(toy) -> None:
    trainer = make_trainer(toy, "train.max_steps=8")
    real = trainer.sampler.sample
    trainer.sampler.sample = lambda prompts, seed, version: real(prompts, seed=seed, version=0)
    with pytest.raises(LaunchError, match="weights of step 0; those of step 4"):
        trainer.train()


def test_prompts_that_do_not_fill_an_update_are_refused(toy) -> None:
    with pytest.raises(DataError, match="at least one update of 64"):
        make_trainer(toy, "train.max_steps=null", "train.num_train_epochs=1", "train.global_batch_size=32")


def test_a_rollout_or_evaluation_that_does_not_fit_shrinks_its_own_batch(toy) -> None:
    def run_out(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    trainer = make_trainer(toy, *SHORT)
    trainer.sampler.sample = run_out
    with pytest.raises(BatchTooLarge, match=r"ppo\.per_device_rollout_batch_size is 4 since"):
        trainer.train()
    again = make_trainer(toy, *SHORT)
    assert (again.sampler._limits[-1], again.schedule.per_device_batch_size) == (4, 8)
    assert again.training.recipe == trainer.training.recipe
    again.held_out = SimpleNamespace(measure=run_out)
    with pytest.raises(BatchTooLarge, match=r"eval\.per_device_eval_batch_size is 4 since"):
        again.evaluate()
    assert read_sizes(again.training.context.run_dir) == {
        "ppo.per_device_rollout_batch_size": 4, "eval.per_device_eval_batch_size": 4,
    }  # fmt: skip


def test_a_recipes_greatest_seed_draws(toy) -> None:
    make_trainer(toy, "train.max_steps=4", seed=2**32 - 1).train()


def test_a_long_rollout_gives_signs_of_life_batch_by_batch(toy) -> None:
    trainer = make_trainer(toy, *SHORT, "ppo.per_device_rollout_batch_size=2")
    beats: list[str] = []
    PROGRESS.tell = lambda: beats.append("batch")
    try:
        trainer._make_rollout(0)
    finally:
        PROGRESS.tell = None
    assert len(beats) >= 2 * trainer.schedule.rollouts / 2  # sampled, and looked at


def test_what_an_update_reads_keeps_its_precision_under_deepspeed(toy, monkeypatch) -> None:
    """transformers casts all numbers of a batch to the dtype of the weights there; a log-probability of -11 would move by 3 %."""
    trainer = make_trainer(toy, *SHORT)
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    monkeypatch.setattr(type(trainer.accelerator.state), "deepspeed_plugin", plugin, raising=False)
    inputs = trainer._prepare_inputs(
        {"old_logps": torch.tensor([-11.03]), "before": (torch.tensor([0]), torch.tensor([1]))}
    )
    assert inputs["old_logps"].tolist() == torch.tensor([-11.03]).tolist()
    assert inputs["old_logps"].dtype == torch.float32


def test_alerts_are_noted_once_and_end_the_run_where_the_recipe_says(toy) -> None:
    keys = ("train.max_steps=12", "ppo.alerts.kl_per_token=1e-9", "train.learning_rate=1e-2")
    trainer = make_trainer(toy, *keys, run="said")
    trainer.train()
    assert [note.split(":")[1].strip() for note in trainer.training.notes] == ["alert kl"]
    assert any(line.get("alert/kl") for line in trainer.state.log_history)
    stopped = make_trainer(toy, *keys, "ppo.stop_on=[kl]", run="stopped")
    with pytest.raises(DivergedError, match=r"ppo\.stop_on"):
        stopped.train()


# ------------------------------------------------------------------------------------------------ it learns


def test_it_learns_to_write_vowels(toy) -> None:
    """Score from 0.2 to about 4 in 30 updates; 4 s of one core."""
    trainer = make_trainer(
        toy, "train.max_steps=120", "train.learning_rate=5e-3", "train.global_batch_size=32",
        "train.per_device_train_batch_size=32", "ppo.num_mini_batches=1", "ppo.num_ppo_epochs=4",
        "ppo.per_device_rollout_batch_size=64", "ppo.kl_coef=0.02", rewards=TextRewards(vowel_share), gate=True,
    )  # fmt: skip
    trainer.train()
    scores = [line["objective/scores"] for line in read_lines(trainer) if "objective/scores" in line]
    assert len(scores) == 30
    assert sum(scores[-3:]) / 3 > scores[0] + 1.5


def find_mass(model, trainer, tokens: torch.Tensor) -> torch.Tensor:
    """Probability that the first token after each prompt is among `tokens`, [prompts]."""
    prompts = trainer.training.prepared.train["prompt_ids"]
    with torch.no_grad():
        return torch.stack([model(torch.tensor([ids])).logits[0, -1].softmax(-1)[tokens].sum() for ids in prompts])


def test_it_finds_the_policy_that_is_known_to_be_best(toy) -> None:
    """One-token answers: reward 1 in a set S. With KL weight b the best policy is p(S) = q e^(1/b) / (q e^(1/b) + 1 - q)."""
    coefficient = 0.5
    trainer = make_trainer(
        toy, "train.max_steps=80", "train.learning_rate=4e-3", "train.lr_scheduler_type=linear",
        "train.global_batch_size=64", "train.per_device_train_batch_size=64", "ppo.num_mini_batches=1",
        "ppo.num_ppo_epochs=4", "ppo.max_new_tokens=1", "ppo.per_device_rollout_batch_size=64",
        f"ppo.kl_coef={coefficient}", rewards=TextRewards(lambda text: text.isalpha()),
    )  # fmt: skip
    tokenizer = trainer.training.tokenizer
    texts = [tokenizer.decode([number], skip_special_tokens=True) for number in range(len(tokenizer))]
    wanted = torch.tensor([number for number, text in enumerate(texts) if text.isalpha()])
    start = find_mass(trainer.reference, trainer, wanted)
    trainer.train()
    lifted = start * math.exp(1 / coefficient)
    best, found = (
        (lifted / (lifted + 1 - start)).mean().item(),
        find_mass(trainer.model.policy, trainer, wanted).mean().item(),
    )
    assert found > start.mean().item() + 0.3
    assert found == pytest.approx(best, abs=0.05)
