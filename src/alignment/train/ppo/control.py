"""What PPO carries from one update to the next beside weights: the KL coefficient and the scale of scores.

Both see all completions of an update on every rank, so they are the same everywhere without being sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from alignment.recipe.stage_spec import KL_HORIZON

LARGEST_ERROR = 0.2  # of the controller, relative to its target


@dataclass
class KLController:
    """The weight of the KL penalty: fixed, or steered to a target as in https://arxiv.org/abs/1909.08593, equation 2.

    Attributes:
        target: nats per completion; None: `value` stays.
        horizon: completions in which an error would be corrected.
    """

    value: float
    target: float | None = None
    horizon: int = KL_HORIZON

    def update(self, kl: float, num_completions: int) -> None:
        """Takes the mean KL of an update's completions."""
        if self.target is None:
            return
        error = max(-LARGEST_ERROR, min(LARGEST_ERROR, kl / self.target - 1))
        self.value *= 1 + error * num_completions / self.horizon

    def state(self) -> dict[str, float]:
        return {"value": self.value}

    def load(self, state: Mapping[str, float]) -> None:
        self.value = state["value"]


@dataclass
class RunningScale:
    """Mean and standard deviation of all scores so far, merged update by update (Chan, Golub and LeVeque 1983)."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences from the mean

    def update(self, scores_B: Tensor) -> None:
        """Takes the scores of an update."""
        scores_B = scores_B.double()
        count, mean = scores_B.numel(), scores_B.mean().item()
        squares = (scores_B - mean).square().sum().item()
        total, difference = self.count + count, mean - self.mean
        self.squares += squares + difference**2 * self.count * count / total
        self.mean += difference * count / total
        self.count = total

    @property
    def deviation(self) -> float:
        """Of the sample; 0 before there are two scores."""
        return (self.squares / max(self.count - 1, 1)) ** 0.5

    def state(self) -> dict[str, float]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load(self, state: Mapping[str, float]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
