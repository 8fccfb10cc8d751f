"""Launches that go wrong on purpose, as the work of one rank."""

import os
from pathlib import Path

import torch
from tiny_training import make_trainer, train

from alignment.launch import check
from alignment.launch.environment import LaunchEnvironment, settle_environment


def launch_without_shim(out: Path, strategy: str, arguments: dict) -> int:
    """What accelerate does by itself with a GPU config on a CPU."""
    rank = int(os.environ["RANK"])
    environment = LaunchEnvironment(rank=rank, local_rank=rank, world_size=2, strategy=strategy)
    make_trainer(environment, out, **arguments).train()
    return 0


def train_in_wrong_precision(out: Path) -> int:
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    return train(out, bf16=False)


def _train_with(out: Path, before_check) -> int:
    """Trains; `before_check(trainer, environment)` comes between the wrapping of the model and the check."""
    inner = check.check_launch

    def check_launch(trainer, environment):
        before_check(trainer, environment)
        inner(trainer, environment)

    import tiny_training

    tiny_training.check_launch = check_launch  # in this forked process only
    make_trainer(settle_environment(), out).train()
    return 0


def drop_shards(out: Path) -> int:
    def add_whole_parameter(trainer, environment):
        trainer.model.extra = torch.nn.Parameter(torch.zeros(8))

    return _train_with(out, add_whole_parameter)


def change_rank_one(out: Path) -> int:
    def change(trainer, environment):
        with torch.no_grad():
            next(trainer.model.parameters())[0, 0] += environment.rank

    return _train_with(out, change)


def keep_gradients_apart(out: Path) -> int:
    """Computes the loss beside the wrapper, as a trainer that calls its own `self.model` would, and without its hooks."""

    def bypass(trainer, environment):
        trainer.model_wrapped.require_backward_grad_sync = False
        trainer.model_wrapped.forward = trainer.model.forward

    return _train_with(out, bypass)
