"""Pretraining: packed documents to a verified causal language model, with transformers' own Trainer."""

import math

from transformers import Trainer, TrainingArguments

from alignment.recipe.schema import PretrainRecipe
from alignment.train.arguments import make_arguments
from alignment.train.callbacks import FirstStepGate
from alignment.train.context import StageContext
from alignment.train.evaluation import ExactEvaluation
from alignment.train.finish import complete
from alignment.train.policy import load_trainable_policy
from alignment.train.precision import FullPrecisionOutputs
from alignment.train.training import Training, make_collator, open_training

LOSS_GATE_NATS = 0.5


class RecipeTrainer(ExactEvaluation, FullPrecisionOutputs, Trainer):
    """transformers' Trainer; the model's own loss is already normalised over the tokens of the whole global batch."""


def run(recipe: PretrainRecipe, context: StageContext) -> None:
    """Trains, saves and verifies. Every rank calls it."""
    training = open_training(recipe, context)
    arguments = make_arguments(TrainingArguments, training)
    policy = load_trainable_policy(training)
    trainer = RecipeTrainer(
        model=policy.model,
        args=arguments,
        data_collator=make_collator(training, policy.model),
        train_dataset=training.train_rows,
        eval_dataset=training.eval_rows,
        processing_class=training.tokenizer,
        callbacks=[*training.callbacks, *_new_model_gates(training)],
    )
    complete(training, trainer, policy)


def _new_model_gates(training: Training) -> list[FirstStepGate]:
    """A new model guesses uniformly: its first loss is ln(vocabulary), or ids, labels or loss scale are wrong."""
    if training.recipe.model.config is None:
        return []
    expected = math.log(len(training.tokenizer))
    reason = (
        "A model with fresh weights predicts every token alike, so the loss is ln(vocabulary). Look at "
        "model.config.initializer_range, and at the tokenizer: ids beyond the vocabulary or one token everywhere show here."
    )
    return [FirstStepGate({"loss": (expected, LOSS_GATE_NATS)}, reason)]
