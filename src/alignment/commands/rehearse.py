"""`alignment rehearse`: a recipe, shrunken, for real on two CPU ranks under its launcher config, before it costs money."""

import argparse
from pathlib import Path

from alignment.errors import RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="recipe files")
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
    if args.out is not None and len(args.recipes) > 1:
        raise RecipeError(f"--out: one folder, and {len(args.recipes)} recipes; one recipe was expected. Leave it out.")
    from alignment.launch.rehearse.page import format_summary, format_table, write_files
    from alignment.launch.rehearse.rehearsal import rehearse

    results = []
    for recipe in args.recipes:
        result = rehearse(
            recipe, accelerate_config=args.accelerate_config, out=args.out, overrides=tuple(args.overrides)
        )
        page = write_files(result)
        print(f"{format_table(result)}\n  report: {page}", flush=True)
        results.append(result)
    if len(results) > 1:
        print(f"\n{format_summary(results)}", flush=True)
    return next((result.code for result in results if result.code), 0)
