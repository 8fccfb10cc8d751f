"""`alignment import`: a recipe of alignment-handbook, TRL, LLaMA-Factory or axolotl as one of ours.

Every key is accounted for: carried over, or named in a comment. Exit code 2 when training would differ, so that nobody takes the
new recipe for the old one unread; it is written all the same.
"""

import argparse
import sys
from pathlib import Path

from alignment.errors import RecipeError

STAGES = ("pretrain", "sft", "reward", "dpo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a recipe of another project")
    parser.add_argument(
        "--out", type=Path, metavar="RECIPE", help="where to write it, for example recipes/my-study/sft.yaml"
    )
    parser.add_argument("--stage", choices=STAGES, help="which stage it is, where the file does not say")
    parser.add_argument("--num_processes", type=int, metavar="N", help="processes that it was trained with there")
    parser.add_argument("--rows", type=int, metavar="N", help="training rows, to turn warmup_ratio into steps")
    parser.add_argument("--dataset_info", type=Path, metavar="FILE", help="LLaMA-Factory's table of data sets")


def run(args: argparse.Namespace) -> int:
    """Writes the recipe, or prints it without --out. Returns 2 when training would differ.

    Raises:
        RecipeError: the file cannot be converted, or something would be overwritten.
    """
    from alignment.convert.convert import convert_file
    from alignment.convert.options import Options

    for option, value in (("--num_processes", args.num_processes), ("--rows", args.rows)):
        if value is not None and value < 1:
            raise RecipeError(f"{option}: {value}; at least 1 was expected.")
    name = args.out.stem if args.out else args.file.stem
    made = convert_file(args.file, name, Options(args.stage, args.num_processes, args.rows, args.dataset_info))
    if args.out is None:
        print(made.text, end="")
        for name in made.files:
            print(f"with --out, {name} is written beside the recipe", file=sys.stderr)
    else:
        _write(args.out, made.text, made.files)
    for sentence in made.assumed:
        print(f"taken to be so: {sentence}", file=sys.stderr)
    for sentence in made.differs:
        print(f"differs: {sentence}", file=sys.stderr)
    return RecipeError.code if made.differs else 0


def _write(out: Path, text: str, files: dict[str, str]) -> None:
    paths = {out: text} | {out.parent / name: content for name, content in files.items()}
    there = next((path for path in paths if path.exists()), None)
    if there is not None:
        raise RecipeError(f"{there}: exists and is not overwritten. Give --out another name, or remove the file.")
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, content in paths.items():
        path.write_text(content, encoding="utf-8")
        print(f"wrote {path}")
    print(f"next: alignment check {out}")
