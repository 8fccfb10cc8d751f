"""The policy on held-out prompts during training: greedy completions, their scores, and how far it has moved.

Nothing of training is touched: generation is greedy, models are put back into their mode, and neither the running scale nor the KL
controller sees these completions.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from alignment.measure.generation import Generation, generate_batch
from alignment.measure.logps import completion_kl
from alignment.measure.rows import EvalRow
from alignment.measure.scorers import score_rows
from alignment.train.ppo.rewards import Rewards, read_asked


@dataclass(frozen=True)
class HeldOut:
    """Held-out prompts with what measures the completions.

    Args:
        gold: a scorer that is never trained on; None: there is none.
        reference: the model that KL is to.
        limits: stop ids, pad id, longest completion in tokens, rows in one pass.
    """

    rows: Dataset
    tokenizer: PreTrainedTokenizerBase
    rewards: Rewards
    gold: str | None
    reference: Any
    limits: tuple[Sequence[int], int, int, int]
    bf16: bool

    def measure(self, policy: Any) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Metrics, and (mean, standard error) of `score` and `gold`. Every rank must call it."""
        prompts = self.rows["prompt_ids"]
        said = generate_batch(policy, self.tokenizer, prompts, *self.limits, bf16=self.bf16)
        places = range(len(self.rows))
        rows = make_rows(self.rows, places, said)
        scores = {"score": self.rewards.score(read_asked(self.rows, places), rows)}
        if self.gold is not None:
            scores["gold"] = score_rows(self.gold, rows)
        _, pad_id, _, batch_size = self.limits
        answers = [one.ids for one in said]
        kl = completion_kl(
            policy, self.reference, prompts, answers, pad_id=pad_id, batch_size=batch_size, bf16=self.bf16
        )
        estimates = {name: _estimate(values) for name, values in scores.items()}
        metrics = {
            "objective/scores": estimates["score"][0],
            "objective/kl": float(np.mean(kl)),
            "rollout/length": float(np.mean([len(one.ids) for one in said])),
            "rollout/eos_rate": float(np.mean([one.stopped for one in said])),
        }
        if self.gold is not None:
            metrics["objective/gold"] = estimates["gold"][0]
        return metrics, estimates


def make_rows(prompts: Dataset, places: Sequence[int], said: Sequence[Generation]) -> list[EvalRow]:
    """What scorers read: completions with the columns of the rows that were asked."""
    columns = prompts.select(places)["columns_json"]
    return [
        EvalRow(columns=json.loads(text), completion=one.text, stopped=one.stopped)
        for text, one in zip(columns, said, strict=True)
    ]


def _estimate(values: Sequence[float]) -> tuple[float, float]:
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), spread / math.sqrt(len(values))
