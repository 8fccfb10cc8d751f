"""Whether a launch became what was asked for, on GPUs as on CPU ranks.

Launchers, accelerate and transformers fall back without a word: to one process, to several that never exchange a gradient, to
whole weights where shards were asked for, to another precision. Such a run trains, and its numbers are wrong. Every rank
looks, before step 1 and once more after it; nothing here mends anything.
"""

import math
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.errors import LaunchError
from alignment.launch.environment import LaunchEnvironment

_REPLICATED = ("ddp", "zero1", "zero2")
_ADVICE = "Launch it with `alignment train RECIPE --accelerate_config NAME`, or accelerate launch and a file of accelerate_configs/."


def check_launch(trainer: Trainer, environment: LaunchEnvironment) -> None:
    """Checks a trainer that has wrapped its model. Every rank must call it, when training begins.

    Raises:
        LaunchError: what was asked for and what it became.
    """
    _check_processes(trainer, environment)
    _check_strategy(trainer, environment)
    _check_precision(trainer)
    _check_sharding(trainer, environment)
    if environment.strategy in _REPLICATED:
        check_same_weights(trainer, "before step 1")
        trainer.add_callback(AfterFirstStep(trainer))


class AfterFirstStep(TrainerCallback):
    """Checks that the first optimizer step changed the weights alike on all ranks: gradients were exchanged."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._done = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not self._done:
            check_same_weights(self._trainer, f"after step {state.global_step}")
        self._done = True


# ------------------------------------------------------------------------------------------------ who trains together


def _check_processes(trainer: Trainer, environment: LaunchEnvironment) -> None:
    found, wanted = trainer.accelerator.num_processes, environment.world_size
    if found != wanted:
        raise LaunchError(
            f"rank {environment.rank}: {wanted} processes were launched, accelerate sees {found}; each would train on its own, with "
            f"its own gradients. {_ADVICE}"
        )
    if trainer.accelerator.process_index != environment.rank:
        raise LaunchError(
            f"rank {environment.rank}: accelerate takes this process for rank {trainer.accelerator.process_index}. {_ADVICE}"
        )
    if trainer.args.n_gpu > 1:
        raise LaunchError(
            f"{trainer.args.n_gpu} GPUs in one process: transformers would multiply the batch; one GPU a process was expected. "
            "Set CUDA_VISIBLE_DEVICES to one GPU, or give --accelerate_config ddp."
        )
    device = trainer.accelerator.device.type
    if (device == "cpu") != environment.cpu:
        raise LaunchError(
            f"rank {environment.rank}: trains on {device}; {'the CPU' if environment.cpu else 'a GPU'} was expected. {_ADVICE}"
        )


def _check_strategy(trainer: Trainer, environment: LaunchEnvironment) -> None:
    found, strategy = trainer.accelerator.distributed_type.value, environment.strategy
    wanted = {"single": ("NO",), "ddp": ("MULTI_CPU",) if environment.cpu else ("MULTI_GPU",), "fsdp2": ("FSDP",)}
    if found not in wanted.get(strategy, ("DEEPSPEED",)):
        raise LaunchError(
            f"{strategy} was asked for, accelerate runs {found}: gradients or shards would not be exchanged. {_ADVICE}"
        )
    wrapped = trainer.model_wrapped
    if strategy == "ddp" and not isinstance(wrapped, torch.nn.parallel.DistributedDataParallel):
        raise LaunchError(
            f"ddp: the model is a {type(wrapped).__name__}; DistributedDataParallel was expected. {_ADVICE}"
        )
    if strategy.startswith("zero"):
        stage = wrapped.zero_optimization_stage() if hasattr(wrapped, "zero_optimization_stage") else None
        if f"zero{stage}" != strategy:
            raise LaunchError(f"{strategy} was asked for, DeepSpeed runs stage {stage}. {_ADVICE}")


def _check_precision(trainer: Trainer) -> None:
    args, found = trainer.args, trainer.accelerator.mixed_precision
    wanted = "bf16" if args.bf16 else "fp16" if args.fp16 else "no"
    if found != wanted:
        raise LaunchError(
            f"the launcher's precision is {found}, the recipe's {wanted}; train.bf16 of the recipe decides it. Remove mixed_precision "
            "from the launcher's config and its command line."
        )


# ------------------------------------------------------------------------------------------------ who holds what


def _check_sharding(trainer: Trainer, environment: LaunchEnvironment) -> None:
    parts = {"fsdp2": _is_dtensor_shard, "zero3": _is_zero3_shard}
    is_shard = parts.get(environment.strategy)
    if is_shard is None:
        return
    whole = [
        name for name, parameter in trainer.model.named_parameters() if not is_shard(parameter, environment.world_size)
    ]
    if whole:
        total = sum(1 for _ in trainer.model.parameters())
        raise LaunchError(
            f"{environment.strategy}: {len(whole)} of {total} parameters are whole on rank {environment.rank} ({whole[0]}); shards "
            f"were expected. {_ADVICE}"
        )


def _is_dtensor_shard(parameter: torch.nn.Parameter, world_size: int) -> bool:
    if type(parameter).__name__ == "Params4bit":  # accelerate leaves 4-bit weights whole under FSDP2
        return True
    from torch.distributed.tensor import DTensor

    # The first dimension is dealt out in equal chunks, the last ranks' may be smaller or empty.
    rows = parameter.shape[0] if parameter.dim() else 1
    return isinstance(parameter, DTensor) and parameter.to_local().shape[:1].numel() <= math.ceil(rows / world_size)


def _is_zero3_shard(parameter: torch.nn.Parameter, world_size: int) -> bool:
    part = getattr(parameter, "ds_tensor", None)
    return (
        hasattr(parameter, "ds_id") and part is not None and part.numel() <= math.ceil(parameter.ds_numel / world_size)
    )


def check_same_weights(trainer: Trainer, moment: str) -> None:
    """Checks that all ranks hold the same parameters, by a hash of their bits. Every rank must call it.

    Raises:
        LaunchError: they do not.
    """
    own = hash_parameters(trainer.model)
    hashes = trainer.accelerator.gather(own[None]).tolist()
    different = [rank for rank, found in enumerate(hashes) if found != hashes[0]]
    if different:
        raise LaunchError(
            f"{moment} the weights of rank {different[0]} are not those of rank 0; the same were expected on all {len(hashes)} ranks. "
            "Gradients are not exchanged, or the ranks loaded different weights."
        )


def hash_parameters(model: torch.nn.Module) -> torch.Tensor:
    """A hash of the bits of all parameters, in order: int64 [2], on the model's device. It is cheap, and no proof."""
    sums = []
    for index, parameter in enumerate(model.parameters(), start=1):
        bits = parameter.detach().reshape(-1).view(_BITS[parameter.element_size()])
        # Sums of views: no second tensor of the parameter's size is made.
        pair = [bits.sum(dtype=torch.int64), bits[::2].sum(dtype=torch.int64)]
        sums.append(torch.stack(pair) * (2 * index + 1))
    return torch.stack(sums).sum(0) if sums else torch.zeros(2, dtype=torch.int64)


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
