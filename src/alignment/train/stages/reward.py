"""Reward modelling: prepared pairs to a verified sequence classifier with one score."""

from alignment.models.dropout import disable_dropout
from alignment.recipe.schema import RewardRecipe
from alignment.train.arguments import make_arguments
from alignment.train.context import StageContext
from alignment.train.finish import complete
from alignment.train.policy import load_trainable_reward_model
from alignment.train.training import open_training
from alignment.train.trl_bridge.reward import ARGUMENTS, RewardConfig, build_reward_trainer


def run(recipe: RewardRecipe, context: StageContext) -> None:
    """Trains, saves and verifies. Every rank calls it."""
    training = open_training(recipe, context)
    arguments = make_arguments(
        RewardConfig, training, center_rewards_coefficient=recipe.reward.center_rewards_coefficient, **ARGUMENTS
    )
    policy = load_trainable_reward_model(training)
    disable_dropout(policy.model)
    trainer = build_reward_trainer(
        policy.model,
        arguments,
        train_rows=training.train_rows,
        eval_rows=training.eval_rows,
        tokenizer=training.tokenizer,
        callbacks=training.callbacks,
    )
    complete(training, trainer, policy)
