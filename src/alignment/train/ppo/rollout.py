"""The completions of one update with everything that the update reads: on every rank whole, whatever made them.

Completions, their probabilities, values and scores are made in batches that do not depend on the number of ranks, and gathered. So
advantages, their whitening and every mean are over all completions without a word between ranks, and one process, two
processes and any accumulation train on the same numbers.

Shapes: B completions, T positions of the longest, N generated tokens of the rows of one forward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.measure.batches import length_batches, map_batches
from alignment.train.ppo import arithmetic
from alignment.train.ppo.actor_critic import ActorCritic
from alignment.train.ppo.control import KLController, RunningScale

Ids = Sequence[int]


@dataclass(frozen=True)
class TokenTable:
    """What the models say of each generated token, [B, T]; 0 on padding."""

    mask: Tensor  # float
    logps: Tensor
    reference_logps: Tensor
    entropy: Tensor  # nats
    values: Tensor


@dataclass(frozen=True)
class Rollout:
    """One update's completions. `rows` are prompts with their completions."""

    rows: list[list[int]]
    prompt_lengths: list[int]
    mask: Tensor  # [B, T], float
    old_logps: Tensor  # [B, T], like the rest
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    weights: Tensor | None  # importance weights, where another engine sampled
    metrics: dict[str, float]

    @property
    def lengths(self) -> list[int]:
        """Generated tokens of each row."""
        return [len(row) - length for row, length in zip(self.rows, self.prompt_lengths, strict=True)]

    def flat(self, table: Tensor, rows: Sequence[int]) -> Tensor:
        """The generated tokens' entries of some rows, row after row, [N]."""
        chosen = torch.tensor(list(rows), device=table.device)
        return table[chosen][self.mask[chosen] > 0]


# ------------------------------------------------------------------------------------------------ tokens


