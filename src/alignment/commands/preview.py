"""`alignment preview`: what a recipe trains on, token by token, in the terminal and as a page."""

import argparse
from pathlib import Path

from alignment.errors import RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a recipe file")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )
    parser.add_argument("--rows", type=int, default=4, metavar="N", help="rows to show (default: 4)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write the page there")


def run(args: argparse.Namespace) -> int:
    """Prepares the rows, prints them and writes the page where it is asked for.

    Raises:
        RecipeError: a number of rows below 0, or a page that cannot be written where it was asked for.
    """
    from alignment.recipe.loader import load_recipe
    from alignment.recipe.resolved import run_folder

    if args.rows < 0:
        raise RecipeError(f"--rows: {args.rows}; at least 0 was expected.")
    if args.html is not None and args.html.is_dir():
        raise RecipeError(f"--html: {args.html}: a folder; a file was expected. Name one: {args.html / 'preview.html'}")
    recipe = load_recipe(args.recipe, args.overrides)

    from alignment.data.preview import make_preview, print_preview
    from alignment.report.preview_page import write_preview_page
    from alignment.train.prepare import load_recipe_tokenizer
    from alignment.train.run_folder import prepared_folder

    preview = make_preview(
        recipe,
        load_recipe_tokenizer(recipe),
        recipe_dir=args.recipe.resolve().parent,
        cache_dir=prepared_folder(run_folder(args.recipe)),
        rows=args.rows,
    )
    print_preview(preview)
    if args.html:
        try:
            page = write_preview_page(preview, args.html)
        except OSError as error:
            raise RecipeError(
                f"--html: {args.html}: {error.strerror}; a file that can be written was expected. Name another."
            ) from error
        print(f"page: {page}")
    return 0
