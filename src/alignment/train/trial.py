"""Tried before step 1: whether there is room, and whether what this run will leave can be written and read back.

A run that finds this out in its last minute has wasted all the others.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Trainer

from alignment.errors import ArtifactError, LaunchError
from alignment.models.load import AUTO_CLASSES, Kind, whole_weights
from alignment.models.tokenizer import load_tokenizer
from alignment.recipe.train_spec import TrainSpec
from alignment.train.artifacts import write_trial
from alignment.train.guard import CHECKPOINTS
from alignment.train.policy import Policy
from alignment.train.training import Training

logger = logging.getLogger(__name__)
TRIAL = "trial"  # in the run folder, for as long as it takes
# Beyond this the weights themselves are not written twice: only the files beside them are.
MAX_TRIAL_BYTES = 1_000_000_000


def check_room(training: Training, trainer: Trainer) -> None:
    """Whether checkpoints and result will fit on the disk of the run folder. Rank 0 alone looks.

    Raises:
        LaunchError: they will not.
    """
    needed = estimate_bytes(training, trainer)  # of whole shapes, on every rank alike
    if training.context.rank != 0:
        return
    free = shutil.disk_usage(training.context.run_dir).free
    if free < needed:
        raise LaunchError(
            f"{training.context.run_dir}: {free / 1e9:.1f} GB are free, and checkpoints and result take about {needed / 1e9:.1f} GB. Make "
            "room, lower train.save_total_limit, or give --out DIR."
        )


def estimate_bytes(training: Training, trainer: Trainer) -> int:
    """Bytes that this run will have on the disk at once."""
    total, trained = 0, 0
    for parameter in trainer.model.parameters():
        number = _numel(parameter)
        total += number
        trained += number if parameter.requires_grad else 0
    return run_bytes(training.recipe.train, training.schedule.steps, total, trained, training.context.strategy)


def run_bytes(train: TrainSpec, steps: int, total: int, trained: int, strategy: str) -> int:
    """Bytes of all checkpoints that exist at once and of the result: fp32 weights, two moments in fp32, the saved weights twice.

    Args:
        total, trained: elements of the model, and of what is trained of it.
    """
    whole = trained == total
    copies = 2 if strategy == "fsdp2" else 1  # accelerate 1.15 writes the model twice
    checkpoint = 4 * copies * (total if whole else trained) + 8 * trained
    saves = -(-steps // train.save_steps) if train.save_steps else 1
    kept = min(train.save_total_limit + 1 + (train.keep == "best"), saves)
    return kept * checkpoint + 2 * 4 * total


def try_saving(training: Training, trainer: Trainer, policies: Sequence[Policy]) -> None:
    """Writes what the result will consist of, reads it back and removes it. Every rank must call it.

    Raises:
        LaunchError: the folder cannot be written.
        ArtifactError: what is read back is not what the model holds.
    """
    rank = training.context.rank
    small = 4 * sum(_numel(parameter) for parameter in trainer.model.parameters()) <= MAX_TRIAL_BYTES
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) if small else None
    if rank != 0:
        return
    folder = training.context.run_dir / TRIAL
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (training.context.run_dir / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        for policy in policies:
            written = write_trial(training, trainer, policy, folder / policy.folder, state)
            _compare(folder / policy.folder, written, policy.kind)
            load_tokenizer(folder / policy.folder)
    except OSError as error:
        raise LaunchError(
            f"{folder}: {error.strerror or error}; before step 1 the result's files are tried, and could not be written. Correct the "
            "folder, or give --out DIR."
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _numel(parameter: torch.nn.Parameter) -> int:
    """Of the whole tensor, also where ZeRO-3 has dealt it out."""
    return parameter.ds_numel if hasattr(parameter, "ds_numel") else parameter.numel()


def _compare(folder: Path, written: Mapping[str, torch.Tensor], kind: Kind) -> None:
    """Whether the files hold what was given to them, and nothing twice."""
    found: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        found |= load_file(path)
    if not written:
        return
    if any(name not in written for name in found):
        found = _read_as_model(folder, kind)
    wrong = [
        name
        for name, value in found.items()
        if name not in written or not _same(value, written[name].to(value.dtype).cpu())
    ]
    if wrong or not found:
        raise ArtifactError(
            f"{folder}: before step 1 the weights were written and read back, and {len(wrong) or 'all'} of them differ "
            f"({', '.join(wrong[:3])}); the same were expected. Look at the disk, and at the model's class."
        )


def _read_as_model(folder: Path, kind: Kind) -> dict[str, torch.Tensor]:
    """The weights by the names that they have in a model: transformers 5 holds experts as one tensor and writes each by itself."""
    with whole_weights():
        return dict(AUTO_CLASSES[kind].from_pretrained(str(folder), dtype="auto").state_dict())


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
