"""`alignment reproduce`: what made a run, or a published model, as a study here; --run makes it again and compares."""

import argparse
import sys
from pathlib import Path

from alignment.errors import RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="RUN|HUB_ID", help="a finished run's folder, or a model that push published")
    parser.add_argument("--revision", metavar="B", help="branch, tag or commit of a model of the Hub")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the study is written (default: reproduced-NAME)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="what local data paths are relative to (default: the recipe's folder)"
    )
    parser.add_argument("--run", action="store_true", help="run it, and compare with the receipt")


def run(args: argparse.Namespace) -> int:
    """Writes the study and says what differs here; with --run also what came out. Returns the exit code of the pipeline."""
    from alignment.hub.reproduce import compare_receipts, find_data_root, find_obstacles, read_origin, write_study

    if args.data is not None and not args.data.is_dir():
        raise RecipeError(
            f"--data: {args.data} is no folder; the one that the recipes' data paths are relative to was expected. Correct it."
        )
    origin = read_origin(args.target, args.revision)
    folder = args.out or Path(f"reproduced-{Path(args.target).name}")
    paths = write_study(origin, folder, args.data or find_data_root(origin))
    print(f"wrote {folder}: {', '.join(path.name for path in paths)}")
    for obstacle in find_obstacles(origin, paths):
        print(obstacle)
    if not args.run:
        print(f"next: alignment run {folder}")
        return 0
    from alignment.launch.pipeline import run_pipeline
    from alignment.launch.request import TrainRequest
    from alignment.recipe.resolved import run_folder

    outcome = run_pipeline(folder, TrainRequest(recipe_path=folder, command=("alignment", *sys.argv[1:])))
    if outcome.code == 0:
        print("\n".join(compare_receipts(origin, run_folder(paths[-1]))))
    return outcome.code
