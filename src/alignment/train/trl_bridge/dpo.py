"""Preference optimisation with TRL's DPOTrainer on our ids.

The subclass overrides only the preparation of data. The reference is always decided by us and never by TRL's default.
"""

from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from alignment.recipe.schema import DpoSpec
from alignment.train.evaluation import ExactEvaluation
from alignment.train.precision import FullPrecisionOutputs


def make_dpo_arguments(spec: DpoSpec) -> dict[str, Any]:
    """The fields of DPOConfig (TRL 1.16) that the recipe's `dpo` section decides."""
    losses = [spec.loss_type] + (["sft"] if spec.sft_weight else [])
    return {
        "loss_type": losses,
        "loss_weights": [1.0, spec.sft_weight] if spec.sft_weight else None,
        "beta": spec.beta,
        "label_smoothing": spec.label_smoothing,
        "max_length": None,
        "disable_dropout": True,
        "precompute_ref_log_probs": False,
        "padding_free": False,
    }


class RecipeDPOTrainer(ExactEvaluation, FullPrecisionOutputs, DPOTrainer):
    """TRL's DPOTrainer that takes encoded rows as they are."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is written from the receipt, once, beside final/."""


def build_dpo_trainer(
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
    arguments: DPOConfig,
    *,
    train_rows: Dataset,
    eval_rows: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    callbacks: list[TrainerCallback],
) -> RecipeDPOTrainer:
    """A trainer over pairs that are already in training order.

    Args:
        reference: the frozen reference; None only for a model with an adapter, where the reference is the model without
            a fresh adapter, or a frozen copy of an adapter that is continued (TRL 1.16 makes it).
    """
    return RecipeDPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        data_collator=DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id),
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
