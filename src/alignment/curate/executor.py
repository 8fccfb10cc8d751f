"""datatrove's executors, run quietly: processes of this machine, SLURM array jobs, or tasks of a Ray cluster.

The files do not depend on which. A refusal of a task, wherever it ran, ends the run here with the same message. Nothing is
submitted that this process does not wait for: rows are compared with each other between two segments.
"""

import json
import logging
import os
import shlex
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor
from loguru import logger as their_logger

from alignment.errors import AlignmentError, DataError, LaunchError
from alignment.recipe.curate_spec import ExecutorSpec

logger = logging.getLogger(__name__)
_REFUSED = "refused"  # in the logs: what a task refused to do
_JOB = "slurm_job"  # in the logs: the job that does what is left
_POLL_SECONDS = 2.0
_SETTLE_SECONDS = 10.0  # until a shared file system shows what the last task wrote
_KINDS = {one.code: one for one in (DataError, LaunchError)}


def run_tasks(pipeline: list[Any], tasks: int, workers: int, logs: Path, spec: ExecutorSpec) -> None:
    """Runs a pipeline's tasks that have no completion marker in `logs`, on the executor of the recipe.

    Raises:
        AlignmentError: a task refused, with its message.
        LaunchError: a task was lost, or the executor could not be started.
    """
    their_logger.disable("datatrove")
    logs = logs.resolve()
    for old in logs.glob(f"{_REFUSED}-*.json"):
        old.unlink()
    _RUN[spec.kind](pipeline, tasks, max(workers, 1), logs, spec)
    if spec.kind != "local":
        _check_done(logs, tasks)


@contextmanager
def started(spec: ExecutorSpec) -> Iterator[None]:
    """Inside, the executor of the recipe can be used: a Ray cluster is joined, or one of this machine is started.

    Raises:
        LaunchError: Ray is not installed, or there is no cluster at the address.
    """
    if spec.kind != "ray":
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise LaunchError(
            "curate.executor.kind: ray, and Ray is not installed; it was expected. Run: pip install 'ray>=2.50,<3'."
        ) from None
    own = {"include_dashboard": False, "num_cpus": len(os.sched_getaffinity(0))} if spec.address is None else {}
    try:
        ray.init(address=spec.address or "local", log_to_driver=False, logging_level="error", **own)
    except ConnectionError as error:
        raise LaunchError(
            f"curate.executor.address: {spec.address}: {str(error).splitlines()[0]}; a running Ray cluster was expected. Start it with "
            "`ray start`, or leave the address out to use this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


# ------------------------------------------------------------------------------------------------ tasks


class _Telling:
    """Says nothing on stderr, and leaves what a task refuses where the one who started it looks."""

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1):
        their_logger.disable("datatrove")
        try:
            return super()._run_for_rank(rank, local_rank, node_rank)
        except AlignmentError as error:
            with self.logging_dir.open(f"{_REFUSED}-{rank:05d}.json", "w") as file:
                json.dump({"code": error.code, "message": str(error)}, file)
            raise


class QuietExecutor(_Telling, LocalPipelineExecutor):
    """Processes of this machine, without datatrove's polling for dependencies."""


class RayExecutor(_Telling, RayPipelineExecutor):
    """Tasks of the Ray cluster that this process is in."""


class SlurmExecutor(_Telling, SlurmPipelineExecutor):
    """An array job; counts are ours, so no job merges datatrove's statistics."""

    def launch_merge_stats(self) -> None:
        return

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """As datatrove 0.10 asks, without what the recipe leaves to the cluster."""
        return {name: value for name, value in super().get_sbatch_args(max_array).items() if value is not None}


def _run_local(pipeline: list[Any], tasks: int, workers: int, logs: Path, spec: ExecutorSpec) -> None:
    # The pool's processes inherit it: each task is one thread of work.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Forked: everything is imported, and nothing that has threads has run yet.
    QuietExecutor(pipeline, tasks=tasks, workers=workers, logging_dir=str(logs), start_method="fork").run()


def _run_ray(pipeline: list[Any], tasks: int, workers: int, logs: Path, spec: ExecutorSpec) -> None:
    RayExecutor(
        pipeline, tasks=tasks, workers=workers, logging_dir=str(logs), mem_per_cpu_gb=spec.mem_per_cpu_gb or 1
    ).run()


def _run_slurm(pipeline: list[Any], tasks: int, workers: int, logs: Path, spec: ExecutorSpec) -> None:
    if shutil.which("sbatch") is None:
        raise LaunchError(
            "curate.executor.kind: slurm, and sbatch is not found here; it was expected. Run it on a login node, or set kind: local."
        )
    scripts = shlex.quote(sysconfig.get_path("scripts"))
    executor = SlurmExecutor(
        pipeline,
        tasks=tasks,
        workers=workers,
        time=spec.time,
        partition=spec.partition,
        qos=spec.qos,
        mem_per_cpu_gb=spec.mem_per_cpu_gb or 2,
        job_name="alignment-curate",
        env_command=f'export PATH={scripts}:"$PATH" OMP_NUM_THREADS=1',
        sbatch_args={"account": spec.account},
        logging_dir=str(logs),
    )
    noted = logs / _JOB
    job = noted.read_text(encoding="utf-8") if noted.is_file() else ""
    if not job or not _is_queued(job):  # otherwise an earlier command that was killed left it at work
        try:
            executor.run()
        except subprocess.CalledProcessError as error:
            raise LaunchError(
                f"sbatch: {error}; a job id was expected. Correct curate.executor: {logs}/launch_script.slurm is what was asked."
            ) from error
        job = str(executor.job_id)
        if job == "-1":  # nothing was left to do
            return
        noted.write_text(job, encoding="utf-8")
    _wait_for_job(job)
    noted.unlink()


def _wait_for_job(job: str) -> None:
    """Returns when a job has left the queue; takes it back when this process is interrupted."""
    logger.info("waiting for SLURM job %s", job)
    try:
        while _is_queued(job):
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        subprocess.run(["scancel", job], check=False)
        raise


def _is_queued(job: str) -> bool:
    done = subprocess.run(["squeue", "--noheader", "--jobs", job, "--format", "%T"], capture_output=True, text=True)
    if done.returncode != 0:
        return "Invalid job id" not in done.stderr  # another error says nothing about the job
    return bool(done.stdout.strip())


_RUN: dict[str, Callable[..., None]] = {"local": _run_local, "slurm": _run_slurm, "ray": _run_ray}


def _check_done(logs: Path, tasks: int) -> None:
    """Raises what a task refused, or names the tasks that were lost."""
    until = time.monotonic() + _SETTLE_SECONDS
    while lost := [rank for rank in range(tasks) if not (logs / f"completions/{rank:05d}").is_file()]:
        for path in sorted(logs.glob(f"{_REFUSED}-*.json")):
            refused = json.loads(path.read_text(encoding="utf-8"))
            raise _KINDS.get(refused["code"], AlignmentError)(refused["message"])
        if time.monotonic() > until:
            raise LaunchError(
                f"{logs}: {len(lost)} of {tasks} tasks did not end well, first task {lost[0]}; all were expected to. Look at the logs "
                "there; the same command does what is left."
            )
        time.sleep(0.1)
