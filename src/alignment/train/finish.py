"""From a built trainer to a finished run: train or resume, measure, save, verify, and write the receipt and pages."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PrinterCallback, Trainer

from alignment.errors import LaunchError
from alignment.measure.suite import Measured, Scorer
from alignment.recipe.resolved import recipe_hash
from alignment.report.card import write_card
from alignment.report.parents import describe_parents
from alignment.report.receipt import make_receipt, write_receipt
from alignment.report.run_files import SAMPLES
from alignment.report.run_report import write_report
from alignment.train.artifacts import Saved, Verifier, write_result
from alignment.train.begin import Beginning
from alignment.train.guard import Guard
from alignment.train.incidents import read_incidents
from alignment.train.memory import is_out_of_memory, shrink
from alignment.train.policy import Policy
from alignment.train.resume import find_checkpoint
from alignment.train.seal import read_seal
from alignment.train.training import INITIAL, Training

logger = logging.getLogger(__name__)


def complete(
    training: Training,
    trainer: Trainer,
    policy: Policy,
    *,
    against: Callable[[], Any] | None = None,
    scorer: Scorer | None = None,
    beside: Sequence[Policy] = (),
) -> None:
    """Runs the training to its verified end. Every rank must call it.

    Args:
        against: makes the model that the metric `kl` compares with.
        scorer: what the metric `score` asks.
        beside: further models that the trainer trains, saved and verified as the policy is.

    Raises:
        DivergedError: a loss is not finite, or a gate of the first step does not hold.
        ArtifactError: the start is not what it claims to be, or the result does not reload.
    """
    seconds = {"prepare": training.context.prepare_seconds, "load": time.perf_counter() - training.begun}
    beginning = Beginning(training, trainer, policy, against, scorer, beside)
    trainer.remove_callback(PrinterCallback)
    # First of all: nothing may be logged or timed before it.
    trainer.callback_handler.callbacks.insert(0, beginning)
    began = time.perf_counter()
    _train(training, trainer)
    seconds["train"] = time.perf_counter() - began - beginning.seconds
    verifier = Verifier() if training.context.rank == 0 else None
    try:
        began = time.perf_counter()
        if training.eval_rows is not None and not training.recipe.train.eval_steps:
            trainer.evaluate()
        after = beginning.measure()
        seconds["evaluate"] = beginning.seconds + time.perf_counter() - began
        began = time.perf_counter()
        saved = write_result(training, trainer, [policy, *beside], verifier)
        seconds["save"] = time.perf_counter() - began
    finally:
        if verifier is not None:
            verifier.close()
    if saved is not None:
        _write_files(training, policy, seconds, (beginning.before, after), saved[0])
    if training.log.tracker is not None:
        training.log.tracker.finish()


def _train(training: Training, trainer: Trainer) -> None:
    """The steps, from the newest checkpoint that verifies.

    Raises:
        BatchTooLarge, LaunchError: memory ran out in a step.
    """
    checkpoint = find_checkpoint(training)
    trainer.guard = guard = Guard(training, trainer)
    guard.evaluation_due = checkpoint is not None and read_seal(checkpoint)["evaluation_due"]
    trainer.add_callback(guard)
    told: LaunchError | None = None
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (RuntimeError, MemoryError) as error:
        if guard.heart is None or not is_out_of_memory(error):
            raise
        told = shrink(training.schedule, training.context)
    finally:
        guard.close()
    # Not raised inside: what failed would be held by it, tensors and all.
    if told is not None:
        raise told


def _write_files(
    training: Training,
    policy: Policy,
    seconds: dict[str, float],
    measured: tuple[Measured | None, Measured | None],
    saved: Saved,
) -> None:
    """Everything beside final/. Rank 0 alone."""
    context, recipe, run_dir = training.context, training.recipe, training.context.run_dir
    before, after = measured
    samples = {name: found.samples for name, found in (("before", before), ("after", after)) if found and found.samples}
    if samples:
        (run_dir / SAMPLES).write_text(json.dumps(samples, ensure_ascii=False, indent=1), encoding="utf-8")
    steps = training.schedule.steps
    seconds["total"] = context.prepare_seconds + time.perf_counter() - training.begun
    receipt = make_receipt(
        stage=recipe.stage,
        recipe_hash=recipe_hash(recipe),
        recipe_dir=context.recipe_path.parent,
        seed=recipe.seed,
        command=context.command,
        prepared_manifest_hash=training.prepared.key[:16],
        template_hash=training.prepared.manifest["template_hash"],
        schedule=asdict(training.schedule),
        metrics=after.values if after else None,
        metric_errors=after.errors if after else None,
        metrics_before=before.values if before else None,
        metric_errors_before=before.errors if before else None,
        seconds={name: round(value, 2) for name, value in seconds.items()},
        parents=describe_parents(recipe),
        probe=saved.probe,
        weights_hash=saved.weights_hash,
        reload_gap=saved.gap,
        world_size=context.world_size,
        strategy=context.strategy,
        dtypes={
            "compute": "bfloat16" if training.bf16 else "float32",
            "saved": str(policy.saved_dtype).removeprefix("torch."),
        },
        tokens={"seen": training.log.tokens.seen(steps), "trained": training.log.tokens.trained(steps)},
        num_parameters=count_parameters(run_dir / "final"),
        gpus=[torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        notes=(*policy.notes, *training.notes, *read_incidents(run_dir)["notes"]),
    )
    write_receipt(run_dir, receipt)
    shutil.rmtree(run_dir / INITIAL, ignore_errors=True)  # drawn from the seed, so it can be drawn again
    write_card(run_dir)
    write_report(run_dir)


def count_parameters(folder: Path) -> int | None:
    """Parameters of the weights in a folder, from the headers of its safetensors files."""
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), "pt") as file:
            total += sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    return total or None
