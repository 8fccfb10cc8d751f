"""`alignment submit`: a recipe as a SLURM job, a pipeline as a chain of jobs; --dry_run shows their scripts."""

import argparse
from pathlib import Path

from alignment.commands.train import add_recipe_arguments, make_request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE|PIPELINE", help="a recipe, a pipeline, or the folder of one"
    )
    add_recipe_arguments(parser)
    parser.add_argument(
        "--push", metavar="ORG", help="publish as ORG/STUDY-STAGE, private, in a job after the last one"
    )
    _add_slurm_arguments(parser)
    parser.add_argument("--dry_run", action="store_true", help="show the scripts; nothing is written or submitted")


def _add_slurm_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("SLURM", "what each job asks for; the cluster decides what is left out")
    group.add_argument("--gpus", type=int, metavar="N", help="GPUs of each machine")
    group.add_argument("--cpus", type=int, metavar="N", help="CPU cores of each machine")
    group.add_argument("--mem", metavar="SIZE", help="memory of each machine, as 64G; 0 for all")
    group.add_argument("--time", metavar="D-HH:MM:SS", help="time limit of each attempt; a run goes on after it")
    group.add_argument("--partition", metavar="NAME")
    group.add_argument("--account", metavar="NAME")
    group.add_argument("--qos", metavar="NAME")
    group.add_argument("--after", metavar="JOB", help="wait until this job has succeeded")
    group.add_argument(
        "--setup", action="append", default=[], metavar="LINE", help="shell line run first: 'module load cuda'"
    )
    group.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="as --sbatch=--constraint=a100")
    group.add_argument(
        "--signal_seconds", type=int, default=300, metavar="S", help="stop this long before the limit (default: 300)"
    )
    group.add_argument(
        "--max_requeues", type=int, default=100, metavar="N", help="attempts after the first (default: 100)"
    )


def run(args: argparse.Namespace) -> int:
    """Submits the jobs and prints an id and what it is for a line.

    Raises:
        RecipeError, DataError: nothing was submitted.
        LaunchError: there is no SLURM, or it refuses.
    """
    from alignment.launch.chain import clear_the_way, make_chain
    from alignment.launch.slurm import Resources, check_resources, describe_jobs, submit_jobs
    from alignment.launch.worker import set_up_logging

    resources = Resources(
        num_machines=1 if args.num_machines is None else args.num_machines,
        **{name: getattr(args, name) for name in ("gpus", "cpus", "mem", "time", "partition", "account", "qos")},
        signal_seconds=args.signal_seconds,
        max_requeues=args.max_requeues,
        further=tuple(args.sbatch),
        setup=tuple(args.setup),
    )
    check_resources(resources)
    chain = make_chain(make_request(args), resources, push=args.push, after=args.after)
    for run_dir in chain.done:
        print(f"done: {run_dir}")
    if args.dry_run:
        for run_dir in chain.set_aside:
            print(f"would be set aside: {run_dir}")
        print(describe_jobs(chain.jobs), end="")
        return 0
    set_up_logging(0)
    clear_the_way(chain)
    for job, job_id in zip(chain.jobs, submit_jobs(chain.jobs, args.after), strict=True):
        print(f"{job_id}  {job.name}  {job.script_path}")
    return 0
