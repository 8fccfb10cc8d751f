"""What must hold before step 1, on the model as the launcher has wrapped it; and the metrics before training.

transformers wraps, shards and moves the model inside `train()`, so this is a callback: it comes first when training begins.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.errors import ArtifactError
from alignment.measure.logps import check_packing
from alignment.measure.suite import Measured, Scorer, measure
from alignment.models.probe import TOLERANCE, probe_gap
from alignment.report.receipt import read_receipt
from alignment.train.artifacts import live_dtype, live_probe
from alignment.train.memory import EVALUATION, shrinking
from alignment.train.policy import Policy
from alignment.train.training import Training
from alignment.train.trial import check_room, try_saving

logger = logging.getLogger(__name__)
BEFORE = "before.json"  # in the run folder, so that a resumed run still knows it


class Beginning(TrainerCallback):
    """Checks launch, start model and packing, then measures. Every rank takes part.

    Args:
        against: the model that `kl` compares with, made when it is needed; None where the stage has none.
        scorer: what the metric `score` asks; None where the stage has no rewards.
        beside: further models whose result is written.
    """

    def __init__(
        self,
        training: Training,
        trainer: Trainer,
        policy: Policy,
        against: Callable[[], Any] | None = None,
        scorer: Scorer | None = None,
        beside: Sequence[Policy] = (),
    ) -> None:
        self.policies = [policy, *beside]
        self.training, self.trainer, self.policy, self.against = training, trainer, policy, against
        self.scorer = scorer
        self.seconds = 0.0
        self.before: Measured | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        begun = time.perf_counter()
        context = self.training.context
        if context.check_launch is not None:
            context.check_launch(self.trainer)
        path = context.run_dir / BEFORE
        if state.global_step == 0:
            check_room(self.training, self.trainer)
            try_saving(self.training, self.trainer, self.policies)
            check_start(self.training, self.trainer, self.policy)
            self._check_packing()
            self.before = self.measure()
            if self.before is not None and context.rank == 0:
                path.write_text(json.dumps(vars(self.before)), encoding="utf-8")
        elif path.is_file():
            self.before = Measured(**json.loads(path.read_text(encoding="utf-8")))
        if context.strategy == "zero3":
            from alignment.models.deepspeed import forget_module_order

            for engine in (self.trainer.model_wrapped, getattr(self.trainer, "ref_model", None)):
                forget_module_order(engine)
        if context.strategy == "fsdp2":
            # torch 2.13 fails in the backward pass of an accumulated step when a group of parameters was never gathered before.
            for policy in self.policies:
                live_probe(policy.live(self.trainer))
        self.seconds = time.perf_counter() - begun

    def measure(self) -> Measured | None:
        """The recipe's metrics on the held-out rows; None when it has neither. Every rank must call it."""
        training, spec = self.training, self.training.recipe.eval
        num_samples = spec.num_samples if self.policy.kind == "causal" else 0
        if training.eval_rows is None or not (spec.metrics or num_samples):
            return None
        limits = {"max_new_tokens": spec.max_new_tokens} if self.policy.kind == "causal" else {}
        size = training.fitted.eval.per_device_eval_batch_size
        with shrinking(EVALUATION, size, training.context):
            return measure(
                self.policy.live(self.trainer),
                training.tokenizer,
                training.eval_rows,
                spec.metrics,
                pad_id=training.prepared.manifest["pad_id"],
                stop_ids=training.prepared.manifest["stop_ids"],
                batch_size=size,
                kind=self.policy.kind,
                against_model=self.against() if self.against is not None else None,
                scorer=self.scorer,
                num_samples=num_samples,
                bf16=training.bf16,
                **limits,
            )

    def _check_packing(self) -> None:
        training = self.training
        if not training.prepared.manifest["packing"]:
            return
        rows = _two_documents(training)
        if rows is not None:
            gap = check_packing(
                self.trainer.model, rows, pad_id=training.prepared.manifest["pad_id"], bf16=training.bf16
            )
            logger.debug("packed logits differ from the documents' own by %.1e of the greatest", gap)


def _two_documents(training: Training) -> list[list[int]] | None:
    """Two different documents of the rows that are trained on; None when there is only one."""
    found: list[list[int]] = []
    for row in training.prepared.train.select(range(min(8, len(training.prepared.train)))):
        start = 0
        for length in row["seq_lengths"]:
            document = row["input_ids"][start : start + length]
            start += length
            if document not in found:
                found.append(document)
            if len(found) == 2:
                return found
    return None


def check_start(training: Training, trainer: Trainer, policy: Policy) -> None:
    """Compares the model before step 1 with the receipt of the run that it starts from. Every rank must call it.

    A new adapter changes nothing before its first step, and a reward model's body is that of the model it is made
    from. A parent's adapter that was dropped on the way shows here and nowhere else: ln 2, zero margins and a
    result that reloads all hold without it.

    Raises:
        ArtifactError: the model is not the one that was saved there.
    """
    expected = _parent_probe(training)
    if expected is None:
        return
    if policy.new_rows:
        logger.info("the start is not compared with its receipt: %d tokens were added", policy.new_rows)
        return
    live = policy.live(trainer)
    found = live_probe(live)
    names = (
        ("outputs", "hidden")
        if len(expected["outputs"][0]) == len(found["outputs"][0]) and not policy.new_head
        else ("hidden",)
    )
    gap = probe_gap(expected, found, names)
    tolerance = max(TOLERANCE[dtype] for dtype in (expected["dtype"], live_dtype(live, training)))
    if not gap <= tolerance:
        raise ArtifactError(
            f"{training.start.path}: before step 1 the fixed prompts score differently from the receipt there: {gap:.2g} of the "
            f"greatest value; at most {tolerance:.2g} is rounding. The weights changed after that run, or were not all loaded."
        )


def _parent_probe(training: Training) -> dict[str, Any] | None:
    run_dir: Path | None = training.start.run_dir
    if run_dir is None or not (run_dir / "receipt.json").is_file():
        return None
    return read_receipt(run_dir).get("probe")
