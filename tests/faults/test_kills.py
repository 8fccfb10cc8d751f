"""kill -9 at any moment: the same command ends in the weights of the uninterrupted run (F1, F2)."""

import os
import random
import signal
import time

import fault_runs as runs
import pytest
from injected import Fault

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", [name if name == "sft-lora" else pytest.param(name, marks=SLOW) for name in runs.STAGES]
)
@pytest.mark.parametrize("where", ["step", "save", "seal"])
def test_a_killed_run_goes_on_to_the_weights_of_the_uninterrupted_one(study, uninterrupted, name, where) -> None:
    """With dropout (sft-lora), so that random numbers count; within a PPO update, whose completions are made again."""
    out = f"killed-{name}-{where}"
    step = 4 if where != "step" else 6
    assert runs.train(study, name, out, fault=Fault("kill", step, where=where)) == 5
    assert "checkpoint-2" in runs.checkpoints(study, out)
    assert runs.train(study, name, out) == 0
    assert runs.final_hash(study, out) == uninterrupted(name)
    assert ("checkpoint-4.broken" in runs.checkpoints(study, out)) == (where != "step")


@pytest.mark.parametrize(
    "strategy", ["ddp", *(pytest.param(one, marks=SLOW) for one in ("fsdp2", "zero1", "zero2", "zero3"))]
)
def test_ranks_that_are_killed_inside_a_save_go_on_alike(study, uninterrupted, strategy) -> None:
    out = f"killed-{strategy}"
    assert runs.train(study, "sft-lora", out, strategy=strategy, fault=Fault("kill", 4, where="save")) == 5
    assert runs.train(study, "sft-lora", out, strategy=strategy) == 0
    assert runs.final_hash(study, out) == uninterrupted("sft-lora", strategy)


CHAOS_STEPS = 12
CHAOS = (f"train.max_steps={CHAOS_STEPS}", "train.save_steps=1")


def train_and_kill(study, out: str, seconds: float) -> bool:
    """Trains in a process of its own, which is killed after a while; whether it came to its end before."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setpgid(0, 0)
            code = runs.train_alone(study, "sft-lora", out, *CHAOS)
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)  # ranks do not outlive it
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("trial", [*range(3), *(pytest.param(trial, marks=SLOW) for trial in range(3, 20))])
def test_chaos(study, uninterrupted, trial) -> None:
    """Up to three kills at random moments, half of which fall into a save."""
    draw, out = random.Random(trial), f"chaos-{trial}"
    for _ in range(3):
        if train_and_kill(study, out, draw.uniform(0.2, 1.4)):
            break
    assert runs.train_alone(study, "sft-lora", out, *CHAOS) == 0
    assert runs.final_hash(study, out) == uninterrupted("sft-lora", None, *CHAOS)
