"""Faults on purpose: `fail at rank r, step s, kind k`, inside a forked rank, whose process ends with the run."""

import errno
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT, "hang": signal.SIGSTOP}
SPOILT = {"nan_loss": math.nan, "inf_loss": math.inf, "loss_spike": 100.0}  # what the loss is multiplied by


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and when.

    Attributes:
        kind: kill, term, int, hang (SIGSTOP); nan_loss, inf_loss, loss_spike, nan_gradient; memory; disk.
        step: the optimizer step in which it does, from 1.
        where: step (a forward pass), save (in the middle of a checkpoint) or seal (written, not sealed yet).
        micro: forward pass of the step.
        once: a file that is made when it has happened; it does not happen again.
        times: signals sent, `gap` seconds apart.
        fits: rows in a forward pass that memory holds, for kind memory.
    """

    kind: str
    step: int
    rank: int = 0
    where: str = "step"
    micro: int = 0
    once: Path | None = None
    times: int = 1
    gap: float = 0.0
    fits: int = 0


def inject(fault: Fault | tuple[Fault, ...] | None) -> None:
    """Has the fault happen in this process, when it is its rank; of several, all."""
    if isinstance(fault, tuple):
        for one in fault:
            inject(one)
        return
    if fault is None or int(os.environ.get("RANK", "0")) != fault.rank:
        return
    if fault.where == "step":
        _in_a_step(fault)
    elif fault.where == "save":
        _in_a_save(fault)
    else:
        _before_the_seal(fault)


def _in_a_step(fault: Fault) -> None:
    from alignment.train.guard import Guarded

    real, passes = Guarded.training_step, {}

    def training_step(self, *args, **kwargs):
        step = self.state.global_step + 1
        micro = passes[step] = passes.get(step, -1) + 1
        if fault.kind == "memory":
            if step >= fault.step and self.args.per_device_train_batch_size > fault.fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return real(self, *args, **kwargs)
        if (step, micro) != (fault.step, fault.micro) or not _is_due(fault):
            return real(self, *args, **kwargs)
        if fault.kind in SPOILT:
            return _spoil_loss(self, real, SPOILT[fault.kind], args, kwargs)
        if fault.kind == "nan_gradient":
            loss = real(self, *args, **kwargs)
            next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(math.nan)
            return loss
        _act(fault)
        return real(self, *args, **kwargs)

    Guarded.training_step = training_step


def _spoil_loss(trainer, real, value: float, args, kwargs):
    inner = trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: inner(*a, **k) * value
    try:
        return real(trainer, *args, **kwargs)
    finally:
        del trainer.compute_loss


def _in_a_save(fault: Fault) -> None:
    """The weights are written, the optimizer is not."""
    from transformers import Trainer

    real = Trainer._save_optimizer_and_scheduler

    def save(self, output_dir):
        if self.state.global_step == fault.step and _is_due(fault):
            _act(fault)
        return real(self, output_dir)

    Trainer._save_optimizer_and_scheduler = save


def _before_the_seal(fault: Fault) -> None:
    from alignment.train import seal

    real = seal.os.replace

    def replace(source, target):
        if str(target).endswith(f"checkpoint-{fault.step}/{seal.SEAL}") and _is_due(fault):
            _act(fault)
        return real(source, target)

    seal.os.replace = replace


def _is_due(fault: Fault) -> bool:
    if fault.once is None:
        return True
    if fault.once.exists():
        return False
    fault.once.touch()
    return True


def _act(fault: Fault) -> None:
    if fault.kind == "disk":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for number in range(fault.times):
        time.sleep(fault.gap if number else 0.0)
        os.kill(os.getpid(), SIGNALS[fault.kind])
