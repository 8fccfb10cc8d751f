"""The environment variables of CPU ranks: those that accelerate's own launcher would set, asked of its own code."""

import os
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

from alignment.errors import LaunchError, RecipeError
from alignment.launch.environment import extensions_folder, num_threads, path_with_scripts


def make_rank_variables(
    config: Path | None, num_processes: int, accelerate_args: Sequence[str] = ()
) -> list[dict[str, str]]:
    """All variables of each rank, this process's own among them.

    Args:
        config: launcher config; None for one process that is no rank.

    Raises:
        LaunchError: accelerate does not take the config.
        RecipeError: accelerate does not know one of `accelerate_args`.
    """
    if config is None:
        if num_processes != 1:
            raise ValueError(f"{num_processes} processes without a launcher config")
        return [dict(os.environ) | _on_cpu(1)]
    shared = _ask_accelerate(config, num_processes, accelerate_args) | _on_cpu(num_processes)
    shared |= {"WORLD_SIZE": str(num_processes), "LOCAL_WORLD_SIZE": str(num_processes), "GROUP_RANK": "0"}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


def _on_cpu(num_ranks: int) -> dict[str, str]:
    variables = {
        "CUDA_VISIBLE_DEVICES": "",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": str(num_threads(num_ranks)),
        "TORCH_EXTENSIONS_DIR": str(extensions_folder()),
        "PATH": path_with_scripts(),
    }
    if os.path.exists("/sys/class/net/lo"):
        variables["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")  # the host's name may not resolve
    return variables


def _ask_accelerate(config: Path, num_processes: int, accelerate_args: Sequence[str]) -> dict[str, str]:
    """What `accelerate launch` 1.15 gives its ranks (commands/launch.py: launch_command), without starting any."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    port = _free_port()
    # Precision is settled in each rank, from the recipe.
    options = ["--config_file", str(config), "--num_processes", str(num_processes), "--num_machines", "1"]
    options += ["--machine_rank", "0", "--main_process_port", str(port), "--mixed_precision", "no"]
    try:
        args = launch_command_parser().parse_args([*options, *accelerate_args, "alignment"])
        args, file, _ = _validate_launch_command(args)
    except SystemExit:  # it has said why
        raise RecipeError(
            f"-- {shlex.join(accelerate_args)}: accelerate launch does not take it. Correct or remove it."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise LaunchError(
            f"{config}: accelerate refuses it: {error}. Start from a file of accelerate_configs/."
        ) from error
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(file.deepspeed_config)
        _, variables = prepare_deepspeed_cmd_env(args)
    else:
        variables = prepare_multi_gpu_env(args)
    return variables | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
