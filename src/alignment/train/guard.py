"""What watches over the steps of a training: agreed stops, finite numbers, sealed checkpoints, signs of life.

One small all-reduce a step carries both flags, asked to stop and not finite, so all ranks act at the same step. On a GPU the
answer is read a step later, when it is there anyway, unless something is logged, saved or evaluated now; before anything is saved it has
been read in any case.
"""

import errno
import logging
import math
import shutil
import time
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.errors import LaunchError, Preempted
from alignment.measure.batches import PROGRESS
from alignment.recipe.resolved import recipe_hash
from alignment.train import divergence, seal
from alignment.train.heartbeat import Heartbeat, Watch, watch_oneself
from alignment.train.run_folder import share_weights
from alignment.train.training import Training

logger = logging.getLogger(__name__)
CHECKPOINTS = "checkpoints"  # in the run folder
NOTHING_FREE_BYTES = 1_000_000
ROOM = 1.2  # times the last checkpoint must be free before the next one is begun


class Guard(TrainerCallback):
    """Holds the promises of one training; `Guarded` asks it at the right moments. Every rank has one.

    Attributes:
        evaluation_due: whether a stop came before the evaluation of its step; a resumed run does it first.
        seconds: spent on agreeing after steps, and on sealing.
    """

    def __init__(self, training: Training, trainer: Trainer) -> None:
        self.training, self.trainer, self.context = training, trainer, training.context
        self.folder = self.context.run_dir / CHECKPOINTS
        self.stopping = self.evaluation_due = False
        self.seconds = {"steps": 0.0, "seals": 0.0}
        self.heart: Heartbeat | None = None
        self._watch_over: Any = None
        self._seen = -1
        self._losses: list[torch.Tensor] = []  # one a forward pass of this step
        self._pending: list[tuple[int, torch.Tensor, list[torch.Tensor], list[list[int]], Any]] = []

    @property
    def lag(self) -> int:
        """Steps after which flags are read: on a GPU they are not there yet when the step has been queued."""
        return 0 if self.trainer.args.device.type == "cpu" else 1

    # -------------------------------------------------------------------------------------------- begin and end

    def open(self) -> None:
        """From here on the steps run: signals are noted, and progress is expected."""
        context = self.context
        self.heart = Heartbeat(context.run_dir, context.rank)
        self.beat("begins")
        PROGRESS.tell = partial(self.beat, "measuring or sampling")
        if not context.supervised:
            watch = Watch(context.run_dir, self.training.recipe.train.hang_timeout)
            self._watch_over = watch_oneself(watch, self.context.on_hang)
        context.stop.in_steps = True

    def close(self) -> None:
        """The steps are over, well or not."""
        self.context.stop.in_steps = False
        PROGRESS.tell = None
        if self.heart is not None:
            if self._watch_over is not None:
                self._watch_over.set()
            self.heart.close(self.trainer.state.global_step)
            self.heart = None

    def beat(self, doing: str) -> None:
        """There was progress."""
        if self.heart is not None:
            self.heart.beat(self.trainer.state.global_step, doing)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.heart is None:
            self.open()
            if self.evaluation_due:
                self.evaluation_due = False
                self._catch_up()
        self.beat("forward and backward")

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.beat("forward and backward")

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.beat("optimizer step")

    def _catch_up(self) -> None:
        """The evaluation that a stop left out: which checkpoint is the best must not depend on it."""
        trainer = self.trainer
        metrics = trainer._evaluate(None, None)
        trainer._determine_best_metric(metrics=metrics, trial=None)
        if trainer.state.best_global_step == trainer.state.global_step:
            trainer.state.best_model_checkpoint = str(self.folder / f"checkpoint-{trainer.state.global_step}")

    # -------------------------------------------------------------------------------------------- a step

    def take_loss(self, loss: torch.Tensor) -> None:
        """Keeps the loss of a forward pass, on its device."""
        self._losses.append(loss)

    def after_step(self, norm: Any) -> None:
        """Agrees on the step that was just made; the trainer's control is changed where all are to stop. Every rank must call it.

        Raises:
            DivergedError: a loss or the gradient norm is not finite on some rank.
        """
        state = self.trainer.state
        if state.global_step == self._seen or not self._losses:
            return
        began = time.perf_counter()
        self._seen = state.global_step
        losses, self._losses = self._losses, []
        rows = self.trainer.rows_of_step(state.global_step)
        self._pending.append((state.global_step, self._agree(losses, norm), losses, rows, norm))
        control = self.trainer.control
        due = control.should_log or control.should_save or control.should_evaluate or control.should_training_stop
        keep = 0 if due else self.lag
        # A stop that is read here saves at this step, whose own flags must be read before it.
        while len(self._pending) > (0 if self.stopping else keep):
            self._judge(*self._pending.pop(0))
        if self.stopping:
            # No loss of a line is left out, and nothing is evaluated any more.
            control.should_save = control.should_training_stop = control.should_log = True
            self.evaluation_due, control.should_evaluate = control.should_evaluate, False
        self.beat("step done")
        self.seconds["steps"] += time.perf_counter() - began

    def _agree(self, losses: list[torch.Tensor], norm: Any) -> torch.Tensor:
        """[2] on the device: whether any rank was asked to stop, and whether any number of any rank is not finite."""
        device = self.trainer.args.device
        numbers = [loss.detach().float().reshape(()) for loss in losses]
        numbers += [_local(norm, device)] if norm is not None else []
        bad = ~torch.isfinite(torch.stack(numbers)).all()
        asked = torch.tensor(self.context.stop.number is not None, device=device)
        flags = torch.stack([asked, bad]).to(torch.int32)
        if self.context.world_size > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return flags

    def _judge(
        self, step: int, flags: torch.Tensor, losses: list[torch.Tensor], rows: list[list[int]], norm: Any
    ) -> None:
        asked, bad = flags.tolist()
        if bad:
            self._diverge(step, losses, rows, norm)
        if asked and not self.stopping:
            self.stopping = True
            if self.context.rank == 0:
                logger.info("asked to stop by %s: sealing at the next boundary", self.context.stop.name)

    def _diverge(self, step: int, losses: list[torch.Tensor], rows: list[list[int]], norm: Any) -> None:
        """Every rank calls it, since all have the same flags."""
        value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm if norm is not None else 0.0)
        own = [
            {"rank": self.context.rank, "rows": read, "loss": float(loss)}
            for read, loss in zip(rows, losses, strict=True)
        ]
        found = _gather((own, value), self.context.world_size)
        passes = [one for theirs, _ in found for one in theirs]
        # The rank whose gradient it is may be the only one that has it.
        value = next((theirs for _, theirs in found if not math.isfinite(theirs)), value)
        run_dir = self.context.run_dir
        if self.context.rank == 0:
            texts = {row: _read_text(self.training, row) for row in divergence.choose_texts(passes)}
            divergence.write_rows(run_dir, step, passes, value, texts)
        raise divergence.describe(step, passes, value, run_dir)

    # -------------------------------------------------------------------------------------------- a checkpoint

    def before_save(self) -> None:
        """Looks whether the disk takes another checkpoint of the last one's size.

        Raises:
            LaunchError: it does not; the last one is kept.
        """
        self.beat("saving")
        if self.context.rank == 0 and (last := seal.newest_sealed(self.folder)) is not None:
            wanted, free = ROOM * seal.size_of(last), shutil.disk_usage(self.folder).free
            if free < wanted:
                raise _no_room(f"{free / 1e6:.0f} MB are free, and a checkpoint takes {wanted / 1e6:.0f} MB")

    def save_failed(self, error: Exception) -> LaunchError | None:
        """What to raise for an error of a save; None where it is not the disk's. The part that was written is removed."""
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        full |= "space left" in str(error).lower()  # as safetensors says it; torch.save names no reason
        if not full and shutil.disk_usage(self.context.run_dir).free > NOTHING_FREE_BYTES:
            return None
        if self.context.rank == 0:
            shutil.rmtree(self.folder / f"checkpoint-{self.trainer.state.global_step}", ignore_errors=True)
        return _no_room(f"{error}")

    def after_save(self) -> None:
        """Seals the checkpoint that all ranks have written, and lets go of old ones. Every rank must call it.

        Raises:
            Preempted: the run was asked to stop, and this was what it waited for.
        """
        began = time.perf_counter()
        self.trainer.accelerator.wait_for_everyone()
        if self.context.rank == 0:
            self._seal()
        self.trainer.accelerator.wait_for_everyone()
        self.beat("sealed")
        self.seconds["seals"] += time.perf_counter() - began
        if self.stopping:
            self.context.stop.sealed = True
            step, steps = self.trainer.state.global_step, self.trainer.state.max_steps
            raise Preempted(
                f"stopped by {self.context.stop.name} after step {step} of {steps}; checkpoint-{step} is sealed. The same command goes on."
            )

    def _seal(self) -> None:
        state, context, recipe = self.trainer.state, self.context, self.training.recipe
        path = self.folder / f"checkpoint-{state.global_step}"
        # A pickle of all arguments, which nothing here reads; checkpoints get copied and uploaded.
        (path / "training_args.bin").unlink(missing_ok=True)
        share_weights(path)
        facts = {
            "step": state.global_step,
            "strategy": context.strategy,
            "world_size": context.world_size,
            "recipe_hash": recipe_hash(recipe),
            "per_device_train_batch_size": self.training.schedule.per_device_batch_size,
            "evaluation_due": self.evaluation_due,
        }
        seal.seal(path, facts)
        best = state.best_model_checkpoint if recipe.train.keep == "best" else None
        seal.rotate(self.folder, recipe.train.save_total_limit, self.folder / best.rpartition("/")[2] if best else None)


