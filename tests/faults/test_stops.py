"""SIGTERM and Ctrl-C: agreed between ranks, sealed at the next step boundary, exit code 75, and at once when asked twice (F3 to F6)."""

import os
import signal
import time

import fault_runs as runs
import pytest
from injected import Fault

SLOW = pytest.mark.slow


def check_stopped(study, out: str, step: int) -> None:
    """Sealed at the boundary, with nothing measured or written after it."""
    ended = runs.read_exit(study, out)
    assert ended["code"] == 75
    assert f"after step {step} of {runs.STEPS}; checkpoint-{step} is sealed" in ended["reason"]
    assert ended["resume_command"].startswith("alignment train")
    assert runs.checkpoints(study, out)[-1] == f"checkpoint-{step}"
    assert len(runs.losses(study, out)) == step
    assert not (study / "runs" / out / "receipt.json").exists()


@pytest.mark.parametrize(
    "name", [name if name == "sft-lora" else pytest.param(name, marks=SLOW) for name in runs.STAGES]
)
def test_a_stop_is_sealed_at_the_next_boundary_and_the_same_command_goes_on(study, uninterrupted, name) -> None:
    """In the middle of an accumulated step; of PPO, whose completions are in no checkpoint, when the update is done."""
    out = f"term-{name}"
    assert runs.train(study, name, out, fault=Fault("term", 3, micro=1)) == 75
    check_stopped(study, out, 4 if name == "ppo" else 3)
    assert runs.train(study, name, out) == 0
    assert runs.final_hash(study, out) == uninterrupted(name)


def test_ctrl_c_is_the_same(study, uninterrupted) -> None:
    assert runs.train(study, "sft-lora", "int", fault=Fault("int", 3)) == 75
    check_stopped(study, "int", 3)
    assert runs.train(study, "sft-lora", "int") == 0
    assert runs.final_hash(study, "int") == uninterrupted("sft-lora")


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("zero3", marks=SLOW), pytest.param("fsdp2", marks=SLOW)])
def test_a_signal_to_one_rank_stops_all_at_the_same_step(study, uninterrupted, strategy) -> None:
    out, begun = f"one-rank-{strategy}", time.monotonic()
    fault = Fault("term", 3, rank=1)
    assert runs.train(study, "sft-lora", out, strategy=strategy, fault=fault) == 75
    assert time.monotonic() - begun < 15
    check_stopped(study, out, 3)
    assert "stopped by a signal to another rank" in runs.read_exit(study, out)["reason"]
    assert runs.train(study, "sft-lora", out, strategy=strategy) == 0
    assert runs.final_hash(study, out) == uninterrupted("sft-lora", strategy)


def test_two_signals_within_a_second_are_one_request(study) -> None:
    """A scheduler signals launcher and ranks, and the launcher passes it on."""
    assert runs.train(study, "sft", "twice", fault=Fault("term", 3, times=2, gap=0.1)) == 75
    check_stopped(study, "twice", 3)


@pytest.mark.parametrize("kind", ["term", pytest.param("int", marks=SLOW)])
def test_a_second_signal_ends_at_once_and_leaves_the_earlier_seal(study, uninterrupted, kind) -> None:
    out = f"second-{kind}"
    fault = Fault(kind, 4, times=2, gap=1.2)
    assert runs.train(study, "sft-lora", out, fault=fault) == 5  # nobody told the launcher: a lost process
    assert runs.checkpoints(study, out) == ["checkpoint-2"]
    assert runs.train(study, "sft-lora", out) == 0
    assert runs.final_hash(study, out) == uninterrupted("sft-lora")


def test_a_process_that_is_killed_while_it_seals_its_stop_leaves_the_earlier_seal(study, uninterrupted) -> None:
    """The grace was too short."""
    out = "short-grace"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = runs.train(study, "sft-lora", out, fault=Fault("kill", 4, where="seal"))
        finally:
            os._exit(code)
    os.waitpid(pid, 0)
    assert runs.train(study, "sft-lora", out) == 0
    assert runs.final_hash(study, out) == uninterrupted("sft-lora")


def test_outside_of_the_steps_a_stop_ends_the_run_where_it_is(study) -> None:
    from alignment.errors import Preempted
    from alignment.train.stopping import listening

    before = signal.getsignal(signal.SIGTERM)
    with listening() as stop, pytest.raises(Preempted, match="stopped by SIGTERM outside of the training steps"):
        signal.raise_signal(signal.SIGTERM)
    assert stop.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_evaluation_that_a_stop_left_out_is_made_up_for(study) -> None:
    """Which checkpoint is the best must not depend on a stop."""
    keys = ("train.eval_steps=2", "train.keep=best", "data.eval=[{path: held_out.jsonl, format: preference}]")
    held_out = study / "recipes/faults/held_out.jsonl"
    rows = [line.replace(" the ", " ") for line in (study / "recipes/faults/pairs.jsonl").read_text().splitlines()]
    held_out.write_text("\n".join(row.replace('"prompt": "', '"prompt": "say ') for row in rows[:4]) + "\n")
    assert runs.train(study, "reward", "evaluated", *keys) == 0
    assert runs.train(study, "reward", "left-out", *keys, fault=Fault("term", 4)) == 75
    assert len(evaluations(study, "left-out")) == 1
    assert runs.train(study, "reward", "left-out", *keys) == 0
    assert evaluations(study, "left-out") == evaluations(study, "evaluated")
    assert len(evaluations(study, "evaluated")) == 3


def evaluations(study, out: str) -> list[tuple[int, float]]:
    import json

    lines = [json.loads(line) for line in (study / "runs" / out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
