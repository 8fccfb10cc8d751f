"""`alignment merge`: an adapter-only run into a whole model, compared with the adapter on its base; exit 7 when they differ."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a run with lora.save: adapter")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder of the result (default: RUN-merged)")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="of the result (default: bfloat16)",
    )


def run(args: argparse.Namespace) -> int:
    """Merges, says into which base and how far the two are apart, and returns 0."""
    from alignment.report.run_files import RECIPE
    from alignment.train.merge import merge_run

    is_part = args.run.name in ("final", "adapter") and not (args.run / RECIPE).is_file()
    folder = args.run.parent if is_part else args.run
    out = args.out or folder.with_name(f"{folder.name}-merged")
    done = merge_run(folder, out, args.dtype, command=("alignment", *sys.argv[1:]))
    print(f"base: {done.base}" + (f" at {done.revision}" if done.revision else ""))
    print(f"compared with {done.compared_with}: largest logit gap {done.gap:.2g} of the greatest logit")
    print(f"greedy tokens: {done.agreement:.1%} of {done.positions} the same")
    print(f"whole model in {args.dtype}: {out / 'final'}")
    return 0
