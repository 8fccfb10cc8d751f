"""The arithmetic of PPO against slow oracles and values worked out by hand."""

import itertools
import math

import pytest
import torch

from alignment.train.ppo.arithmetic import (
    explained_variance,
    gae,
    importance_weights,
    kl_k1,
    kl_k3,
    last_token,
    token_rewards,
    whiten,
)

LENGTHS = (5, 1, 3, 4)


def make_mask(lengths=LENGTHS) -> torch.Tensor:
    return (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).double()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gae_by_definition(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """The double sum: A_t = sum over l of (gamma lam)^l (r_{t+l} + gamma V_{t+l+1} - V_{t+l})."""
    values = [*values, 0.0]
    deltas = [reward + gamma * values[t + 1] - values[t] for t, reward in enumerate(rewards)]
    return [sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, len(deltas))) for t in range(len(deltas))]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.8), (1.0, 1.0), (0.99, 0.0)])
def test_advantages_are_the_double_sum(gamma: float, lam: float) -> None:
    mask, rewards, values = make_mask(), draw(4, 5), draw(4, 5, seed=1)
    advantages, returns = gae(rewards * mask, values * mask, mask, gamma=gamma, lam=lam)
    for row, length in enumerate(LENGTHS):
        expected = gae_by_definition(rewards[row, :length].tolist(), values[row, :length].tolist(), gamma, lam)
        assert advantages[row, :length].tolist() == pytest.approx(expected)
        assert returns[row, :length].tolist() == pytest.approx((torch.tensor(expected) + values[row, :length]).tolist())
        assert advantages[row, length:].eq(0).all()


def test_with_lambda_1_returns_are_what_was_earned_from_there_on() -> None:
    mask, rewards = make_mask(), draw(4, 5)
    _, returns = gae(rewards * mask, draw(4, 5, seed=1) * mask, mask, gamma=1.0, lam=1.0)
    expected = (rewards * mask).flip(1).cumsum(1).flip(1) * mask
    torch.testing.assert_close(returns, expected)


def test_what_stands_in_padding_changes_nothing() -> None:
    mask, rewards, values = make_mask(), draw(4, 5), draw(4, 5, seed=1)
    garbage = 1e6 * (1 - mask)
    clean = gae(rewards * mask, values * mask, mask, gamma=0.9, lam=0.8)
    dirty = gae(rewards * mask + garbage, values * mask + garbage, mask, gamma=0.9, lam=0.8)
    assert all(torch.equal(one, other) for one, other in zip(clean, dirty, strict=True))
    torch.testing.assert_close(whiten(rewards * mask, mask), whiten(rewards * mask + garbage, mask))


def test_a_hole_is_passed_over() -> None:
    """As the same row without the positions that do not count."""
    mask = torch.tensor([[1.0, 0, 0, 1, 1, 0, 1]], dtype=torch.float64)
    kept = mask[0].bool()
    rewards, values = draw(1, 7), draw(1, 7, seed=1)
    advantages, returns = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    short = gae(rewards[:, kept], values[:, kept], torch.ones(1, 4), gamma=0.9, lam=0.8)
    torch.testing.assert_close(advantages[:, kept], short[0])
    torch.testing.assert_close(returns[:, kept], short[1])
    assert advantages[:, ~kept].eq(0).all()


def test_whitening_is_that_of_the_chosen_elements_alone() -> None:
    mask, values = make_mask(), 3 + 5 * draw(4, 5)
    chosen = values[mask.bool()]
    white = whiten(values, mask)[mask.bool()]
    torch.testing.assert_close(white, (chosen - chosen.mean()) / chosen.std())
    kept_mean = whiten(values, mask, shift_mean=False)[mask.bool()]
    torch.testing.assert_close(kept_mean, (chosen - chosen.mean()) / chosen.std() + chosen.mean())


def test_whitening_of_one_token_or_of_equal_ones_is_finite() -> None:
    assert whiten(torch.tensor([[7.0]]), torch.ones(1, 1)).item() == 0.0
    assert whiten(torch.full((2, 3), 7.0), torch.ones(2, 3)).eq(0).all()


def test_both_estimators_have_the_divergence_as_their_mean() -> None:
    p, q = draw(6).log_softmax(0), draw(6, seed=1).log_softmax(0)
    exact = (p.exp() * (p - q)).sum()
    torch.testing.assert_close((p.exp() * kl_k1(p, q)).sum(), exact)
    torch.testing.assert_close((p.exp() * kl_k3(p, q)).sum(), exact)
    assert (kl_k3(p, q) >= 0).all()
    assert kl_k1(p, q).min() < 0


def test_the_score_is_paid_at_the_last_token_that_counts() -> None:
    mask, kl = make_mask(), draw(4, 5)
    scores = torch.tensor([1.0, 2.0, -3.0, 4.0], dtype=torch.float64)
    rewards = token_rewards(scores, kl, mask, 0.1)
    assert last_token(mask).tolist() == [length - 1 for length in LENGTHS]
    for row, length in enumerate(LENGTHS):
        expected = (-0.1 * kl[row, :length]).tolist()
        expected[-1] += scores[row].item()
        assert rewards[row, :length].tolist() == pytest.approx(expected)
        assert rewards[row, length:].eq(0).all()


def test_explained_variance_is_1_for_the_returns_and_0_for_their_mean() -> None:
    mask, returns = make_mask(), draw(4, 5)
    mean = returns[mask.bool()].mean()
    assert explained_variance(returns, returns, mask) == 1.0
    assert explained_variance(torch.full_like(returns, mean), returns, mask) == pytest.approx(0.0)
    assert math.isnan(explained_variance(returns, torch.ones_like(returns), mask))


def test_importance_weights_are_ratios_up_to_their_cap() -> None:
    """0.5 sampled where the policy says 0.25, 0.1 where it says 0.4, and a token that the engine held for impossible."""
    policy = torch.tensor([0.25, 0.4, 1.0]).log()
    sampler = torch.tensor([0.5, 0.1, 1e-30]).log()
    assert importance_weights(policy, sampler, cap=2.0).tolist() == pytest.approx([0.5, 2.0, 2.0])


@pytest.mark.parametrize("lengths", list(itertools.product((1, 2), repeat=2)))
def test_rows_of_one_or_two_tokens_have_finite_advantages(lengths: tuple[int, ...]) -> None:
    mask = make_mask(lengths)
    advantages, returns = gae(draw(*mask.shape), draw(*mask.shape, seed=1), mask, gamma=1.0, lam=0.95)
    assert torch.isfinite(advantages).all()
    assert torch.isfinite(returns).all()
