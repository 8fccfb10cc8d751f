"""`alignment plan`: memory by phase, steps, tokens, FLOPs, hours, cost and disk of a recipe or a study, before it is queued."""

import argparse
from pathlib import Path

from alignment.errors import RecipeError

DOES_NOT_FIT = 5  # as a run that finds no memory ends


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "recipes", nargs="+", type=Path, metavar="RECIPE", help="recipes, pipelines, or folders of them"
    )
    parser.add_argument(
        "--hardware", required=True, metavar="8xH100-80GB", help="CARD, NxCARD or MACHINESxNxCARD; cpu: this machine"
    )
    parser.add_argument(
        "--accelerate_config", metavar="NAME|PATH", help="ddp, zero1, zero2, zero3, fsdp2, or a file (default: ddp)"
    )
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=V", help="set a key of the recipe"
    )
    parser.add_argument("--rows", type=int, metavar="N", help="training rows, where they are not on this disk")
    parser.add_argument("--tokens_per_row", type=int, metavar="N", help="their mean length (default: max_length)")
    parser.add_argument("--mfu", type=float, metavar="P", help="part of a card's rate that is reached (default: 0.3)")
    parser.add_argument("--price", type=float, metavar="USD", help="of a card an hour (default: a rough one)")
    parser.add_argument("--json", action="store_true", help="print JSON, a list with an object a recipe")


def run(args: argparse.Namespace) -> int:
    """Prints the plans; 0 where everything fits, 5 where something does not."""
    from alignment.commands.rehearse import find_recipes
    from alignment.plan.hardware import parse_hardware
    from alignment.recipe.loader import load_recipe

    for name, value, most in (("rows", args.rows, None), ("tokens_per_row", args.tokens_per_row, None), ("mfu", args.mfu, 1), ("price", args.price, None)):  # fmt: skip
        if value is not None and (value < 0 or (value == 0 and name != "price") or (most and value > most)):
            raise RecipeError(
                f"--{name}: {value}; a number above 0{f' and at most {most}' if most else ''} was expected."
            )
    hardware = parse_hardware(args.hardware)
    found = [recipe for path in args.recipes for recipe in find_recipes(path)]
    trained = [path for path in found if load_recipe(path).stage not in ("tokenizer", "evaluate")]
    if not trained:
        raise RecipeError(f"{args.recipes[0]}: nothing that trains a model; a recipe of such a stage was expected.")

    import json

    from alignment.launch.configs import find_config
    from alignment.plan.estimate import MFU, Options, make_plan
    from alignment.plan.page import describe_plan, format_plan, format_total
    from alignment.recipe.resolved import run_folder

    plans = []
    for path in trained:
        config = args.accelerate_config or ("ddp" if hardware.num_processes > 1 else None)
        strategy = find_config(config, path).strategy if config else "single"
        options = Options(
            hardware,
            strategy if hardware.num_processes > 1 or strategy != "ddp" else "single",
            mfu=args.mfu or MFU,
            usd_per_hour=args.price,
            rows=args.rows,
            tokens_per_row=args.tokens_per_row,
        )
        plans.append(make_plan(path, tuple(args.overrides), run_folder(path), options))
        if not args.json:
            print(format_plan(plans[-1]), flush=True)
    if args.json:
        print(json.dumps([describe_plan(plan) for plan in plans], indent=1))
    elif len(plans) > 1:
        print(format_total(plans))
    return 0 if all(plan.fits for plan in plans) else DOES_NOT_FIT