def collate(rows: Sequence[Ids], prompt_lengths: Sequence[int], pad_id: int, device: Any = "cpu") -> dict[str, Any]:
    """Rows padded on the right, and for each generated token the row and position of the token before it."""
    longest = max(map(len, rows))
    ids = [[*row, *[pad_id] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    spans = [range(start - 1, len(row) - 1) for row, start in zip(rows, prompt_lengths, strict=True)]
    numbers = [number for number, span in enumerate(spans) for _ in span]
    positions = [position for span in spans for position in span]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
        "before": (torch.tensor(numbers, device=device), torch.tensor(positions, device=device)),
    }


def look_at_tokens(
    model: ActorCritic,
    reference: Callable[[dict[str, Any]], Tensor],
    rows: Sequence[Ids],
    prompt_lengths: Sequence[int],
    *,
    pad_id: int,
    batch_size: int,
    temperature: float,
    bf16: bool,
    device: torch.device,
) -> TokenTable:
    """Teacher-forced log-probabilities of policy and reference, entropies and values. Every rank must call it, and gets all.

    Log-probabilities are always computed anew and never taken from generation, whose cached kernels round in another way.

    Args:
        reference: the reference's log-probabilities [N] of a collated batch.
        batch_size: longest rows in one forward pass; shorter rows share it in greater number.
    """

    def work(number: int, batch: Sequence[int]) -> list[Tensor]:
        lengths = [prompt_lengths[row] for row in batch]
        inputs = collate([rows[row] for row in batch], lengths, pad_id, device)
        with compute_in_device(device, bf16):
            logps_N, entropy_N, values_N = model("update", **inputs, temperature=temperature)
            reference_N = reference(inputs | {"temperature": temperature})
        table_4N = torch.stack([logps_N, reference_N, entropy_N, values_N]).float().cpu()
        parts = table_4N.split([len(rows[row]) - prompt_lengths[row] for row in batch], dim=1)
        # Of a view the whole batch would be sent to the other ranks, once a row.
        return [part.clone() for part in parts]

    tables = map_batches(model, length_batches([len(row) for row in rows], batch_size), work)
    lengths = torch.tensor([table.size(1) for table in tables])
    mask = (torch.arange(int(lengths.max()))[None] < lengths[:, None]).float()
    padded = torch.nn.utils.rnn.pad_sequence([table.T for table in tables], batch_first=True)
    return TokenTable(mask, *padded.unbind(-1))


def compute_in_device(device: torch.device, bf16: bool) -> torch.autocast:
    """Autocast to bfloat16, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16)


# ------------------------------------------------------------------------------------------------ rewards


@dataclass(frozen=True)
class Shaping:
    """How scores become rewards and rewards advantages: the recipe's keys of these names."""

    gamma: float
    lam: float
    lam_critic: float | None
    whiten_advantages: bool
    whiten_rewards: bool
    missing_eos_penalty: float
    scale_scores: bool
    clip_scores: float | None


def shape_scores(raw_B: Tensor, ended_B: Tensor, shaping: Shaping, scale: RunningScale) -> Tensor:
    """Scores as they enter the rewards: scaled, clipped, and less the penalty where a completion does not end.

    Args:
        scale: of all scores so far; it takes these where the recipe scales.
    """
    scores_B = raw_B
    if shaping.scale_scores:
        scale.update(raw_B)
        scores_B = scores_B / (scale.deviation or 1.0)  # without any spread there is nothing to scale by
    if shaping.clip_scores is not None:
        scores_B = scores_B.clamp(-shaping.clip_scores, shaping.clip_scores)
    return scores_B - shaping.missing_eos_penalty * (~ended_B).to(scores_B.dtype)


def estimate_advantages(
    table: TokenTable, scores_B: Tensor, kl_coef: float, shaping: Shaping
) -> tuple[Tensor, Tensor, Tensor]:
    """Advantages, the critic's targets and token rewards, [B, T] each."""
    kl_BT = arithmetic.kl_k1(table.logps, table.reference_logps)
    rewards_BT = arithmetic.token_rewards(scores_B, kl_BT, table.mask, kl_coef)
    used_BT = arithmetic.whiten(rewards_BT, table.mask, shift_mean=False) if shaping.whiten_rewards else rewards_BT
    advantages_BT, returns_BT = arithmetic.gae(used_BT, table.values, table.mask, gamma=shaping.gamma, lam=shaping.lam)
    if shaping.lam_critic is not None:
        _, returns_BT = arithmetic.gae(used_BT, table.values, table.mask, gamma=shaping.gamma, lam=shaping.lam_critic)
    if shaping.whiten_advantages:
        advantages_BT = arithmetic.whiten(advantages_BT, table.mask)
    return advantages_BT, returns_BT, rewards_BT


def describe_rollout(
    table: TokenTable,
    raw_B: Tensor,
    ended_B: Tensor,
    rewards_BT: Tensor,
    returns_BT: Tensor,
    kl: KLController,
    missing_eos_penalty: float = 0.0,
) -> dict[str, float]:
    """The metrics of an update that are known before its first step. Sums are over a completion, means over completions."""
    k1_BT = arithmetic.kl_k1(table.logps, table.reference_logps) * table.mask
    k3_BT = arithmetic.kl_k3(table.logps, table.reference_logps) * table.mask
    # What is taken off the scores, however they were scaled: the KL penalty, and that for not ending.
    non_score_B = -kl.value * k1_BT.sum(1) - missing_eos_penalty * (~ended_B)
    return {
        "objective/kl": k1_BT.sum(1).mean().item(),
        "objective/kl_k3": k3_BT.sum(1).mean().item(),
        "objective/kl_coef": kl.value,
        "objective/entropy": arithmetic.masked_mean(table.entropy, table.mask).item(),
        "objective/scores": raw_B.mean().item(),
        "objective/rlhf_reward": rewards_BT.sum(1).mean().item(),
        "objective/non_score_reward": non_score_B.mean().item(),
        "val/explained_variance": arithmetic.explained_variance(table.values, returns_BT, table.mask),
        "rollout/length": table.mask.sum(1).mean().item(),
        "rollout/eos_rate": ended_B.float().mean().item(),
        "rollout/num_truncated": float((~ended_B).sum()),
    }


def weigh_tokens(table: TokenTable, sampler_logps: Sequence[Sequence[float]], cap: float) -> tuple[Tensor, dict]:
    """Importance weights [B, T] of tokens that another engine sampled, and how far it was from the policy."""
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in sampler_logps], batch_first=True)
    sampled = padded.to(table.logps.dtype)
    gap = (table.logps - sampled).abs() * table.mask
    weights = arithmetic.importance_weights(table.logps, sampled, cap=cap) * table.mask
    capped = ((table.logps - sampled).exp() > cap).float()
    return weights, {
        "sampler/logp_gap": arithmetic.masked_mean(gap, table.mask).item(),
        "sampler/weight": arithmetic.masked_mean(weights, table.mask).item(),
        "sampler/capped": arithmetic.masked_mean(capped, table.mask).item(),
    }
