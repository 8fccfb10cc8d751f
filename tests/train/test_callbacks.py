import json

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from alignment.errors import DivergedError
from alignment.train.callbacks import FiniteGate, FirstStepGate, _drop_lines_after

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


def test_a_resumed_run_drops_the_lines_that_it_writes_again(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3)) + '{"step": 4, "lo')
    _drop_lines_after(path, 2)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
