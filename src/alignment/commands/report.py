"""`alignment report`: writes the page of a run anew, or that of a study, from the files beside it."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN|STUDY", help="run folders, or a study's folder of runs"
    )


def run(args: argparse.Namespace) -> int:
    """Writes report.html in each folder and prints where."""
    from alignment.report.run_files import RECIPE
    from alignment.report.run_report import write_report
    from alignment.report.study_report import study_report

    for folder in args.folders:
        runs = sorted(path.parent for path in folder.glob(f"*/{RECIPE}"))
        print(write_report(folder) if (folder / RECIPE).is_file() or not runs else study_report(folder, runs))
    return 0
