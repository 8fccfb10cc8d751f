"""From the command line to running processes: in this one, as forked CPU ranks, or through accelerate's launcher on GPUs."""

import logging
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from alignment.errors import LaunchError, RecipeError
from alignment.launch.children import Children, exit_code, passing_signals
from alignment.launch.configs import LaunchConfig, find_config
from alignment.launch.environment import SUPERVISED, has_gpu, is_rank, is_supervised, num_cores, settle_environment
from alignment.launch.request import TrainRequest
from alignment.launch.restarts import DEFECT, max_restarts, supervise
from alignment.launch.worker import run_worker, set_up_logging
from alignment.recipe.loader import load_recipe
from alignment.recipe.schema import Recipe
from alignment.train.heartbeat import LOGS, Watch
from alignment.train.run_folder import clear, judge_run

logger = logging.getLogger(__name__)
SEVERAL = "ddp"  # what several processes mean when no config is named


def launch(request: TrainRequest) -> int:
    """Runs a stage in as many processes as are asked for and returns its exit code.

    Raises:
        AlignmentError: nothing could be started.
    """
    if is_rank():
        from alignment.launch.ranks import end_process

        _check_own_launch(request)
        end_process(run_worker(request))
    several, recipe = _asks_for_several(request), load_recipe(request.recipe_path, request.overrides)
    if not several:
        if is_supervised() or not max_restarts(recipe):
            return run_worker(request)
        set_up_logging(0)
        return launch_processes(request, recipe, None) if has_gpu() else launch_ranks(request, recipe, None)
    config = find_config(request.accelerate_config or SEVERAL, request.recipe_path)
    set_up_logging(0)
    # CPU ranks are forked from one process; over several machines accelerate's launcher starts them, on CPUs too.
    several_machines = (request.num_machines or 1) > 1
    start = launch_processes if has_gpu() or several_machines else launch_ranks
    return start(request, recipe, config)


def _asks_for_several(request: TrainRequest) -> bool:
    several = (request.num_processes or 1) > 1 or (request.num_machines or 1) > 1
    if not several and request.accelerate_config is None and request.accelerate_args:
        raise RecipeError(
            f"-- {shlex.join(request.accelerate_args)}: arguments for accelerate launch, and one process needs none; "
            "--accelerate_config was expected with them. Give it, or leave them out."
        )
    return several or request.accelerate_config is not None


def _check_own_launch(request: TrainRequest) -> None:
    """Under an outer launcher the options of our own may say the same again, and nothing else."""
    environment = settle_environment()
    if request.accelerate_config is not None:
        named = find_config(request.accelerate_config, request.recipe_path).strategy
        if named != environment.strategy:
            raise LaunchError(
                f"--accelerate_config: {named}, and this process was launched as a rank of {environment.strategy}; the same was "
                "expected. Leave it out under accelerate launch."
            )
    if request.num_processes not in (None, environment.world_size):
        raise LaunchError(
            f"--num_processes: {request.num_processes}, and {environment.world_size} processes were launched; the same was expected. "
            "Leave it out under accelerate launch."
        )


# ------------------------------------------------------------------------------------------------ CPU ranks


def launch_ranks(request: TrainRequest, recipe: Recipe, config: LaunchConfig | None) -> int:
    """Runs the stage in CPU ranks forked from this process; in one process without a group where there is no config."""
    from alignment.launch.ranks import preload, run_ranks

    run_dir = request.run_dir
    if not _open_folder(request, recipe, run_dir):
        return 0
    # Results do not depend on the number of processes; more than there are cores would only be slower.
    num_processes = 1
    if config is not None:
        num_processes = request.num_processes or min(config.num_processes or num_cores(), num_cores())
        logger.info("%s: %d CPU ranks of %s", run_dir, num_processes, config.strategy)
    preload([recipe.stage])
    return supervise(
        lambda watch: run_ranks(
            lambda: run_worker(replace(request, fresh=False)),
            config=config.path if config is not None else None,
            num_processes=num_processes,
            log_dir=run_dir / LOGS,
            accelerate_args=request.accelerate_args,
            watch=watch,
        ),
        recipe=recipe,
        run_dir=run_dir,
        command=request.resume_command,
        lost_codes=(LaunchError.code,),
    )


