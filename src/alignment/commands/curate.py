"""`alignment curate`: raw rows to clean rows, with every removed row and its reason, a receipt and a page."""

import argparse
import sys
from pathlib import Path

from alignment.errors import RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe of stage curate")
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: runs/STUDY/RECIPE)")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )


def run(args: argparse.Namespace) -> int:
    """Curates what is left to do, and prints the counts of every step.

    Raises:
        RecipeError: a recipe of another stage.
    """
    from alignment.recipe.loader import load_recipe
    from alignment.recipe.resolved import run_folder

    recipe = load_recipe(args.recipe, args.overrides)
    if recipe.stage != "curate":
        raise RecipeError(f"{args.recipe}: stage {recipe.stage}; curate was expected. Use `alignment train` for it.")
    out = args.out or run_folder(args.recipe)

    from alignment.curate.require import require_extra

    require_extra()

    from alignment.launch.request import TrainRequest
    from alignment.launch.worker import noting_the_end
    from alignment.train.run_folder import locked, write_start
    from alignment.train.stages.curate import curate_into

    request = TrainRequest(recipe_path=args.recipe, command=("alignment", *sys.argv[1:]))
    with locked(out), noting_the_end(request, out):
        write_start(out, recipe, {})
        receipt = curate_into(recipe, args.recipe.resolve().parent, out)
    for step in receipt["steps"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in step["removed"].items())
        print(f"{step['step']:<24} {step['in']:>10,} in {step['kept']:>10,} kept   {reasons}")
    for name, value in receipt.get("metrics", {}).items():
        print(f"{name} {value:.4f}")
    print(f"page: {out / 'report.html'}")
    print(f"final: {out / 'final'} ({receipt['rows_kept']:,} of {receipt['rows_in']:,} rows)")
    return 0
