"""What happens at a log line: gates, metrics.jsonl, the console and the tracker.

A gate that does not hold ends the run before anything is saved; the recipe has no key that lets it pass.
"""

import json
import logging
import math
import statistics
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.errors import DivergedError
from alignment.train.console import Console
from alignment.train.incidents import add_incident, read_incidents
from alignment.train.token_counts import TokenCounts
from alignment.train.tracking import Tracker

logger = logging.getLogger(__name__)
SPIKE_WINDOW = 20  # log lines
SPIKE_DEVIATIONS = 10.0
# TRL counts tokens per process and pads; ours come from the rows (see RunLog).
NOT_LOGGED = ("num_tokens", "epoch", "total_flos")


class FiniteGate(TrainerCallback):
    """Ends the run when a loss or gradient norm that is logged is not a number. transformers would log 0.0 and train on.

    `guard.py` sees those of every step before this; this is for the held-out loss, and for a trainer without a guard.
    """

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict | None = None, **_: Any
    ) -> None:
        for name in ("loss", "grad_norm", "eval_loss"):
            value = (logs or {}).get(name)
            if value is not None and not math.isfinite(float(value)):
                raise DivergedError(
                    f"step {state.global_step}: {name} is {value}; expected a finite number. Lower train.learning_rate, "
                    "or look at the rows of this step; no weights were saved after it."
                )


class SpikeWatch(TrainerCallback):
    """Looks whether the loss of a log line stands far above those of the lines before it, and says so or ends the run.

    Far is more than `SPIKE_DEVIATIONS` deviations above the median of up to `SPIKE_WINDOW` lines before it; a deviation is 1.4826 times
    the median distance from that median, and one per cent of it at least. Every rank sees the same losses, and a resumed run has the
    lines before it from its checkpoint.

    Args:
        run_dir: where a spike is noted for receipt and report.
        stop: whether it ends the run.
    """

    def __init__(self, run_dir: Path, *, stop: bool) -> None:
        self.run_dir, self.stop = run_dir, stop

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict | None = None, **_: Any
    ) -> None:
        if "loss" not in (logs or {}):
            return
        before = [line["loss"] for line in state.log_history if "loss" in line and line["step"] < state.global_step]
        before = before[-SPIKE_WINDOW:]
        if len(before) < SPIKE_WINDOW // 2:
            return
        usual = statistics.median(before)
        spread = 1.4826 * statistics.median(abs(loss - usual) for loss in before)
        limit = usual + SPIKE_DEVIATIONS * max(spread, 0.01 * abs(usual))
        if not logs["loss"] > limit:  # what is no number is the gate's
            return
        text = (
            f"step {state.global_step}: alert loss_spike: loss is {logs['loss']:.4g}, {usual:.4g} in the median of the {len(before)} lines "
            f"before; at most {limit:.4g} was expected. Look at the rows of these steps, or lower train.learning_rate."
        )
        if state.is_world_process_zero:
            logger.warning("%s", text)
            if text not in read_incidents(self.run_dir)["notes"]:  # a step that is made again after a crash
                add_incident(self.run_dir, text)
        if self.stop:
            raise DivergedError(f"{text} train.on_loss_spike is stop, so the run ends here; the checkpoints are kept.")


class FirstStepGate(TrainerCallback):
    """Checks the log of step 1, whose numbers are still those of the start model.

    Args:
        expected: metric name to (value, tolerance).
        reason: what a violation means and what to do.
    """

    def __init__(self, expected: dict[str, tuple[float, float]], reason: str) -> None:
        self.expected = expected
        self.reason = reason

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict | None = None, **_: Any
    ) -> None:
        if state.global_step != 1 or "loss" not in (logs or {}):
            return
        for name, (value, tolerance) in self.expected.items():
            found = float(logs[name])
            if not abs(found - value) <= tolerance:
                raise DivergedError(
                    f"step 0: {name} is {found:.6g}; expected {value:.6g} within {tolerance:.2g}. {self.reason}"
                )


class RunLog(TrainerCallback):
    """Writes metrics.jsonl and feeds console and tracker; does something on rank 0 only.

    Args:
        tokens: counts of tokens; None until the stage sets one.
        epochs_per_step: passes over the rows that an optimizer step makes.
    """

    def __init__(
        self,
        path: Path,
        *,
        tokens: TokenCounts | None,
        epochs_per_step: float,
        console: Console,
        tracker: Tracker | None,
    ) -> None:
        self.path = path
        self.tokens = tokens
        self.epochs_per_step = epochs_per_step
        self.console = console
        self.tracker = tracker
        self.last: tuple[int, float, int] | None = None  # step, time and tokens seen at the last line
        self.seconds_to_first_step: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.begun = time.perf_counter()
        self.last = (state.global_step, self.begun, self.tokens.seen(state.global_step))
        if state.is_world_process_zero:
            _drop_lines_after(self.path, state.global_step)
            self.console.start(state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.seconds_to_first_step is None:
            self.seconds_to_first_step = time.perf_counter() - self.begun
        # transformers logs every logging_steps, and so may leave out where the run ended.
        control.should_log = control.should_log or state.global_step >= state.max_steps

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict | None = None, **_: Any
    ) -> None:
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        step, now = state.global_step, time.perf_counter()
        metrics = {
            name: value for name, value in logs.items() if name not in NOT_LOGGED and not name.endswith("_num_tokens")
        }
        if "loss" in logs and step > self.last[0]:
            seen = self.tokens.seen(step)
            metrics["tokens_per_second"] = round((seen - self.last[2]) / (now - self.last[1]), 1)
            metrics["tokens"] = seen
            metrics["epoch"] = round(step * self.epochs_per_step, 4)
            self.last = (step, now, seen)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 3), **metrics}) + "\n")
        self.console.update(step, metrics)
        if self.tracker is not None:
            self.tracker.log(metrics, step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.console.close()


def _drop_lines_after(path: Path, step: int) -> None:
    """Removes what a resumed run will write again."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
