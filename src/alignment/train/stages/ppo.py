"""Reinforcement learning with PPO: prompts, rewards and a start policy to a verified policy and critic."""

import math
from dataclasses import replace
from functools import partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from alignment.errors import RecipeError
from alignment.models.dropout import disable_dropout
from alignment.models.load import Start, resolve_start
from alignment.models.tokenizer import load_tokenizer
from alignment.recipe.schema import PpoRecipe
from alignment.train.arguments import make_arguments
from alignment.train.callbacks import FirstStepGate
from alignment.train.context import StageContext
from alignment.train.finish import complete
from alignment.train.memory import ROLLOUT, shrinking
from alignment.train.part import PartView
from alignment.train.policy import (
    Policy,
    load_frozen,
    load_frozen_reward_model,
    load_trainable_critic,
    load_trainable_policy,
)
from alignment.train.ppo.actor_critic import ActorCritic
from alignment.train.ppo.rewards import RewardModel, Rewards, load_reward_chat, read_asked
from alignment.train.ppo.samplers import EngineSampler, Sampler, TransformersSampler
from alignment.train.ppo.shared_base import load_on_one_base
from alignment.train.ppo.trainer import PPOTrainer
from alignment.train.training import Training, open_training

# Nats a completion, and of the ratio. In fp32 both come out below 1e-5; in bfloat16 two shapes of a batch round apart.
KL_TOLERANCE = {False: 1e-3, True: 0.1}
RATIO_TOLERANCE = {False: 1e-3, True: 0.02}


def run(recipe: PpoRecipe, context: StageContext) -> None:
    """Trains, saves and verifies. Every rank calls it."""
    training = open_training(recipe, context)
    trainer, policy, critic = build(training)
    complete(
        training,
        trainer,
        policy,
        against=lambda: trainer.reference_view,
        scorer=lambda places, rows: trainer.rewards.score(read_asked(training.eval_rows, places), rows),
        beside=[critic],
    )


def build(training: Training, rewards: Rewards | None = None) -> tuple[PPOTrainer, Policy, Policy]:
    """The trainer with policy and critic, and what is needed to save them. Every rank must call it.

    Args:
        rewards: None: those of the recipe.
    """
    arguments = make_arguments(TrainingArguments, training)
    reward = None
    if training.recipe.ppo.share_base:
        models = load_on_one_base(training, with_reward=rewards is None)
        policy, critic, reward = models.policy, models.critic, models.reward
    else:
        policy = replace(load_trainable_policy(training), part="policy")
        critic = load_trainable_critic(training, find_critic_start(training))
    rewards = rewards or load_rewards(training, reward)
    trainer = PPOTrainer(
        ActorCritic(policy.model, critic.model, reward),
        arguments,
        training,
        reference=load_reference(training),
        rewards=rewards,
        make_sampler=make_sampler,
        callbacks=[*training.callbacks, make_gate(training)],
    )
    if reward is not None:
        rewards.ask(PartView(trainer, "reward"))
    training.log.tokens = trainer.tokens
    return trainer, policy, critic


def load_reference(training: Training) -> torch.nn.Module | None:
    """A frozen copy of the start policy; None where that is the policy without its adapter."""
    if training.recipe.lora is not None:
        return None
    reference = load_frozen(training, training.start.path)
    disable_dropout(reference)
    return reference


def find_critic_start(training: Training) -> Start:
    """What the critic's weights come from.

    Raises:
        RecipeError: a reward model whose tokens are not the policy's.
    """
    spec = training.recipe.ppo
    named = spec.value_model or ("reward" if spec.reward_model else "start")
    if named == "start":
        return training.start
    start = resolve_start(spec.reward_model if named == "reward" else named)
    if not _same_tokens(load_tokenizer(start.tokenizer, start.revision), training.tokenizer):
        raise RecipeError(
            f"ppo.value_model: {start.path} has another tokenizer than the policy, and the critic reads the policy's tokens. Write "
            "value_model: start, or name a model with the policy's tokenizer."
        )
    return start


def _same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether ids mean the same; tokens that only one side has added at the end do not matter."""
    ids, others = one.get_vocab(), other.get_vocab()
    shared = ids.keys() & others.keys()
    return len(shared) >= 0.99 * max(len(ids), len(others)) and all(ids[token] == others[token] for token in shared)


def load_rewards(training: Training, reward: PreTrainedModel | None = None) -> Rewards:
    """The rewards of the recipe, with the reward model in memory where there is one.

    Args:
        reward: the reward model, where it is in memory already.
    """
    spec, context = training.recipe.ppo, training.context
    if spec.reward_model is None:
        return Rewards(spec, None)
    start = resolve_start(spec.reward_model)
    trust = training.recipe.model.trust_remote_code
    chat = load_reward_chat(start, spec.reward_template, context.recipe_path.parent, trust_remote_code=trust)
    model = reward if reward is not None else load_frozen_reward_model(training, start)
    size = training.fitted.ppo.per_device_rollout_batch_size
    return Rewards(
        spec, RewardModel(model, chat, size, training.bf16), around=partial(shrinking, ROLLOUT, size, context)
    )


def make_sampler(trainer: PPOTrainer) -> Sampler:
    """What generates, as the recipe names it."""
    spec, manifest = trainer.spec, trainer.training.prepared.manifest
    if spec.sampler != "transformers":
        from alignment.train.trl_bridge.vllm import make_engine

        longest = trainer.training.recipe.data.max_length + spec.max_new_tokens
        engine = make_engine(trainer, spec, stop_ids=manifest["stop_ids"], max_length=longest)
        return EngineSampler(engine, trainer.training.tokenizer, manifest["stop_ids"])
    return TransformersSampler(
        trainer.policy_view,
        trainer.training.tokenizer,
        stop_ids=manifest["stop_ids"],
        pad_id=manifest["pad_id"],
        max_new_tokens=spec.max_new_tokens,
        batch_size=trainer.training.fitted.ppo.per_device_rollout_batch_size,
        temperature=spec.temperature,
        bf16=trainer.training.bf16,
    )


def make_gate(training: Training) -> FirstStepGate:
    """Before its first step the policy is its reference: KL is 0, the ratio 1, and the entropy between 0 and ln(vocabulary)."""
    bf16 = training.bf16
    middle = math.log(len(training.tokenizer)) / 2
    expected = {
        "objective/kl": (0.0, KL_TOLERANCE[bf16]),
        "objective/kl_k3": (0.0, KL_TOLERANCE[bf16]),
        "val/ratio": (1.0, RATIO_TOLERANCE[bf16]),
        "policy/entropy": (middle, middle + 1e-3),
    }
    reason = (
        "Before the first step the policy is its reference, and the probabilities of sampled tokens are those of training. Dropout, "
        "another temperature, shifted tokens or another reference show here."
    )
    return FirstStepGate(expected, reason)
