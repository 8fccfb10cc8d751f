"""`alignment rehearse`: a recipe, shrunken, for real on two CPU ranks under its launcher config, before it costs money."""

import argparse
from pathlib import Path

from alignment.errors import RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipes", nargs="+", type=Path, metavar="RECIPE", help="recipes, pipelines, or folders of them"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )
    parser.add_argument(
        "--accelerate_config", metavar="NAME|PATH", help="ddp, zero1, zero2, zero3, fsdp2, or a file (default: ddp)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder (default: rehearsals/STUDY/RECIPE); for one recipe"
    )


def run(args: argparse.Namespace) -> int:
    """Rehearses the recipes one after the other; returns the first exit code that is not 0."""
    recipes = [recipe for path in args.recipes for recipe in find_recipes(path)]
    if args.out is not None and len(recipes) > 1:
        raise RecipeError(f"--out: one folder, and {len(recipes)} recipes; one recipe was expected. Leave it out.")
    from alignment.launch.rehearse.page import format_summary, format_table, write_files
    from alignment.launch.rehearse.rehearsal import rehearse

    results = []
    for recipe in recipes:
        result = rehearse(
            recipe, accelerate_config=args.accelerate_config, out=args.out, overrides=tuple(args.overrides)
        )
        page = write_files(result)
        print(f"{format_table(result)}\n  report: {page}", flush=True)
        results.append(result)
    if len(results) > 1:
        print(f"\n{format_summary(results)}", flush=True)
    return next((result.code for result in results if result.code), 0)


def find_recipes(path: Path) -> list[Path]:
    """The file itself; of a pipeline, or of a folder, all recipes that have something to rehearse: a curation has not."""
    from alignment.recipe.loader import load_recipe
    from alignment.recipe.pipeline import is_pipeline, load_pipeline

    if path.is_dir():
        files = [file for file in sorted(path.glob("*.yaml")) if not is_pipeline(file)]
    elif path.is_file() and is_pipeline(path):
        files = load_pipeline(path).recipes
    else:
        return [path]
    found = [file for file in files if load_recipe(file).stage != "curate"]
    if not found:
        raise RecipeError(
            f"{path}: a folder without recipes to rehearse; a study or a recipe was expected. Correct the path."
        )
    return found
