"""What the launcher decided for this process, read from the variables that accelerate or our own ranks set.

The one place of `launch/` where environment variables are read. `settle_environment` comes before any `TrainingArguments`: it
also makes launcher configs that were written for GPUs mean the same on a machine without one (`cpu_shim.py`), where they
would otherwise become something else without a word. Whether they did is `check.py`'s to see.
"""

import hashlib
import importlib.metadata
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from alignment.errors import LaunchError

SUPERVISED = "ALIGNMENT_SUPERVISED"  # set by start.py and ranks.py for what they start
# Where one of these is absent there is no GPU that torch could use; importing torch to ask takes a second.
_GPU_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/nvmap", "/dev/dxg", "/dev/kfd")


@dataclass(frozen=True)
class LaunchEnvironment:
    """This process among the processes of its launch."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    cpu: bool = True  # no GPU is used
    strategy: str = "single"  # single, ddp, zero1, zero2, zero3 or fsdp2
    supervised: bool = False  # by a launcher of ours, which watches the ranks' signs of life
    num_machines: int = 1


def settle_environment() -> LaunchEnvironment:
    """Reads what was asked for, and prepares this process to do it on a CPU where there is no GPU.

    Raises:
        LaunchError: the launcher asks for several processes and set up one, or for a strategy that is none of ours.
    """
    if not is_rank():
        _refuse_lost_launch()
        _use_one_gpu()
        return LaunchEnvironment(cpu=not has_gpu(), supervised=is_supervised())
    strategy, cpu = _read_strategy(), not has_gpu()
    if cpu:
        from alignment.launch.cpu_shim import use_cpu_ranks

        use_cpu_ranks(strategy)
    return LaunchEnvironment(
        rank=_read_int("RANK", 0),
        local_rank=_read_int("LOCAL_RANK", 0),
        world_size=_read_int("WORLD_SIZE", 1),
        num_machines=_read_int("GROUP_WORLD_SIZE", 1),  # torch's agents set it
        cpu=cpu,
        strategy=strategy,
        supervised=is_supervised(),
    )


def is_supervised() -> bool:
    """Whether a launcher of ours started this process and watches it."""
    return _is_on(SUPERVISED)


def is_rank() -> bool:
    """Whether a launcher started this process as one of its ranks."""
    return _read_int("LOCAL_RANK", -1) >= 0


def has_gpu() -> bool:
    """Whether torch sees a GPU; torch is imported only where there may be one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    if sys.platform == "linux" and "torch" not in sys.modules and not _has_gpu_device():
        return False
    import torch

    return torch.cuda.is_available()


def _has_gpu_device() -> bool:
    return any(Path(name).exists() for name in _GPU_DEVICES)


def num_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def num_threads(num_ranks: int) -> int:
    """Threads of each of several ranks on this machine: its share of the cores, or OMP_NUM_THREADS where that is less."""
    share = max(1, num_cores() // num_ranks)
    return min(share, _read_int("OMP_NUM_THREADS", share) or share)


def cache_folder() -> Path:
    """A folder of this user that lasts, for what is expensive to build."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "alignment"


def extensions_folder() -> Path:
    """Where torch builds C++ extensions, DeepSpeed's among them.

    Another torch, Python or environment has another: builds name the folders of their headers, so that two environments would
    build anew by turns.
    """
    if named := os.environ.get("TORCH_EXTENSIONS_DIR"):
        return Path(named)
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    torch = importlib.metadata.version("torch")
    return cache_folder() / f"extensions-{sys.implementation.cache_tag}-torch-{torch}-{environment}"


def path_with_scripts() -> str:
    """PATH with the programs of this Python environment, which need not be activated; `ninja` is one of them."""
    scripts, path = sysconfig.get_path("scripts"), os.environ.get("PATH", "")
    return path if scripts in path.split(os.pathsep) else os.pathsep.join(filter(None, [scripts, path]))


# ------------------------------------------------------------------------------------------------ what was asked


def _read_strategy() -> str:
    """The strategy in the variables that accelerate 1.15 sets (utils/launch.py)."""
    if _is_on("ACCELERATE_USE_MEGATRON_LM"):
        raise LaunchError("ACCELERATE_USE_MEGATRON_LM: Megatron-LM; ddp, zero1, zero2, zero3 or fsdp2 was expected.")
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        return _read_zero_stage()
    if _is_on("ACCELERATE_USE_FSDP"):
        version = _read_int("FSDP_VERSION", 1)
        if version != 2:
            raise LaunchError(
                f"FSDP_VERSION: {version}; 2 was expected. Write fsdp_version: 2, as accelerate_configs/fsdp2.yaml does."
            )
        return "fsdp2"
    return "ddp"


def _read_zero_stage() -> str:
    if os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE"):
        raise LaunchError(
            "deepspeed_config_file: a DeepSpeed file; the keys of deepspeed_config were expected, for batch, precision and "
            "optimizer are the recipe's. Write them as accelerate_configs/zero3.yaml does."
        )
    stage = _read_int("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2)  # accelerate's own default
    if stage not in (1, 2, 3):
        raise LaunchError(f"zero_stage: {stage}; 1, 2 or 3 was expected. Use ddp to deal nothing out.")
    if stage == 3 and not _is_on("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"):
        raise LaunchError(
            "zero3_save_16bit_model: false; true was expected, or no weights could be saved after training. Write it into "
            "deepspeed_config."
        )
    return f"zero{stage}"


def _refuse_lost_launch() -> None:
    """Several processes were asked for and this one does not know of the others."""
    if _read_int("WORLD_SIZE", 1) > 1:
        raise LaunchError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and LOCAL_RANK is not set; a launcher sets both. Use --accelerate_config, "
            "accelerate launch or torchrun, or unset WORLD_SIZE."
        )
    # accelerate 1.15 sets MASTER_ADDR for more than one process, and with MULTI_CPU, NO or --cpu it starts only one.
    if "ACCELERATE_MIXED_PRECISION" in os.environ and "MASTER_ADDR" in os.environ:
        raise LaunchError(
            "accelerate launch was asked for several processes and started one (distributed_type MULTI_CPU or NO, or --cpu); as many "
            "as asked were expected. Use a file of accelerate_configs/: they hold for CPUs too."
        )


def _use_one_gpu() -> None:
    """One process uses one GPU: with more in sight transformers would wrap the model in DataParallel and multiply the batch."""
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        return
    if _has_gpu_device():
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def is_offline() -> bool:
    """Whether the Hub is not to be asked, as `huggingface_hub`, transformers and `datasets` each say it."""
    return any(_is_on(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"))


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def _read_int(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise LaunchError(
            f"{name}: {text!r}; a whole number was expected. Unset it, or correct the launcher."
        ) from None
