"""Whether a run goes wrong in one of the ways that PPO is known for. A finding is said; whether it ends the run is the recipe's.

Thresholds are `ppo.alerts` of the recipe. What an update is compared with is the first one, so it is part of a checkpoint.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignment.recipe.stage_spec import AlertSpec


@dataclass(frozen=True)
class Alert:
    """One finding."""

    name: str  # kl, length, entropy or reward_hacking
    text: str


@dataclass
class Watch:
    """Looks at the metrics of each update and of each evaluation."""

    spec: AlertSpec
    first: dict[str, float] = field(default_factory=dict)  # of the first update: length, entropy
    held_out: dict[str, tuple[float, float]] = field(default_factory=dict)  # of the first evaluation: value, error

    def look_at_update(self, metrics: Mapping[str, float]) -> Iterator[Alert]:
        """Alerts of an update's metrics."""
        length, entropy = metrics["rollout/length"], metrics["objective/entropy"]
        if not self.first:
            self.first = {"length": length, "entropy": entropy}
        kl = metrics["objective/kl"] / max(length, 1.0)
        if kl > self.spec.kl_per_token:
            yield Alert(
                "kl",
                f"KL is {kl:.2f} nats a token; at most {self.spec.kl_per_token:g} was expected. Raise ppo.kl_coef.",
            )
        factor = max(length / self.first["length"], self.first["length"] / max(length, 1e-9))
        if factor > self.spec.length_factor:
            yield Alert(
                "length",
                f"completions have {length:.1f} tokens, {self.first['length']:.1f} in the first update. Look at samples: the score may pay for length.",
            )
        if entropy < self.spec.entropy_fraction * self.first["entropy"]:
            yield Alert(
                "entropy",
                f"entropy is {entropy:.3f} nats a token, {self.first['entropy']:.3f} in the first update: the policy repeats itself. Lower the learning rate or raise ppo.kl_coef.",
            )

    def look_at_held_out(self, score: tuple[float, float], gold: tuple[float, float] | None) -> Iterator[Alert]:
        """Alerts of an evaluation: (mean, standard error) of the score and of the gold score, if there is one."""
        if gold is None:
            return
        if not self.held_out:
            self.held_out = {"score": score, "gold": gold}
            return
        limit = self.spec.standard_errors
        if _moved(self.held_out["score"], score) > limit and _moved(self.held_out["gold"], gold) < -limit:
            yield Alert(
                "reward_hacking",
                f"held-out score rose from {self.held_out['score'][0]:.3f} to {score[0]:.3f} while the gold score fell from "
                f"{self.held_out['gold'][0]:.3f} to {gold[0]:.3f}: the reward is being gamed. Take an earlier checkpoint, or raise ppo.kl_coef.",
            )

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "held_out": {name: list(pair) for name, pair in self.held_out.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        self.first = dict(state["first"])
        self.held_out = {name: tuple(pair) for name, pair in state["held_out"].items()}


def _moved(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Difference in standard errors; without any spread a difference counts as endless."""
    error = (before[1] ** 2 + after[1] ** 2) ** 0.5
    difference = after[0] - before[0]
    if error:
        return difference / error
    return 0.0 if difference == 0 else float("inf") if difference > 0 else float("-inf")
