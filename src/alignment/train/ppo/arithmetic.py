"""The arithmetic of PPO on plain tensors: rewards of tokens, advantages, whitening, divergences.

No model, no trainer and no process group: an update's completions are on every rank, so a mean over them is the mean over all.

Shapes: B completions, T positions of the longest one. `mask` is 1 on every generated token, the stop token included, and 0
on padding; tokens that count may have holes between them. Values, rewards and advantages are in fp32 unless given otherwise.
"""

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the elements whose mask is 1; 0 when there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """Variance 1 over the masked elements, and mean 0 unless `shift_mean` is off. Two passes in float64.

    A single element, and elements that are all alike, become 0 (or stay where they are without the shift): there is nothing to scale.
    """
    mask_64 = mask.double()
    count = mask_64.sum()
    mean = (values.double() * mask_64).sum() / count.clamp(min=1)
    variance = ((values.double() - mean).square() * mask_64).sum() / (count - 1).clamp(min=1)
    scaled = (values.double() - mean) * torch.rsqrt(variance + eps)
    return ((scaled if shift_mean else scaled + mean) * mask_64).to(values.dtype)


def kl_k1(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """log p - log q of tokens sampled from p: unbiased for KL(p || q), and negative at times.

    http://joschu.net/blog/kl-approx.html
    """
    return logps - reference_logps


def kl_k3(logps: Tensor, reference_logps: Tensor) -> Tensor:
    """q/p - 1 - log(q/p) of tokens sampled from p: unbiased for KL(p || q), never negative, of less variance where both are near.

    http://joschu.net/blog/kl-approx.html
    """
    log_ratio = reference_logps - logps
    return torch.expm1(log_ratio) - log_ratio


def last_token(mask: Tensor) -> Tensor:
    """Position of the last token that counts, [B]. Every row has one."""
    positions = torch.arange(1, mask.size(1) + 1, device=mask.device)
    return (mask.long() * positions).argmax(dim=1)


def token_rewards(scores_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, kl_coef: float) -> Tensor:
    """-kl_coef * KL at every token, and the score on the last one: https://arxiv.org/abs/1909.08593, section 2."""
    rewards_BT = -kl_coef * kl_BT * mask_BT
    return rewards_BT.scatter_add(1, last_token(mask_BT)[:, None], scores_B[:, None].to(rewards_BT.dtype))


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation, https://arxiv.org/abs/1506.02438, equation 16.

    The step after the last token that counts has value 0. Positions that do not count are passed over: what is around a hole
    sees what is on its other side.

    Args:
        values_BT: of the state before each token.

    Returns:
        Advantages and returns (advantage + value) [B, T]; 0 where the mask is.
    """
    mask_BT = mask_BT.to(values_BT.dtype)
    advantages = torch.zeros_like(values_BT)
    next_value = torch.zeros_like(values_BT[:, 0])
    next_advantage = torch.zeros_like(values_BT[:, 0])
    for t in reversed(range(values_BT.size(1))):
        counts = mask_BT[:, t] > 0
        delta = rewards_BT[:, t] + gamma * next_value - values_BT[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_advantage = torch.where(counts, advantage, next_advantage)
        next_value = torch.where(counts, values_BT[:, t], next_value)
        advantages[:, t] = torch.where(counts, advantage, advantages[:, t])
    return advantages, (advantages + values_BT) * mask_BT


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 for a critic that knows, 0 for one that says the mean; nan without variance."""
    counts = mask > 0
    y, error = returns.double()[counts], (returns - values).double()[counts]
    variance = y.var(unbiased=False).item()
    return 1 - error.var(unbiased=False).item() / variance if variance > 0 else float("nan")


def importance_weights(logps: Tensor, sampler_logps: Tensor, *, cap: float) -> Tensor:
    """min(p/q, cap) of tokens that another engine sampled with probability q: truncated importance sampling.

    Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training". The log ratio is clamped first.
    """
    return (logps - sampler_logps).clamp(-20.0, 20.0).exp().clamp(max=cap)
