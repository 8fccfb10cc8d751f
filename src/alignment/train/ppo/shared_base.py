"""Policy, reference, critic and reward model on one base: its weights are in memory once, and each model has an adapter of its own.

The models share tensors, not modules. peft's way, several adapters on one model of which one is active, loses gradients: its
`set_adapter` also says which adapter is trainable, and checkpointing computes a forward pass anew under whichever adapter is active
by then (tests/train/ppo/test_ppo_shared_base.py plants both). Here nothing is switched between a forward and its backward pass, so every
kind of checkpointing, DDP and ZeRO see ordinary models, some of whose frozen weights are the same.
"""

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel, set_seed

from alignment.errors import LaunchError, RecipeError
from alignment.models.build import fit_embeddings
from alignment.models.hashes import hash_weights
from alignment.models.load import AUTO_CLASSES, BASE_FILE, Start, read_saved_dtype, resolve_start, whole_weights
from alignment.models.lora import add_adapter, put_trained_adapter
from alignment.models.score_head import score_in_fp32
from alignment.train.policy import (
    ONE_DTYPE_STRATEGIES,
    Policy,
    adapter_task,
    load_dtype,
    load_whole,
    model_options,
    settle,
)
from alignment.train.training import Training


@dataclass(frozen=True)
class OnOneBase:
    """The models of a run. The reference is the policy without its adapter.

    Attributes:
        reward: the frozen reward model; None where there is none, or where it has weights of its own.
    """

    policy: Policy
    critic: Policy
    reward: PreTrainedModel | None


def load_on_one_base(training: Training, *, with_reward: bool) -> OnOneBase:
    """Loads the base once and puts the adapters on it. Every rank must call it.

    Args:
        with_reward: put the reward model on the base too, where its run was LoRA on just these weights.

    Raises:
        RecipeError: the critic is to start from a reward model that is not on this base.
        LaunchError: the strategy cannot hold a weight that two models have.
    """
    strategy, lora = training.context.strategy, training.recipe.lora
    if strategy == "fsdp2":
        raise LaunchError(
            "ppo.share_base: fsdp2 deals out the weights of each model by itself, and a tensor that two models have cannot be dealt out "
            "twice. Launch it with ddp, zero1, zero2 or zero3, or leave share_base out."
        )
    fp32_adapter = strategy not in ONE_DTYPE_STRATEGIES
    trained = find_reward_adapter(training)
    base = load_whole(training.start, "causal", load_dtype(training), **model_options(training))
    new_rows = fit_embeddings(base, training.tokenizer)
    # Before the policy's adapter: it replaces modules of the base.
    critic = make_classifier_on(base)
    reward = make_classifier_on(base) if trained and with_reward else None
    set_seed(training.recipe.seed)  # each adapter's first weights are drawn from it, as in the form with two bases
    policy = _describe(training, add_adapter(base, lora, "causal", fp32_adapter=fp32_adapter), "causal")
    if reward is not None:
        reward = put_trained_adapter(reward, trained, trainable=False, fp32_adapter=fp32_adapter).eval()
    if trained and training.recipe.ppo.value_model != "start":
        critic = put_trained_adapter(critic, trained, trainable=True, fp32_adapter=fp32_adapter)
    else:
        set_seed(training.recipe.seed)
        critic = add_adapter(critic, lora, "reward", fp32_adapter=fp32_adapter)
    return OnOneBase(
        policy=settle(training, replace(policy, part="policy", new_rows=new_rows)),
        critic=settle(training, replace(_describe(training, critic, "reward"), folder="critic", part="critic")),
        reward=reward,
    )


def _describe(training: Training, model: PreTrainedModel, kind: str) -> Policy:
    start = training.start
    dtype = read_saved_dtype(start, training.recipe.model.dtype)
    return Policy(model=model, kind=kind, start=start, base=start, saved_dtype=dtype)


def make_classifier_on(causal: PreTrainedModel) -> PreTrainedModel:
    """A sequence classifier on the very tensors of a causal model's body, with modules of its own and a head that says 0.

    Raises:
        RecipeError: the architecture's classifier has another body.
    """
    config = copy.deepcopy(causal.config)
    config.num_labels = 1
    with torch.device("meta"), whole_weights():
        model = AUTO_CLASSES["reward"].from_config(config)
    body = causal.base_model
    if type(model.base_model) is not type(body) or body is causal:
        raise RecipeError(
            f"ppo.share_base: the critic of {type(causal).__name__} would be {type(model).__name__}, which has another body; leave "
            "share_base out."
        )
    # What the copy finds in its memo it does not copy.
    setattr(model, model.base_model_prefix, copy.deepcopy(body, {id(one): one for one in body.parameters()}))
    some = next(body.parameters())
    shape = model.score.weight.shape
    model.score = nn.Linear(shape[1], shape[0], bias=model.score.bias is not None, dtype=some.dtype, device=some.device)
    nn.init.zeros_(model.score.weight)
    if model.score.bias is not None:
        nn.init.zeros_(model.score.bias)
    if left := [name for name, one in model.named_parameters() if one.is_meta]:
        raise RecipeError(
            f"ppo.share_base: {type(model).__name__} has weights that {type(causal).__name__} lacks ({left[0]}); leave share_base out."
        )
    return score_in_fp32(model)


def find_reward_adapter(training: Training) -> Path | None:
    """The adapter of the recipe's reward run, where it was trained on just the weights that the policy starts from.

    Raises:
        RecipeError: the recipe wants the critic to start from it, and it was not.
    """
    spec, start = training.recipe.ppo, training.start
    reason = "there is no reward model"
    if spec.reward_model is not None:
        reward = resolve_start(spec.reward_model)
        if reward.trained_adapter is None:
            reason = f"{spec.reward_model} is no LoRA run, all its weights are its own"
        elif adapter_task(reward.trained_adapter) != "reward" or not _is_on(reward.trained_adapter, start):
            reason = f"the adapter of {spec.reward_model} is on other weights than {start.path}"
        else:
            return reward.trained_adapter
    if spec.value_model == "reward":
        raise RecipeError(
            f"ppo.value_model: reward; {reason}, and with share_base the critic is on the policy's base. Write value_model: start, train the "
            "reward model as LoRA on the policy's start, or leave share_base out."
        )
    return None


def _is_on(adapter: Path, start: Start) -> bool:
    """Whether an adapter was trained on the model of `start`: by the hash of its weights, or of a Hub model by name and revision."""
    if start.adapter is not None or not (adapter / BASE_FILE).is_file():
        return False
    noted = json.loads((adapter / BASE_FILE).read_text(encoding="utf-8"))
    if start.is_local:
        return noted.get("weights_hash") is not None and noted["weights_hash"] == hash_weights(Path(start.model))
    return not noted["local"] and (noted["path"], noted["revision"]) == (start.model, start.revision)
