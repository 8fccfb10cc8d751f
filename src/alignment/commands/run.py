"""`alignment run`: from the first stage of a pipeline to the last; what is done and unchanged is skipped."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alignment.commands.push import push_runs
from alignment.commands.train import add_launch_arguments
from alignment.launch.request import TrainRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", type=Path, metavar="PIPELINE|FOLDER", help="a pipeline file, or the folder of one")
    parser.add_argument(
        "--push", metavar="ORG", help="publish each model as ORG/STUDY-STAGE, private, when all is done"
    )
    add_launch_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the stages, prints a summary and returns the exit code of the first that failed; 6 when only a push failed.

    Raises:
        RecipeError, DataError: nothing was started.
    """
    from alignment.launch.pipeline import run_pipeline
    from alignment.launch.results import summarise

    options = TrainRequest(
        recipe_path=args.pipeline,
        accelerate_config=args.accelerate_config,
        num_processes=args.num_processes,
        num_machines=args.num_machines,
        report_to=args.report_to,
        fresh=args.fresh,
        command=("alignment", *sys.argv[1:]),
    )
    outcome = run_pipeline(args.pipeline, options)
    print_summary(summarise(outcome.stages))
    print(f"{outcome.report.parent / 'results.json'}  {outcome.report}")
    if outcome.code == 0 and args.push is not None:
        return push_runs([stage.run_dir for stage in outcome.stages], args.push)
    return outcome.code


def print_summary(rows: Sequence[tuple[str, str, str]]) -> None:
    """A table on a terminal, otherwise lines that nothing has wrapped."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table("stage", "time", "measured", box=None, pad_edge=False)
        for row in rows:
            table.add_row(*row)
        Console().print(table)
        return
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, taken, metrics in rows:
        print(f"{name:<{widths[0]}}  {taken:>{widths[1]}}  {metrics}".rstrip())
