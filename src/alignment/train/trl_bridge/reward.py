"""Bradley-Terry reward modelling with TRL's RewardTrainer on our ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from alignment.train.evaluation import ExactEvaluation
from alignment.train.precision import FullPrecisionOutputs

# What RewardConfig (TRL 1.16) would otherwise decide by itself: rows come cut, and dropout is off, so that a score
# does not depend on chance.
ARGUMENTS = {"max_length": None, "disable_dropout": True}


@dataclass(frozen=True)
class WholeRowCollator:
    """Joins each prompt to its two completions for TRL's collator, which pads on the right.

    Returns `input_ids` and `attention_mask` [2B, T]: the chosen rows, then the rejected ones.
    """

    pad_id: int

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        whole = [
            {
                "chosen_ids": example["prompt_ids"] + example["chosen_ids"],
                "rejected_ids": example["prompt_ids"] + example["rejected_ids"],
            }
            for example in examples
        ]
        return DataCollatorForPreference(pad_token_id=self.pad_id)(whole)


class RecipeRewardTrainer(ExactEvaluation, FullPrecisionOutputs, RewardTrainer):
    """TRL's RewardTrainer that takes encoded rows as they are."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is written from the receipt, once, beside final/."""


def build_reward_trainer(
    model: PreTrainedModel,
    arguments: RewardConfig,
    *,
    train_rows: Dataset,
    eval_rows: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    callbacks: list[TrainerCallback],
) -> RecipeRewardTrainer:
    """A trainer over pairs that are already in training order."""
    return RecipeRewardTrainer(
        model=model,
        args=arguments,
        data_collator=WholeRowCollator(tokenizer.pad_token_id),
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
