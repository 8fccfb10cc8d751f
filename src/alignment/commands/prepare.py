"""`alignment prepare`: mixes, encodes and packs a recipe's rows on the CPU, before any GPU is asked for."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="run folder (default: runs/STUDY/RECIPE); rows go beside it"
    )


def run(args: argparse.Namespace) -> int:
    """Prepares, and prints the mixture and where it lies."""
    from alignment.recipe.loader import load_recipe
    from alignment.recipe.resolved import run_folder

    recipe = load_recipe(args.recipe, args.overrides)
    run_dir = args.out or run_folder(args.recipe)

    from alignment.data.prepare import prepare
    from alignment.data.preview import print_reports
    from alignment.train.prepare import load_recipe_tokenizer
    from alignment.train.run_folder import prepared_folder

    prepared = prepare(
        recipe,
        load_recipe_tokenizer(recipe),
        recipe_dir=args.recipe.resolve().parent,
        cache_dir=prepared_folder(run_dir),
    )
    print_reports(prepared)
    print(f"prepared: {prepared.folder}")
    return 0
