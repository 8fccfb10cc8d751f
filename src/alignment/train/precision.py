"""Whether to compute in bfloat16, and what stays in fp32 all the same. The recipe decides; `auto` asks the device."""

import time

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from alignment.errors import LaunchError

PROBE_SIZE = 512
PROBE_ROUNDS = 5


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Best of a few square matrix products on the CPU."""
    matrix = torch.ones(PROBE_SIZE, PROBE_SIZE, dtype=dtype)
    best = float("inf")
    for _ in range(PROBE_ROUNDS):
        begun = time.perf_counter()
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - begun)
    return best


def resolve_bf16(setting: bool | str) -> bool:
    """The recipe's `train.bf16` on this machine.

    On a CPU, `auto` measures: with bf16 matrix instructions training is twice as fast, without them many times slower.

    Raises:
        LaunchError: bfloat16 is asked for on a GPU that has none.
    """
    if torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if setting is True and not supported:
            raise LaunchError(
                f"train.bf16: true, but {torch.cuda.get_device_name()} has no bfloat16. Write bf16: false, or auto."
            )
        return supported if setting == "auto" else bool(setting)
    if setting == "auto":
        return _matmul_seconds(torch.bfloat16) < 0.8 * _matmul_seconds(torch.float32)
    return bool(setting)


class FullPrecisionOutputs:
    """Mixin before a Trainer class: under FSDP2 losses and log-probabilities leave the model in the precision they were computed in.

    accelerate 1.15 casts the outputs of every FSDP2 module to bfloat16 and reduces gradients in it: DPO losses become multiples of
    1/512 (0.6914 for ln 2 on two CPU ranks). Here bfloat16 is for weights and activations alone, as under DDP.
    """

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if not self.accelerator.is_fsdp2:
            return
        plugin = self.accelerator.state.fsdp_plugin
        if plugin.mixed_precision_policy is not None:
            plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=plugin.mixed_precision_policy.param_dtype, reduce_dtype=torch.float32
            )
