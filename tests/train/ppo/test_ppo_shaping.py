"""From scores to advantages: scaling, clipping, penalty, and whitening over the tokens that count."""

import pytest
import torch

from alignment.train.ppo.control import KLController, RunningScale
from alignment.train.ppo.rollout import Shaping, TokenTable, describe_rollout, estimate_advantages, shape_scores

PLAIN = {
    "gamma": 1.0, "lam": 1.0, "lam_critic": None, "whiten_advantages": False, "whiten_rewards": False,
    "missing_eos_penalty": 0.0, "scale_scores": False, "clip_scores": None,
}  # fmt: skip


def make_table() -> TokenTable:
    """Rows of 3, 1 and 2 tokens."""
    mask = torch.tensor([[1.0, 1, 1], [1, 0, 0], [1, 1, 0]])
    draw = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0)) * mask
    return TokenTable(mask, *draw)


def test_advantages_are_whitened_over_the_tokens_that_count() -> None:
    table, scores = make_table(), torch.tensor([1.0, -2.0, 0.5])
    plain, _, _ = estimate_advantages(table, scores, 0.1, Shaping(**PLAIN))
    white, _, _ = estimate_advantages(table, scores, 0.1, Shaping(**PLAIN | {"whiten_advantages": True}))
    chosen = plain[table.mask > 0]
    torch.testing.assert_close(white[table.mask > 0], (chosen - chosen.mean()) / chosen.std())
    assert white[table.mask == 0].eq(0).all()


def test_the_critic_has_a_lambda_of_its_own() -> None:
    """With lambda 1 its targets are what was earned from there on, whatever the advantages' lambda is."""
    table, scores = make_table(), torch.tensor([1.0, -2.0, 0.5])
    _, returns, rewards = estimate_advantages(table, scores, 0.1, Shaping(**PLAIN | {"lam": 0.5, "lam_critic": 1.0}))
    torch.testing.assert_close(returns, rewards.flip(1).cumsum(1).flip(1) * table.mask)


def test_scores_are_scaled_then_clipped_then_penalised() -> None:
    """Deviation of 3 and -1 is sqrt(8): 1.06 and -0.35; clipped to 0.5; the second does not end."""
    shaping = Shaping(**PLAIN | {"scale_scores": True, "clip_scores": 0.5, "missing_eos_penalty": 2.0})
    scores = shape_scores(torch.tensor([3.0, -1.0]), torch.tensor([True, False]), shaping, RunningScale())
    assert scores.tolist() == pytest.approx([0.5, -(8**-0.5) - 2.0])


def test_scores_without_any_spread_are_not_scaled() -> None:
    """An update in which every completion scores alike, or the first one of a single completion."""
    shaping, scale = Shaping(**PLAIN | {"scale_scores": True}), RunningScale()
    assert shape_scores(torch.full((4,), -1.0), torch.ones(4).bool(), shaping, scale).tolist() == [-1.0] * 4


def test_what_is_taken_off_does_not_depend_on_the_scale_of_scores() -> None:
    table, raw = make_table(), torch.tensor([100.0, -200.0, 50.0])
    ended, shaping = (
        torch.tensor([True, False, True]),
        Shaping(**PLAIN | {"clip_scores": 1.0, "missing_eos_penalty": 2.0}),
    )
    scores = shape_scores(raw, ended, shaping, RunningScale())
    _, returns, rewards = estimate_advantages(table, scores, 0.1, shaping)
    metrics = describe_rollout(table, raw, ended, rewards, returns, KLController(0.1), 2.0)
    assert metrics["objective/non_score_reward"] == pytest.approx((rewards.sum(1) - raw.clamp(-1, 1)).mean().item())


def test_metrics_add_up() -> None:
    table, raw = make_table(), torch.tensor([1.0, -2.0, 0.5])
    ended = torch.tensor([True, False, True])
    _, returns, rewards = estimate_advantages(table, raw, 0.1, Shaping(**PLAIN))
    metrics = describe_rollout(table, raw, ended, rewards, returns, KLController(0.1))
    kl = ((table.logps - table.reference_logps) * table.mask).sum(1).mean().item()
    assert metrics["objective/kl"] == pytest.approx(kl)
    assert metrics["objective/non_score_reward"] == pytest.approx(-0.1 * kl, abs=1e-6)
    assert metrics["objective/rlhf_reward"] == pytest.approx(-0.5 / 3 - 0.1 * kl, abs=1e-6)
    assert (metrics["rollout/length"], metrics["rollout/num_truncated"]) == (2.0, 1.0)
