"""What `recipes/launch.slurm` asks from inside its job: the GPUs of a machine, the run folder, and how the run ended.

    python -m alignment.launch.slurm_job gpus
    python -m alignment.launch.slurm_job folder RECIPE [options of alignment train]
    python -m alignment.launch.slurm_job code RUN STATUS BEGUN

It answers on stdout, for the shell. It submits nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alignment.errors import AlignmentError, LaunchError
from alignment.launch.environment import has_gpu
from alignment.recipe.resolved import run_folder
from alignment.report.run_files import read_json
from alignment.train.run_folder import EXIT


def main(argv: Sequence[str] | None = None) -> int:
    """Answers one question; a refusal goes to stderr, with its exit code."""
    question, *rest = list(sys.argv[1:] if argv is None else argv)
    try:
        print(_QUESTIONS[question](rest))
    except AlignmentError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


def count_gpus() -> int:
    """GPUs that torch sees on this machine."""
    if not has_gpu():
        return 0
    import torch

    return torch.cuda.device_count()


def find_folder(arguments: Sequence[str]) -> Path:
    """The run folder of `alignment train ARGUMENTS`; what is wrong with the arguments is that command's to say."""
    parser = argparse.ArgumentParser(prog="launch.slurm", allow_abbrev=False, add_help=False)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--out", type=Path)
    args, _ = parser.parse_known_args(arguments)
    return args.out or run_folder(args.recipe)


def find_code(run_dir: Path, status: int, begun: float) -> int:
    """The run's exit code.

    Args:
        status: what srun returned: the highest exit code of all machines.
        begun: when this attempt began, in seconds since 1970; an older exit.json is not of this attempt.
    """
    path = run_dir / EXIT
    if status == 0:
        return status
    if not path.is_file() or path.stat().st_mtime < begun:
        # accelerate makes 1 of everything; a defect of ours would have been written down.
        return LaunchError.code if status == 1 else status
    return read_json(path).get("code") or status


_QUESTIONS = {
    "gpus": lambda rest: count_gpus(),
    "folder": find_folder,
    "code": lambda rest: find_code(Path(rest[0]), int(rest[1]), float(rest[2])),
}

if __name__ == "__main__":
    sys.exit(main())
