"""`alignment report`: writes the page of a run anew, or that of a study; of several runs also one page that compares them."""

import argparse
from pathlib import Path

from alignment.errors import RecipeError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="RUN|STUDY", help="run folders, or a study's folder of runs"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where the comparison of several runs goes")


def run(args: argparse.Namespace) -> int:
    """Writes report.html in each folder, the comparison where there are several runs, and prints where.

    Raises:
        RecipeError: a folder with neither a run nor runs, or --out that is a folder.
    """
    from alignment.report.compare_page import write_comparison
    from alignment.report.run_report import write_report
    from alignment.report.study_report import study_report

    if args.out is not None and args.out.is_dir():
        raise RecipeError(f"--out: {args.out}: a folder; a file was expected. Name one in it.")
    runs = {folder: _find_runs(folder) for folder in args.folders}
    for folder, found in runs.items():
        print(study_report(folder, found) if found else write_report(folder))
    single = [folder for folder, found in runs.items() if not found]
    if len(single) > 1:
        print(write_comparison(single, args.out))
    return 0


def _find_runs(folder: Path) -> list[Path]:
    """The runs of a study; none where the folder is a run itself, or is not there, as its report says then."""
    from alignment.report.run_files import RECIPE
    from alignment.report.study_report import find_runs

    if (folder / RECIPE).is_file() or not folder.is_dir():
        return []
    if found := find_runs(folder):
        return found
    studies = sorted({path.parent.parent.name for path in folder.glob(f"*/*/{RECIPE}")})
    advice = f"Name one of its studies: {', '.join(studies[:6])}." if studies else "Runs lie in runs/STUDY/RECIPE."
    raise RecipeError(
        f"{folder}: neither a run ({RECIPE}) nor runs in it; a run or a study's folder was expected. {advice}"
    )
