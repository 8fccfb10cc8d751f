"""Supervised fine-tuning with TRL's SFTTrainer on our ids and masks.

TRL prepares nothing: rows come with `input_ids` and `labels`, and our collator decides about padding and packing.
"""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import SFTConfig, SFTTrainer

from alignment.train.collate import TokenCollator
from alignment.train.evaluation import ExactEvaluation
from alignment.train.precision import FullPrecisionOutputs
from alignment.train.trl_bridge.head import score_labels_only

# What SFTConfig (TRL 1.16) would otherwise decide by itself.
ARGUMENTS = {
    "dataset_kwargs": {"skip_prepare_dataset": True},
    "max_length": None,
    "packing": False,
    "padding_free": False,
    "completion_only_loss": False,
    "assistant_only_loss": False,
    "loss_type": "nll",
}


class RecipeSFTTrainer(ExactEvaluation, FullPrecisionOutputs, SFTTrainer):
    """TRL's SFTTrainer without its model card."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is written from the receipt, once, beside final/."""


def build_sft_trainer(
    model: PreTrainedModel,
    arguments: SFTConfig,
    *,
    train_rows: Dataset,
    eval_rows: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    collator: TokenCollator,
    callbacks: list[TrainerCallback],
) -> RecipeSFTTrainer:
    """A trainer over rows that are already in training order."""
    score_labels_only()
    return RecipeSFTTrainer(
        model=model,
        args=arguments,
        data_collator=collator,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
