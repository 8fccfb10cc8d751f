"""`alignment doctor`: whether this machine, or all machines of a job, can run what is asked; 60 s at most, no model is loaded."""

import argparse
import os
import sys
from pathlib import Path

from alignment.errors import LaunchError, RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, nargs="?", metavar="RECIPE", help="also compare this recipe and its data")
    parser.add_argument(
        "--num_machines", type=int, default=1, metavar="M", help="machines that run this command together"
    )
    parser.add_argument("--machine_rank", type=int, default=0, metavar="R", help="this one among them")
    parser.add_argument("--main_process_ip", default="127.0.0.1", metavar="HOST", help="machine 0")
    parser.add_argument("--main_process_port", type=int, default=0, metavar="P", help="port that training will use")
    parser.add_argument("--accelerate_config", metavar="NAME|PATH", help="also look for what this config needs")
    parser.add_argument("--num_gpus", type=int, metavar="N", help="GPUs that each machine should have")


def run(args: argparse.Namespace) -> int:
    """Prints a line a check and returns 0, or 5 when something is wrong on any machine."""
    from alignment.launch.configs import find_config
    from alignment.launch.doctor.examine import examine
    from alignment.launch.doctor.findings import make_table
    from alignment.launch.doctor.peers import Place

    if not 0 <= args.machine_rank < args.num_machines:
        raise RecipeError(
            f"--machine_rank: {args.machine_rank} of {args.num_machines} machines; 0 to {args.num_machines - 1} was expected. Correct it."
        )
    if args.num_machines > 1 and not args.main_process_port:
        raise RecipeError(
            "--main_process_port: none, for several machines; the port of training was expected. Give it."
        )
    place = Place(args.machine_rank, args.num_machines, args.main_process_ip, args.main_process_port)
    strategy = None
    if args.accelerate_config is not None:
        strategy = find_config(args.accelerate_config, args.recipe).strategy
    findings = examine(args.recipe, place, os.environ, num_gpus=args.num_gpus, strategy=strategy)
    is_wrong = any(one.is_wrong for one in findings)
    if args.machine_rank == 0:
        print(make_table(findings, args.num_machines))
    elif is_wrong:
        wrong = [one for one in findings if one.is_wrong]
        print(make_table(wrong, args.num_machines), file=sys.stderr)
    return LaunchError.code if is_wrong else 0
