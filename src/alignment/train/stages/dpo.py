"""Direct preference optimisation: prepared pairs and a named reference to a verified model."""

import math

import numpy as np
from transformers import PreTrainedModel

from alignment.models.dropout import disable_dropout
from alignment.models.lora import ReferenceView
from alignment.recipe.schema import DpoRecipe
from alignment.train.arguments import make_arguments
from alignment.train.callbacks import FirstStepGate
from alignment.train.context import StageContext
from alignment.train.finish import complete
from alignment.train.policy import Policy, load_frozen, load_trainable_policy
from alignment.train.token_counts import list_lengths
from alignment.train.training import Training, open_training
from alignment.train.trl_bridge.dpo import DPOConfig, build_dpo_trainer, make_dpo_arguments

# A reference that is the start model gives exactly 0. FSDP2 with logits in bfloat16 gave 0.6914 for ln 2 (two CPU ranks):
# that must not pass.
MARGIN_TOLERANCE = 1e-3


def run(recipe: DpoRecipe, context: StageContext) -> None:
    """Trains, saves and verifies. Every rank calls it."""
    training = open_training(recipe, context)
    arguments = make_arguments(DPOConfig, training, **make_dpo_arguments(recipe.dpo))
    policy = load_trainable_policy(training)
    disable_dropout(policy.model)
    trainer = build_dpo_trainer(
        policy.model,
        _load_reference(training, policy),
        arguments,
        train_rows=training.train_rows,
        eval_rows=training.eval_rows,
        chosen_tokens=_count_chosen(training),
        tokenizer=training.tokenizer,
        callbacks=[*training.callbacks, *_reference_gates(recipe)],
    )
    complete(training, trainer, policy, against=lambda: trainer.ref_model or ReferenceView(trainer.model))


def _count_chosen(training: Training) -> np.ndarray:
    per_row = list_lengths(training.prepared.train, "chosen_ids")
    return per_row[training.order].reshape(training.schedule.steps, -1).sum(axis=1)


def _load_reference(training: Training, policy: Policy) -> PreTrainedModel | None:
    """The frozen model behind `dpo.reference`; None where an adapter that is switched off, or its frozen copy, is it."""
    named = training.recipe.dpo.reference
    if named == "start":
        return None if training.recipe.lora else load_frozen(training, policy.start_path)
    if named == "base":
        return load_frozen(training, policy.base_path) if policy.continues_adapter else None
    return load_frozen(training, named)


def _reference_gates(recipe: DpoRecipe) -> list[FirstStepGate]:
    """With the start model as reference nothing has moved yet: margins are 0 and the sigmoid loss is ln 2."""
    if recipe.dpo.reference != "start":
        return []
    expected = dict.fromkeys(("rewards/chosen", "rewards/rejected", "rewards/margins"), (0.0, MARGIN_TOLERANCE))
    if recipe.dpo.loss_type == "sigmoid" and not recipe.dpo.sft_weight:
        expected["loss"] = (math.log(2), MARGIN_TOLERANCE)
    reason = (
        "The reference is not the model that training starts from, or its log-probabilities are too coarse. Look at "
        "dpo.reference and at the precision of the launch."
    )
    return [FirstStepGate(expected, reason)]