class Guarded:
    """Mixin before a Trainer class: asks the guard. A trainer without one trains as the library does."""

    guard: Guard | None = None

    def rows_of_step(self, step: int) -> list[list[int]]:
        """Indices into the prepared rows that this rank's forward passes of an optimizer step (from 1) read, in their order.

        accelerate deals micro-batches to the ranks in turn.
        """
        training = self.guard.training
        schedule, context = training.schedule, training.context
        size, base = schedule.per_device_batch_size, (step - 1) * schedule.global_batch_size
        starts = [base + (number * context.world_size + context.rank) * size for number in range(schedule.accumulation)]
        return [training.order[start : start + size].tolist() for start in starts]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(*args, **kwargs)
        if self.guard is not None:
            self.guard.take_loss(loss)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        if self.guard is not None:
            self.guard.after_step(grad_norm)
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if self.guard is None:
            super()._save_checkpoint(*args, **kwargs)
            return
        self.guard.before_save()
        try:
            super()._save_checkpoint(*args, **kwargs)
            self.guard.after_save()  # a network's disk may only say that it is full when files are made to reach it
        except (OSError, RuntimeError, SafetensorError) as error:
            if (told := self.guard.save_failed(error)) is not None:
                raise told from error
            raise


def _local(norm: Any, device: torch.device) -> torch.Tensor:
    """This rank's part of a norm that may be a number, a tensor or dealt out, as a scalar on the device."""
    if isinstance(norm, torch.Tensor):
        norm = norm.to_local() if hasattr(norm, "to_local") else norm
        return norm.detach().to(device=device, dtype=torch.float32).reshape(-1).sum()
    return torch.tensor(float(norm), device=device)


def _gather(own: Any, world_size: int) -> list[Any]:
    if world_size == 1:
        return [own]
    found: list[Any] = [None] * world_size
    dist.all_gather_object(found, own)
    return found


def _read_text(training: Training, row: int) -> str:
    columns = training.prepared.train[row]
    ids = [token for name in ("input_ids", "prompt_ids", "chosen_ids") for token in columns.get(name) or ()]
    return training.tokenizer.decode(ids)


def _no_room(found: str) -> LaunchError:
    return LaunchError(
        f"checkpoints/: the disk is full ({found}); room for one more checkpoint was expected. Earlier ones are kept. Make room, or lower "
        "train.save_total_limit; the same command goes on."
    )