def _open_folder(request: TrainRequest, recipe: Recipe, run_dir: Path) -> bool:
    """Sets an old run aside where a fresh one is asked for; False when there is nothing to do.

    Before any rank starts: their logs are in the folder, and a refusal keeps its exit code.
    """
    if request.fresh:
        clear(run_dir)
    if judge_run(recipe, run_dir) == "done":
        logger.info("%s: finished already", run_dir)
        return False
    return True


# ------------------------------------------------------------------------------------------------ GPUs


def launch_processes(request: TrainRequest, recipe: Recipe, config: LaunchConfig | None) -> int:
    """Runs the stage in fresh processes, through accelerate's launcher where a config is given.

    accelerate turns every failure into 1; the exit code is the one that rank 0 wrote to exit.json.
    """
    run_dir, several_machines = request.run_dir, (request.num_machines or 1) > 1
    # Over several machines rank 0 decides: each of them runs this function on one folder.
    if not several_machines:
        if not _open_folder(request, recipe, run_dir):
            return 0
        request = replace(request, fresh=False)
    if config is not None and has_gpu():
        asked = _check_gpus(request, config)
        if asked == 1 and config.strategy == SEVERAL:
            config = None  # accelerate 1.15 refuses MULTI_GPU of one process, which needs no launcher
    command = make_command(request, recipe, config)
    return supervise(
        lambda watch: run_child(command, watch),
        recipe=recipe,
        run_dir=run_dir,
        command=request.resume_command,
        lost_codes=() if several_machines else (DEFECT, LaunchError.code),
    )


def run_child(command: list[str], watch: Watch) -> int:
    """Runs a command to its end, passing signals on, and returns its exit code."""
    children = Children()
    with passing_signals(children):
        process = subprocess.Popen(command, process_group=0, env=os.environ | {SUPERVISED: "1"})
        children.add(process.pid)
        children.wait(watch)
    process.returncode = children.statuses[0]
    if children.hang is not None:
        logger.error("%s", children.hang)
    return exit_code(process.returncode, children.signalled)


def make_command(request: TrainRequest, recipe: Recipe, config: LaunchConfig | None) -> list[str]:
    """The command of fresh processes for a request."""
    own = ["-m", "alignment", "train", str(request.recipe_path)]
    for override in request.overrides:
        own += ["--set", override]
    own += ["--out", str(request.out)] if request.out else []
    own += ["--report_to", request.report_to] if request.report_to else []
    own += ["--fresh"] if request.fresh else []
    if config is None:
        return [sys.executable, *own]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config.path)]
    launcher += ["--num_processes", str(request.num_processes)] if request.num_processes else []
    launcher += ["--num_machines", str(request.num_machines)] if request.num_machines else []
    # Said again from the recipe, so that a config that states another precision does not count.
    launcher += ["--mixed_precision", _precision(recipe)]
    return [*launcher, *request.accelerate_args, *own]


def _precision(recipe: Recipe) -> str:
    train = getattr(recipe, "train", None)
    if train is None:
        return "no"
    from alignment.train.precision import resolve_bf16

    return "bf16" if resolve_bf16(train.bf16) else "no"


def _check_gpus(request: TrainRequest, config: LaunchConfig) -> int:
    """Processes that are asked for; more than GPUs would fail one by one, each with a traceback of CUDA's."""
    import torch

    machines, visible = request.num_machines or 1, torch.cuda.device_count()
    asked = request.num_processes or config.num_processes or visible * machines
    if -(-asked // machines) > visible:
        source = "--num_processes" if request.num_processes else str(config.path)
        raise LaunchError(
            f"{source}: {asked} processes on {machines} machine(s), and {visible} GPUs are visible here; one GPU a process was "
            f"expected. Give --num_processes {visible * machines}."
        )
    return asked
