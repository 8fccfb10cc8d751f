import json

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignment.errors import DivergedError
from alignment.train.callbacks import FiniteGate, FirstStepGate, SpikeWatch, _drop_lines_after
from alignment.train.incidents import read_incidents

STATE = TrainerState(global_step=1, is_world_process_zero=True)


def log(callback, tmp_path, logs: dict) -> None:
    callback.on_log(TrainingArguments(output_dir=str(tmp_path)), STATE, TrainerControl(), logs=logs)


@pytest.mark.parametrize("logs", [{"loss": float("nan")}, {"loss": 1.0, "grad_norm": float("inf")}])
def test_a_loss_or_gradient_that_is_no_number_ends_the_run(tmp_path, logs: dict) -> None:
    with pytest.raises(DivergedError, match="step 1"):
        log(FiniteGate(), tmp_path, logs)


def test_a_first_step_outside_its_tolerance_ends_the_run(tmp_path) -> None:
    gate = FirstStepGate({"loss": (np.log(2), 1e-3)}, "reason")
    log(gate, tmp_path, {"loss": 0.6931})
    with pytest.raises(DivergedError, match=r"0\.6914"):
        log(gate, tmp_path, {"loss": 0.6914})


def test_a_first_step_that_is_not_a_number_does_not_pass(tmp_path) -> None:
    with pytest.raises(DivergedError):
        log(FirstStepGate({"loss": (0.0, 1e-3)}, "reason"), tmp_path, {"loss": float("nan")})


@pytest.mark.parametrize(
    ("loss", "says"),
    [(1.1, False), (2.0, True), (0.1, False), (float("nan"), False)],
    ids=["calm", "up", "down", "nan"],
)
def test_a_loss_far_above_the_lines_before_it_is_said_once(tmp_path, loss, says) -> None:
    watch = SpikeWatch(tmp_path, stop=False)
    state = TrainerState(is_world_process_zero=True)
    for step in range(1, 13):  # 0.99 to 1.01: a deviation is taken as one per cent at least
        _log_step(watch, tmp_path, state, step, 1 + 0.01 * (step % 3 - 1))
    for _ in range(2):  # as after a crash before the next checkpoint
        _log_step(watch, tmp_path, state, 13, loss)
    assert [note[:27] for note in read_incidents(tmp_path)["notes"]] == (
        ["step 13: alert loss_spike: "] if says else []
    )
    if says:
        with pytest.raises(DivergedError, match="on_loss_spike is stop"):
            _log_step(SpikeWatch(tmp_path, stop=True), tmp_path, state, 13, loss)


def test_the_first_lines_of_a_run_have_nothing_to_be_compared_with(tmp_path) -> None:
    state = TrainerState(is_world_process_zero=True)
    for step in range(1, 11):
        _log_step(SpikeWatch(tmp_path, stop=True), tmp_path, state, step, 10.0**step)


def _log_step(callback, tmp_path, state: TrainerState, step: int, loss: float) -> None:
    state.global_step = step
    state.log_history.append({"loss": loss, "step": step})
    callback.on_log(TrainingArguments(output_dir=str(tmp_path)), state, TrainerControl(), logs={"loss": loss})


def test_a_resumed_run_drops_the_lines_that_it_writes_again(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "lo')
    _drop_lines_after(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
