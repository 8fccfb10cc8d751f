"""Policy and value loss of PPO, https://arxiv.org/abs/1707.06347.

They take flat tokens: padding never gets here. A sum is divided by what the caller says, which is the number of tokens of the whole
mini-batch over all ranks: neither accumulation nor the number of ranks changes a gradient.

Shapes: N generated tokens of one forward pass.
"""

import torch
from torch import Tensor

LOG_RATIO_LIMIT = 20.0  # exp of it is still finite in fp32, with room for a sum


def policy_loss(
    logps_N: Tensor,
    old_logps_N: Tensor,
    advantages_N: Tensor,
    *,
    denominator: float,
    clip_low: float,
    clip_high: float,
    weights_N: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The clipped surrogate, equation 7, and sums over the tokens.

    Args:
        weights_N: importance weights of tokens that another engine sampled.

    Returns:
        The loss, and `clipped`, `approx_kl` (k3 against the old policy), `ratio` and `ratio_squared` as sums.
    """
    log_ratio = (logps_N - old_logps_N).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = log_ratio.exp()
    free = -advantages_N * ratio
    held = -advantages_N * ratio.clamp(1 - clip_low, 1 + clip_high)
    loss_N = torch.maximum(free, held)
    if weights_N is not None:
        loss_N = loss_N * weights_N
    with torch.no_grad():
        sums = {
            "clipped": (held > free).sum(),
            "approx_kl": (ratio - 1 - log_ratio).sum(),
            "ratio": ratio.sum(),
            "ratio_squared": ratio.square().sum(),
        }
    return loss_N.sum() / denominator, sums


def value_loss(
    values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, *, denominator: float, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Half the squared error, the greater of that of the value and that of the value held near the old one.

    https://arxiv.org/abs/1506.02438 has no such clip; it is that of OpenAI's baselines (ppo2), which RLHF took over.

    Args:
        clip: how far a value may be from the old one; 0 holds nothing.
    """
    error_N = (values_N - returns_N).square()
    clipped = torch.zeros((), dtype=torch.long, device=values_N.device)
    if clip:
        held_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
        held_error_N = (held_N - returns_N).square()
        clipped = (held_error_N > error_N).sum()
        error_N = torch.maximum(error_N, held_error_N)
    return 0.5 * error_N.sum() / denominator, {"value_clipped": clipped}
