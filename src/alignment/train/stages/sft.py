"""Supervised fine-tuning: prepared conversations to a verified model."""

from alignment.recipe.schema import SftRecipe
from alignment.train.arguments import make_arguments
from alignment.train.context import StageContext
from alignment.train.finish import complete
from alignment.train.policy import load_trainable_policy
from alignment.train.training import make_collator, open_training
from alignment.train.trl_bridge.sft import ARGUMENTS, SFTConfig, build_sft_trainer


def run(recipe: SftRecipe, context: StageContext) -> None:
    """Trains, saves and verifies. Every rank calls it."""
    training = open_training(recipe, context)
    arguments = make_arguments(SFTConfig, training, **ARGUMENTS)
    policy = load_trainable_policy(training)
    trainer = build_sft_trainer(
        policy.model,
        arguments,
        train_rows=training.train_rows,
        eval_rows=training.eval_rows,
        tokenizer=training.tokenizer,
        collator=make_collator(training, policy.model),
        callbacks=training.callbacks,
    )
    complete(training, trainer, policy)
