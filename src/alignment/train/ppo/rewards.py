"""Scores of completions: a learned reward model, programs, or a weighted sum of both.

The reward model reads messages through its own tokenizer and chat template, exactly the row that its own training would have made
of them; token ids of the policy never reach it. So it may have another vocabulary, another template and another pad token.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel

from alignment.data.chat import Chat, load_chat
from alignment.data.render import render_answered
from alignment.errors import DataError, DivergedError
from alignment.measure.logps import reward_scores
from alignment.measure.rows import EvalRow
from alignment.measure.scorers import score_rows
from alignment.models.load import Start
from alignment.models.tokenizer import load_tokenizer
from alignment.recipe.model_spec import ChatSpec
from alignment.recipe.stage_spec import PpoSpec


@dataclass(frozen=True)
class RewardModel:
    """A frozen reward model with the chat that it was trained on."""

    model: PreTrainedModel
    chat: Chat
    batch_size: int
    bf16: bool

    def score(self, asked: Sequence[dict[str, Any]], texts: Sequence[str]) -> list[float]:
        """Score of each answer to its prompt. Every rank must call it.

        Args:
            asked: `messages` and `tools` of each prompt.
            texts: what was answered, without special tokens.

        Raises:
            DataError: its template cannot write a conversation.
        """
        rows = [self.encode(one, text) for one, text in zip(asked, texts, strict=True)]
        return reward_scores(self.model, rows, pad_id=self.chat.pad_id, batch_size=self.batch_size, bf16=self.bf16)

    def encode(self, asked: dict[str, Any], text: str) -> list[int]:
        """Ids of prompt and answer with its stop token, as a reward recipe encodes them."""
        try:
            return render_answered(
                self.chat, asked["messages"], [{"role": "assistant", "content": text}], asked["tools"]
            )
        except DataError as error:
            raise DataError(f"ppo.reward_model: {error}") from error


def load_reward_chat(start: Start, template: str, recipe_dir: Path, *, trust_remote_code: bool) -> Chat:
    """The chat of a reward model: its own tokenizer, and its own template unless the recipe names one."""
    tokenizer = load_tokenizer(start.tokenizer, start.revision, trust_remote_code=trust_remote_code)
    return load_chat(tokenizer, ChatSpec(template=template), recipe_dir)


class Rewards:
    """The weighted sum that a recipe names.

    Args:
        around: a context for the passes of the reward model.
    """

    def __init__(
        self,
        spec: PpoSpec,
        reward_model: RewardModel | None,
        around: Callable[[], AbstractContextManager] = nullcontext,
    ) -> None:
        self._reward_model, self._reward_weight, self._around = reward_model, spec.reward_weight, around
        self._programs = [(one, 1.0) if isinstance(one, str) else (one.reward, one.weight) for one in spec.rewards]

    def ask(self, model: Any) -> None:
        """From here on the reward model is asked through `model`, which leads to the same weights."""
        self._reward_model = replace(self._reward_model, model=model)

    def place(self, place: Callable[[PreTrainedModel], PreTrainedModel]) -> "Rewards":
        """Has the reward model placed, where there is one."""
        if self._reward_model is not None:
            self.ask(place(self._reward_model.model))
        return self

    def score(self, asked: Sequence[dict[str, Any]], rows: Sequence[EvalRow]) -> list[float]:
        """Score of each completion. Every rank must call it.

        Args:
            asked: `messages` and `tools` of each prompt.
            rows: the completions and the columns of the rows that were asked.

        Raises:
            DivergedError: a score is not finite.
        """
        totals = [0.0] * len(rows)
        for name, weight in self._programs:
            totals = [total + weight * one for total, one in zip(totals, score_rows(name, rows), strict=True)]
        if self._reward_model is not None:
            with self._around():
                learned = self._reward_model.score(asked, [row.completion for row in rows])
            totals = [total + self._reward_weight * one for total, one in zip(totals, learned, strict=True)]
        bad = [place for place, total in enumerate(totals) if not abs(total) < float("inf")]
        if bad:
            raise DivergedError(
                f"ppo: {len(bad)} of {len(totals)} scores are not finite, the first of {rows[bad[0]].completion[:60]!r}; numbers were "
                "expected. Look at the reward model."
            )
        return totals


def read_asked(rows: Dataset, places: Sequence[int]) -> list[dict[str, Any]]:
    """`messages` and `tools` of prepared prompts."""
    return [json.loads(text) for text in rows.select(places)["asked_json"]]
