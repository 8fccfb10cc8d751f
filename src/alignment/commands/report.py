"""`alignment report`: writes the page of a run anew, or that of a study; of several runs also one page that compares them."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN|STUDY", help="run folders, or a study's folder of runs"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the comparison of several runs goes")


def run(args: argparse.Namespace) -> int:
    """Writes report.html in each folder, the comparison where there are several runs, and prints where."""
    from alignment.report.compare_page import write_comparison
    from alignment.report.run_files import RECIPE
    from alignment.report.run_report import write_report
    from alignment.report.study_report import study_report

    single = []
    for folder in args.folders:
        runs = sorted(path.parent for path in folder.glob(f"*/{RECIPE}"))
        is_run = (folder / RECIPE).is_file() or not runs
        print(write_report(folder) if is_run else study_report(folder, runs))
        single += [folder] if is_run else []
    if len(single) > 1:
        print(write_comparison(single, args.out))
    return 0
