"""Preference optimisation with TRL's DPOTrainer on our ids.

The subclass overrides only the preparation of data. The reference is always decided by us and never by TRL's default.
"""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from alignment.recipe.stage_spec import DpoSpec
from alignment.train.evaluation import ExactEvaluation
from alignment.train.precision import FullPrecisionOutputs
from alignment.train.trl_bridge.head import score_labels_only


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
    """TRL's DPOTrainer that takes encoded rows as they are, and means its SFT term over the tokens of the global batch."""

    chosen_tokens: np.ndarray | None = None

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        # Of `self.model`: what an engine puts around it stays in training mode while it is evaluated.
        if self.chosen_tokens is None or not self.model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)
        # TRL takes the mean over the tokens of each pass, and the Trainer the mean over passes: rows of short passes would
        # count more, and how the batch is cut would be a hyper-parameter.
        passes = self.args.gradient_accumulation_steps * self.args.world_size
        chosen, _ = inputs["completion_mask"].chunk(2)
        share = int(chosen.sum()) * passes / int(self.chosen_tokens[self.state.global_step])
        weights = self.loss_weights
        self.loss_weights = [weights[0], weights[1] * share]
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.loss_weights = weights

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card is written from the receipt, once, beside final/."""


def build_dpo_trainer(
    model: PreTrainedModel,
    reference: PreTrainedModel | None,
    arguments: DPOConfig,
    *,
    train_rows: Dataset,
    eval_rows: Dataset | None,
    chosen_tokens: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    callbacks: list[TrainerCallback],
) -> RecipeDPOTrainer:
    """A trainer over pairs that are already in training order.

    Args:
        reference: the frozen reference; None only for a model with an adapter, where the reference is the model without
            a fresh adapter, or a frozen copy of an adapter that is continued (TRL 1.16 makes it).
        chosen_tokens: tokens of the chosen completions of each optimizer step, shape [steps].
    """
    score_labels_only()
    trainer = RecipeDPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments,
        data_collator=DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id),
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.chosen_tokens = chosen_tokens if len(trainer.loss_weights) > 1 else None
    return trainer
