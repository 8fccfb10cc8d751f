"""`alignment submit`: a recipe as a SLURM job, a pipeline as a chain of jobs in which each waits for the one before (afterok).

A job's script is `recipes/launch.slurm` with its options filled in; it is written into the run folder, where the job's log goes too.
What happens inside the job is that script's. Nothing here asks how many GPUs a machine has.
"""

import logging
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from alignment.errors import LaunchError, RecipeError
from alignment.gallery import find_shipped
from alignment.launch.request import TrainRequest
from alignment.launch.start import LOGS

logger = logging.getLogger(__name__)
SCRIPT = "launch.slurm"  # in recipes/, and in the run folder what was made of it
_PUSH = "push"


@dataclass(frozen=True)
class Resources:
    """What is asked of SLURM for one job; None leaves it to the cluster."""

    num_machines: int = 1
    gpus: int | None = None  # of each machine
    cpus: int | None = None  # of each machine
    mem: str | None = None  # of each machine, as SLURM writes it: 64G, or 0 for all
    time: str | None = None  # D-HH:MM:SS
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    signal_seconds: int = 300  # how long before the time limit the ranks are asked to stop
    max_requeues: int = 100
    further: tuple[str, ...] = ()  # options of sbatch as they are
    setup: tuple[str, ...] = ()  # shell lines before anything else, such as `module load cuda`


@dataclass(frozen=True)
class Job:
    """One job: `command` is shell text, or the arguments of `launch.slurm`."""

    name: str
    run_dir: Path
    resources: Resources
    train: tuple[str, ...] = ()  # arguments of launch.slurm; empty for a plain command
    command: tuple[str, ...] = ()
    needs: tuple[int, ...] = field(default=())  # places in the chain of the jobs that must have succeeded

    @property
    def script_path(self) -> Path:
        """Where the script is written."""
        return self.run_dir / (SCRIPT if self.train else f"{self.name.rpartition('-')[2]}.slurm")


# ------------------------------------------------------------------------------------------------ which jobs


def make_train_job(request: TrainRequest, run_dir: Path, resources: Resources, *, uses_gpu: bool = True) -> Job:
    """The job of one stage.

    Args:
        request: `fresh` is not handed on: an old run is set aside before the job is submitted, or each requeue would do so.
        uses_gpu: whether the stage loads a model; one that does not gets one machine and no GPU.
    """
    if not uses_gpu:
        resources = replace(resources, num_machines=1, gpus=None)
    arguments = [str(request.recipe_path)]
    for override in request.overrides:
        arguments += ["--set", override]
    arguments += ["--out", str(request.out)] if request.out else []
    arguments += ["--report_to", request.report_to] if request.report_to else []
    if uses_gpu and request.accelerate_config:
        arguments += ["--accelerate_config", request.accelerate_config]
    if not uses_gpu:
        arguments += ["--num_processes", "1"]
    elif request.num_processes:
        arguments += ["--num_processes", str(request.num_processes)]
    arguments += ["--", *request.accelerate_args] if uses_gpu and request.accelerate_args else []
    return Job(_job_name(run_dir), run_dir, resources, train=tuple(arguments))


def make_command_job(
    kind: str, command: Sequence[str], run_dir: Path, resources: Resources, needs: Sequence[int]
) -> Job:
    """A job of one process without a GPU that runs `alignment COMMAND` once others are done."""
    small = replace(resources, num_machines=1, gpus=None, cpus=None, mem=None)
    return Job(f"{_job_name(run_dir)}-{kind}", run_dir, small, command=tuple(command), needs=tuple(needs))


def make_push_job(run_dir: Path, organisation: str, resources: Resources, needs: Sequence[int]) -> Job:
    """The job that publishes a run as ORG/STUDY-STAGE."""
    command = ["push", str(run_dir), f"{organisation}/{_job_name(run_dir)}"]
    return make_command_job(_PUSH, command, run_dir, resources, needs)


def _job_name(run_dir: Path) -> str:
    return f"{run_dir.resolve().parent.name}-{run_dir.name}"


# ------------------------------------------------------------------------------------------------ scripts


