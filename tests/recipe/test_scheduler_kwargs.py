"""What the schema says of `lr_scheduler_kwargs` holds for the installed transformers."""

import inspect
from typing import Any, get_args

import pytest
import torch
from transformers import get_scheduler
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

from alignment.recipe.train_spec import SCHEDULER_KWARGS, SCHEDULER_NEEDS

STEPS = 6
# Arguments with which each schedule can be made.
ENOUGH = {
    "cosine": {"num_cycles": 0.5},
    "polynomial": {"lr_end": 1e-5, "power": 2},
    "inverse_sqrt": {"timescale": 3},
    "cosine_with_min_lr": {"min_lr_rate": 0.1, "num_cycles": 0.5},
    "warmup_stable_decay": {"num_decay_steps": 2, "warmup_type": "linear", "decay_type": "1-sqrt", "min_lr_ratio": 0.1},
}


def rates(kind: str, arguments: dict[str, Any], warmup: int = 2, peak: float = 1e-3) -> list[float]:
    """The learning rate at every step, and after the last one, where the scheduler takes a step too."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    scheduler = get_scheduler(
        kind, optimizer, num_warmup_steps=warmup, num_training_steps=STEPS, scheduler_specific_kwargs=arguments
    )
    return [peak * scheduler.lr_lambdas[0](step) for step in range(STEPS + 1)]


@pytest.mark.parametrize("kind", SCHEDULER_KWARGS)
def test_every_argument_is_one_of_transformers(kind: str) -> None:
    assert set(SCHEDULER_KWARGS[kind]) <= set(inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[kind]).parameters)
    assert all(0 <= rate <= 1.0001e-3 for rate in rates(kind, ENOUGH[kind]))


@pytest.mark.parametrize("kind", SCHEDULER_KWARGS)
def test_what_is_needed_is_what_transformers_fails_without(kind: str) -> None:
    needed = SCHEDULER_NEEDS.get(kind, ())
    given = {name: value for name, value in ENOUGH[kind].items() if name not in needed}
    if not needed:
        rates(kind, {})
        return
    with pytest.raises((TypeError, ValueError)):
        rates(kind, given)


def test_two_ends_of_a_cosine_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="Only one of min_lr or min_lr_rate"):
        rates("cosine_with_min_lr", {"min_lr": 1e-5, "min_lr_rate": 0.1})


@pytest.mark.parametrize("key", ["warmup_type", "decay_type"])
def test_the_shapes_of_a_ramp_are_those_of_transformers(key: str) -> None:
    for shape in get_args(SCHEDULER_KWARGS["warmup_stable_decay"][key]):
        rates("warmup_stable_decay", {"num_decay_steps": 2, key: shape})
    with pytest.raises(ValueError, match="expected 'linear', 'cosine' or '1-sqrt'"):
        rates("warmup_stable_decay", {"num_decay_steps": 2, key: "quick"})


@pytest.mark.parametrize(
    ("kind", "arguments", "settings", "error"),
    [
        ("polynomial", {"power": "two"}, {}, TypeError),
        ("polynomial", {"power": -1}, {}, ZeroDivisionError),
        ("polynomial", {}, {"warmup": STEPS}, ZeroDivisionError),
        ("polynomial", {}, {"peak": 1e-7}, ValueError),  # its own default of lr_end
        ("inverse_sqrt", {"timescale": 0}, {}, ZeroDivisionError),
    ],
)
def test_what_is_refused_is_what_transformers_fails_on(kind, arguments, settings, error) -> None:
    with pytest.raises(error):
        rates(kind, arguments, **settings)


def test_a_fraction_of_the_steps_is_no_decay_at_all() -> None:
    """Why num_decay_steps is a whole number: 0.1 is read as a tenth of one step."""
    assert rates("warmup_stable_decay", {"num_decay_steps": 0.1})[2:STEPS] == [1e-3] * (STEPS - 2)
