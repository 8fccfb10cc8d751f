"""Gradients of the two losses, by finite differences and at the places where they must vanish."""

import pytest
import torch

from alignment.train.ppo.losses import policy_loss, value_loss

N = 12


def draw(seed: int, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clipped_loss(logps, old, advantages, **further):
    return policy_loss(logps, old, advantages, denominator=N, clip_low=0.2, clip_high=0.3, **further)


@pytest.mark.parametrize("weights", [None, draw(9).abs()])
def test_the_policy_gradient_is_that_of_finite_differences(weights) -> None:
    logps = draw(0, 0.4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: clipped_loss(x, draw(1, 0.1), draw(2), weights_N=weights)[0], logps)


@pytest.mark.parametrize("clip", [0.0, 0.2])
def test_the_value_gradient_is_that_of_finite_differences(clip: float) -> None:
    values = draw(0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: value_loss(x, draw(1), draw(2), denominator=N, clip=clip)[0], values)


def test_exactly_the_tokens_beyond_the_clip_on_the_good_side_have_no_gradient() -> None:
    """Ratios 0.7, 0.9, 1.25, 1.4 with advantages of either sign; the clip is 0.8 to 1.3."""
    ratios = torch.tensor([0.7, 0.9, 1.25, 1.4] * 2, dtype=torch.float64)
    advantages = torch.tensor([1.0] * 4 + [-1.0] * 4, dtype=torch.float64)
    logps = ratios.log().requires_grad_()
    loss, sums = clipped_loss(logps, torch.zeros(8, dtype=torch.float64), advantages)
    loss.backward()
    # A good token may not be made still likelier than 1.3, a bad one not still less likely than 0.8.
    still = (logps.grad == 0).tolist()
    assert still == [False, False, False, True, True, False, False, False]
    assert sums["clipped"] == 2


def test_at_ratio_1_the_gradient_is_the_plain_policy_gradient() -> None:
    logps, advantages = draw(0).requires_grad_(), draw(2)
    loss, sums = clipped_loss(logps, logps.detach(), advantages)
    loss.backward()
    torch.testing.assert_close(logps.grad, -advantages / N)
    assert sums["ratio"] == N
    assert sums["approx_kl"] == 0


def test_a_value_that_has_moved_beyond_its_clip_towards_its_target_has_no_gradient() -> None:
    values = torch.tensor([0.5, 0.1, -0.5], dtype=torch.float64, requires_grad=True)
    old, target = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    loss, sums = value_loss(values, old, target, denominator=3, clip=0.2)
    loss.backward()
    # 0.5 is held at 0.2, which is farther from 1; 0.1 is inside; -0.5 went the wrong way and is let back.
    assert values.grad.tolist() == pytest.approx([0.0, (0.1 - 1) / 3, (-0.5 - 1) / 3])
    assert sums["value_clipped"] == 1


def test_a_ratio_beyond_all_bounds_stays_finite() -> None:
    logps = torch.tensor([500.0, -500.0], requires_grad=True)
    loss, sums = policy_loss(
        logps, torch.zeros(2), torch.tensor([-1.0, 1.0]), denominator=2, clip_low=0.2, clip_high=0.2
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logps.grad).all()
    assert all(torch.isfinite(value) for value in sums.values())
