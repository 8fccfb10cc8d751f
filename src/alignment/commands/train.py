"""`alignment train`: one stage, from its recipe to a verified result. The same command resumes, and is a no-op when it is done."""

import argparse
import sys
from pathlib import Path

from alignment.launch.request import TrainRequest

TRACKERS = ("trackio", "tensorboard", "wandb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file")
    add_recipe_arguments(parser)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """What `train` and `submit` share."""
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder (default: runs/STUDY/RECIPE)")
    add_launch_arguments(parser)
    parser.add_argument(
        "accelerate_args", nargs="*", metavar="-- ARGS", help="further arguments of accelerate launch, after --"
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """What `train`, `submit` and `run` share."""
    parser.add_argument("--accelerate_config", metavar="NAME|PATH", help="ddp, zero1, zero2, zero3, fsdp2, or a file")
    parser.add_argument(
        "--num_processes",
        type=int,
        metavar="N",
        help="processes over all machines (default: as the config says; without one 1, and 2 for `run` on CPUs)",
    )
    parser.add_argument("--num_machines", type=int, metavar="M", help="machines")
    parser.add_argument("--report_to", choices=TRACKERS, help="live tracking (default: none)")
    parser.add_argument("--fresh", action="store_true", help="set an existing run aside and start anew")


def run(args: argparse.Namespace) -> int:
    """Launches the stage and returns its exit code."""
    from alignment.launch.start import launch

    return launch(make_request(args))


def make_request(args: argparse.Namespace) -> TrainRequest:
    """What `train` and `submit` ask for."""
    return TrainRequest(
        recipe_path=args.recipe,
        overrides=tuple(args.overrides),
        out=args.out,
        accelerate_config=args.accelerate_config,
        num_processes=args.num_processes,
        num_machines=args.num_machines,
        report_to=args.report_to,
        fresh=args.fresh,
        command=("alignment", *sys.argv[1:]),
        accelerate_args=tuple(args.accelerate_args),
    )
