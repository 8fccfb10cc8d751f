"""From the command line to running processes: in this one, as forked CPU ranks, or through accelerate's launcher on GPUs."""

import logging
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from alignment.errors import LaunchError, RecipeError
from alignment.launch.children import Children, exit_code, passing_signals
from alignment.launch.configs import LaunchConfig, find_config
from alignment.launch.environment import has_gpu, is_rank, num_cores, settle_environment
from alignment.launch.request import TrainRequest
from alignment.launch.worker import run_worker, set_up_logging
from alignment.recipe.loader import load_recipe
from alignment.recipe.resolved import run_folder
from alignment.recipe.schema import Recipe
from alignment.report.run_files import read_json
from alignment.train.run_folder import EXIT, judge_run, locked, set_aside, write_exit

logger = logging.getLogger(__name__)
LOGS = "logs"  # in the run folder: what ranks other than 0 say
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
    if not _asks_for_several(request):
        return run_worker(request)
    recipe = load_recipe(request.recipe_path, request.overrides)
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


def launch_ranks(request: TrainRequest, recipe: Recipe, config: LaunchConfig) -> int:
    """Runs the stage in CPU ranks forked from this process."""
    from alignment.launch.ranks import preload, run_ranks

    run_dir = find_run_dir(request)
    if not _open_folder(request, recipe, run_dir):
        return 0
    # Results do not depend on the number of processes; more than there are cores would only be slower.
    num_processes = request.num_processes or min(config.num_processes or num_cores(), num_cores())
    logger.info("%s: %d CPU ranks of %s", run_dir, num_processes, config.strategy)
    preload([recipe.stage])
    before = _stamp(run_dir)
    code = run_ranks(
        lambda: run_worker(replace(request, fresh=False)),
        config=config.path,
        num_processes=num_processes,
        log_dir=run_dir / LOGS,
        accelerate_args=request.accelerate_args,
    )
    if code not in (0, RecipeError.code) and not _is_written(run_dir, before):
        write_exit(run_dir, code, f"a rank failed: see {run_dir / LOGS}", resume_command(request))
    return code


def find_run_dir(request: TrainRequest) -> Path:
    """The run folder of a request."""
    return Path(request.out) if request.out else run_folder(request.recipe_path)


def resume_command(request: TrainRequest) -> str:
    """What continues the run, for exit.json."""
    return shlex.join(request.command) or f"alignment train {request.recipe_path}"


def _open_folder(request: TrainRequest, recipe: Recipe, run_dir: Path) -> bool:
    """Sets an old run aside where a fresh one is asked for; False when there is nothing to do.

    Before any rank starts: their logs are in the folder, and a refusal keeps its exit code.
    """
    if request.fresh:
        with locked(run_dir):
            aside = set_aside(run_dir)
        if aside:
            logger.info("%s was set aside as %s", run_dir, aside)
    if judge_run(recipe, run_dir) == "done":
        logger.info("%s: finished already", run_dir)
        return False
    return True


def _stamp(run_dir: Path) -> int | None:
    """Tells an exit.json that is new from the one that was there."""
    path = run_dir / EXIT
    return path.stat().st_mtime_ns if path.is_file() else None


def _is_written(run_dir: Path, before: int | None) -> bool:
    """Whether rank 0 wrote exit.json in this launch; it removes an old one when it begins."""
    return _stamp(run_dir) not in (None, before)


# ------------------------------------------------------------------------------------------------ GPUs


def launch_processes(request: TrainRequest, recipe: Recipe, config: LaunchConfig | None) -> int:
    """Runs the stage in fresh processes, through accelerate's launcher where a config is given.

    accelerate turns every failure into 1; the exit code is the one that rank 0 wrote to exit.json.
    """
    run_dir, several_machines = find_run_dir(request), (request.num_machines or 1) > 1
    # Over several machines rank 0 decides: each of them runs this function on one folder.
    if not several_machines:
        if not _open_folder(request, recipe, run_dir):
            return 0
        request = replace(request, fresh=False)
    if config is not None and has_gpu():
        _check_gpus(request, config)
    before = _stamp(run_dir)
    status = run_child(make_command(request, recipe, config))
    if status != 0 and _is_written(run_dir, before):
        return read_json(run_dir / EXIT).get("code", LaunchError.code)
    if status == 1 and config is not None and not several_machines:
        status = LaunchError.code
        write_exit(run_dir, status, "a rank was lost before it could say why: see the output", resume_command(request))
    return status


def run_child(command: list[str]) -> int:
    """Runs a command to its end, passing signals on, and returns its exit code."""
    children = Children()
    with passing_signals(children):
        process = subprocess.Popen(command, process_group=0)
        children.add(process.pid)
        children.wait()
    process.returncode = children.statuses[0]
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


def _check_gpus(request: TrainRequest, config: LaunchConfig) -> None:
    """More processes than GPUs would fail one by one, each with a traceback of CUDA's."""
    import torch

    machines, visible = request.num_machines or 1, torch.cuda.device_count()
    asked = request.num_processes or config.num_processes or visible * machines
    if -(-asked // machines) > visible:
        source = "--num_processes" if request.num_processes else str(config.path)
        raise LaunchError(
            f"{source}: {asked} processes on {machines} machine(s), and {visible} GPUs are visible here; one GPU a process was "
            f"expected. Give --num_processes {visible * machines}."
        )
