"""`alignment push`: publishes the verified result of a run on the Hub; private unless --public. Doing it again is harmless."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from alignment.errors import PublishError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder")
    parser.add_argument("hub_id", metavar="ORG/NAME", help="the repository; it is made where it is not there")
    parser.add_argument("--public", action="store_true", help="for everybody to see (default: private)")
    parser.add_argument("--revision", metavar="B", help="a branch (default: main)")


def run(args: argparse.Namespace) -> int:
    """Publishes the run, prints where it is and returns 0."""
    print(push(args.run, args.hub_id, public=args.public, revision=args.revision))
    return 0


def push(run_dir: Path, hub_id: str, *, public: bool = False, revision: str | None = None) -> str:
    """Publishes a run and returns what to say about it.

    Raises:
        PublishError: with the command that goes on.
    """
    from alignment.hub.publish import publish_run

    try:
        done = publish_run(run_dir, hub_id, public=public, revision=revision)
    except PublishError as error:
        raise PublishError(f"{error} Try again: {push_command(run_dir, hub_id, public, revision)}") from error
    lines = [
        f"{done.url} at {done.tag}: {done.num_files} files, {done.num_bytes / 1e6:.1f} MB, compared"
        + ("" if done.is_new else "; nothing had changed")
    ]
    lines += [f"left out: {', '.join(done.left_out)}"] if done.left_out else []
    return "\n".join(lines)


def push_runs(run_dirs: Sequence[Path], organisation: str) -> int:
    """Publishes every run that made a model as ORG/STUDY-RECIPE, private. Each is tried, whatever becomes of the others.

    Returns:
        0, or 6 when one failed; the runs themselves stay done.
    """
    code = 0
    for run_dir in run_dirs:
        if not any((run_dir / "final").glob("*.safetensors")):
            continue  # a tokenizer, curated text, an evaluation
        try:
            print(push(run_dir, f"{organisation}/{run_dir.resolve().parent.name}-{run_dir.name}"))
        except PublishError as error:
            print(error, file=sys.stderr)
            code = error.code
    return code


def push_command(run_dir: Path, hub_id: str, public: bool = False, revision: str | None = None) -> str:
    """The command that publishes a run."""
    options: Sequence[str] = [*(["--public"] if public else []), *(["--revision", revision] if revision else [])]
    return shlex.join(["alignment", "push", str(run_dir), hub_id, *options])
