"""Whether to compute in bfloat16, and what stays in fp32 all the same. The recipe decides; `auto` asks the device."""

from pathlib import Path

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

from alignment.errors import LaunchError

CPU_INFO = Path("/proc/cpuinfo")
# As Linux names them, on x86 and on ARM: with these training is twice as fast, without them many times slower.
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def resolve_bf16(setting: bool | str) -> bool:
    """The recipe's `train.bf16` on this machine.

    On a CPU, `auto` looks at its instructions. It measures nothing: a busy machine would decide otherwise than a quiet one, and a
    resumed run otherwise than the one that it goes on with.

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
    return has_bf16_instructions() if setting == "auto" else bool(setting)


def has_bf16_instructions() -> bool:
    """Whether Linux says that this CPU multiplies in bfloat16; no where it says nothing."""
    text = CPU_INFO.read_text(encoding="utf-8", errors="replace") if CPU_INFO.is_file() else ""
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Features")))
    return not set(next(lines, "").split()).isdisjoint(BF16_INSTRUCTIONS)


def check_attention(kernel: str, bf16: bool) -> None:
    """Whether `model.attn_implementation` can be used here.

    Raises:
        LaunchError: flash attention without a GPU, without bfloat16, or without its package.
    """
    if not kernel.startswith("flash_attention"):
        return
    subject = f"model.attn_implementation: {kernel}"
    if not torch.cuda.is_available():
        raise LaunchError(f"{subject}: no GPU here; flash attention needs one. Write sdpa, which runs anywhere.")
    if not bf16:
        raise LaunchError(f"{subject} computes in bfloat16 only, and train.bf16 is off. Set it, or write sdpa.")
    is_there = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}[kernel]
    if not is_there(kernels_fallback_ok=True):
        package = "flash-attn --no-build-isolation" if kernel.endswith("2") else "kernels"
        raise LaunchError(f"{subject}: its package is not installed. `pip install {package}`, or write sdpa.")


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
