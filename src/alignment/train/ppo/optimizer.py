"""One optimizer over policy and critic: learning rates, warm-up and clipping of each by itself."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR

from alignment.train.ppo.actor_critic import ActorCritic

POLICY, CRITIC = "policy", "critic"


def split_groups(optimizer: torch.optim.Optimizer, model: ActorCritic, critic_learning_rate: float) -> list[str]:
    """Splits the parameter groups of a fresh optimizer, and gives the critic's their learning rate.

    Returns:
        Whose each group is, in their order.
    """
    of_critic = {id(parameter) for parameter in model.critic.parameters()}
    groups, owners = [], []
    for group in optimizer.param_groups:
        for owner in (POLICY, CRITIC):
            parameters = [one for one in group["params"] if (id(one) in of_critic) == (owner == CRITIC)]
            if parameters:
                rate = critic_learning_rate if owner == CRITIC else group["lr"]
                groups.append(group | {"params": parameters, "lr": rate})
                owners.append(owner)
    optimizer.param_groups[:] = groups
    return owners


def hold_policy(scheduler: LambdaLR, owners: Sequence[str], steps: int) -> None:
    """Keeps the policy's learning rate at 0 for the first `steps`, whatever the schedule is; the critic's follows it."""

    def held(factor: Callable[[int], float]) -> Callable[[int], float]:
        return lambda step: 0.0 if step < steps else factor(step)

    scheduler.lr_lambdas = [
        held(factor) if owner == POLICY else factor for owner, factor in zip(owners, scheduler.lr_lambdas, strict=True)
    ]
    rates = [
        base * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def clip_apart(accelerator: Any, model: ActorCritic, max_norm: float) -> tuple[float, dict[str, float]]:
    """Clips the gradients of policy and critic each to `max_norm`: a critic that is far off does not hold the policy back.

    Returns:
        The norm of both together before, and of each.
    """
    norms = {}
    for name in (POLICY, CRITIC):
        parameters = [one for one in getattr(model, name).parameters() if one.requires_grad]
        norm = accelerator.clip_grad_norm_(parameters, max_norm)
        norms[f"grad_norm/{name}"] = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    return math.hypot(*norms.values()), norms