def make_script(job: Job) -> str:
    """The text of a job's script."""
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in _options(job)), "", *job.resources.setup]
    if not job.train:
        command = [sys.executable, "-m", "alignment", *job.command]
        return "\n".join([*lines, f"exec {shlex.join(command)}"]) + "\n"
    lines += [
        f"export ALIGNMENT_PYTHON={shlex.quote(sys.executable)}",
        f"export ALIGNMENT_SIGNAL_SECONDS={job.resources.signal_seconds}",
        f"export ALIGNMENT_MAX_REQUEUES={job.resources.max_requeues}",
        f"set -- {shlex.join(job.train)}",
    ]
    return "\n".join(lines) + "\n\n" + _body()


def _options(job: Job) -> Iterator[str]:
    wanted = job.resources
    yield f"--job-name={job.name}"
    yield f"--chdir={shlex.quote(str(Path.cwd()))}"
    # Absolute, and in a folder that is there: SLURM does not start a job whose log it cannot open.
    yield f"--output={shlex.quote(str((job.run_dir / LOGS).resolve() / 'slurm-%j.log'))}"
    yield "--open-mode=append"
    yield f"--nodes={wanted.num_machines}"
    yield "--ntasks-per-node=1"
    if job.train:
        yield f"--signal=B:TERM@{wanted.signal_seconds}"
        yield "--requeue"
    for option, value in (
        ("gpus-per-node", wanted.gpus),
        ("cpus-per-task", wanted.cpus),
        ("mem", wanted.mem),
        ("time", wanted.time),
        ("partition", wanted.partition),
        ("account", wanted.account),
        ("qos", wanted.qos),
    ):
        if value is not None:
            yield f"--{option}={value}"
    yield from wanted.further


def _body() -> str:
    """What `recipes/launch.slurm` does, without its own options."""
    folder = find_shipped("recipes")
    if folder is None or not (folder / SCRIPT).is_file():
        raise LaunchError(
            f"recipes/{SCRIPT}: it did not come with this installation; it was expected. Install it anew."
        )
    lines = (folder / SCRIPT).read_text(encoding="utf-8").splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    return "\n".join(lines[last + 1 :]).strip() + "\n"


# ------------------------------------------------------------------------------------------------ submitting


def describe_jobs(jobs: Sequence[Job]) -> str:
    """The commands and scripts of a chain, as `--dry_run` shows them."""
    parts = []
    for job in jobs:
        waits = [f"<job of {jobs[place].name}>" for place in job.needs]
        parts.append(f"# {' '.join(_sbatch(job, waits))}\n{make_script(job)}")
    return "\n".join(parts)


def submit_jobs(jobs: Sequence[Job], after: str | None = None) -> list[str]:
    """Writes the scripts and submits the jobs in order; returns their ids.

    Args:
        after: a job of somebody else that the first one waits for.

    Raises:
        LaunchError: there is no sbatch, or it refuses. What was submitted before is named.
    """
    if shutil.which("sbatch") is None:
        raise LaunchError(
            "sbatch: it is not found here; SLURM was expected. Submit from a login node, or give --dry_run to see the scripts."
        )
    ids: list[str] = []
    for job in jobs:
        (job.run_dir / LOGS).mkdir(parents=True, exist_ok=True)
        job.script_path.write_text(make_script(job), encoding="utf-8")
        waits = [ids[place] for place in job.needs] or ([after] if after else [])
        done = subprocess.run(_sbatch(job, waits), capture_output=True, text=True)
        if done.returncode != 0:
            known = f" Submitted before it: {' '.join(ids)} (scancel takes them back)." if ids else ""
            raise LaunchError(
                f"sbatch {job.script_path}: {' '.join(done.stderr.split())}; a job id was expected. Correct the options.{known}"
            )
        ids.append(done.stdout.strip().partition(";")[0])  # JOB;CLUSTER
    return ids


def _sbatch(job: Job, waits: Sequence[str]) -> list[str]:
    # A job whose parent failed never becomes able to run: it is to go, not to wait in the queue.
    waiting = [f"--dependency=afterok:{':'.join(waits)}", "--kill-on-invalid-dep=yes"] if waits else []
    return ["sbatch", "--parsable", *waiting, str(job.script_path)]


def check_resources(resources: Resources) -> None:
    """Raises RecipeError for what cannot be asked."""
    for name, value, least in (
        ("num_machines", resources.num_machines, 1),
        ("gpus", resources.gpus, 0),
        ("cpus", resources.cpus, 1),
        ("signal_seconds", resources.signal_seconds, 1),
        ("max_requeues", resources.max_requeues, 0),
    ):
        if value is not None and value < least:
            raise RecipeError(f"--{name}: {value}; at least {least} was expected. Correct it.")
