"""`alignment doctor`: what would stop a run on these machines, found in a minute at most and before any model is loaded."""

import hashlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import alignment
from alignment.data.sources import find_source
from alignment.errors import AlignmentError, LaunchError
from alignment.launch.doctor import local
from alignment.launch.doctor.all_reduce import check_all_reduce
from alignment.launch.doctor.findings import Finding
from alignment.launch.doctor.peers import Meeting, Place, check_shared_folder, exchange
from alignment.launch.environment import has_gpu
from alignment.launch.inputs import named_sources
from alignment.recipe.loader import load_recipe
from alignment.recipe.places import place_data
from alignment.recipe.resolved import recipe_hash, run_folder

logger = logging.getLogger(__name__)
LIMIT_SECONDS = 60
MAX_HASHED_BYTES = 1_000_000_000  # more data than this is compared by names and sizes


def examine(
    recipe_path: Path | None,
    place: Place,
    variables: Mapping[str, str],
    *,
    num_gpus: int | None = None,
    strategy: str | None = None,
) -> list[Finding]:
    """All findings, on machine 0 those of all machines. Every machine calls it.

    Args:
        variables: the environment of the process.
        num_gpus: GPUs that the scheduler gave each machine.
        strategy: of the launcher config; ZeRO needs DeepSpeed.

    Raises:
        LaunchError: it took longer than a minute.
        RecipeError: the recipe has a mistake.
    """
    with _limited():
        folder = run_folder(recipe_path) if recipe_path else Path.cwd()
        requirements = local.read_requirements()
        versions = local.read_versions(requirements)
        findings = [
            local.check_versions(requirements, versions, _needed(strategy)),
            local.check_disk(folder),
            local.check_shared_memory(),
            local.check_gpus(num_gpus),
            local.check_interface(variables, place.num_machines),
        ]
        facts = {
            "code": hash_code(),
            "Python": ".".join(map(str, sys.version_info[:3])),
            "versions": versions,
            "GPUs": findings[3].found,
            **(describe_recipe(recipe_path) if recipe_path else {}),
        }
        findings.insert(0, Finding("code", f"{facts['code']} {_commit()}".strip()))
        findings = [replace(one, machine=place.machine) for one in findings]
        return _meet(place, folder, facts, findings)


def _needed(strategy: str | None) -> tuple[str, ...]:
    return ("deepspeed",) if strategy is not None and strategy.startswith("zero") else ()


def _meet(place: Place, folder: Path, facts: Mapping[str, Any], findings: list[Finding]) -> list[Finding]:
    """What the machines find together, after what each found alone."""
    meeting = Meeting(place)
    if meeting.problem is not None:
        return [*findings, meeting.problem]
    place = meeting.place
    on_gpu = has_gpu()
    if place.num_machines == 1:
        return [*findings, check_all_reduce(place, _num_processes(on_gpu, place), on_gpu)]
    from torch.distributed import DistNetworkError, DistStoreError

    try:
        return _meet_others(meeting, folder, facts, findings, on_gpu)
    except (DistNetworkError, DistStoreError) as error:
        mend = "See its output; it was expected to wait for the others."
        return [*findings, Finding("machines", f"machine 0 is gone: {str(error)[:80]}", mend, place.machine)]


def _meet_others(
    meeting: Meeting, folder: Path, facts: Mapping[str, Any], findings: list[Finding], on_gpu: bool
) -> list[Finding]:
    place = meeting.place
    shared = check_shared_folder(meeting, folder)
    findings = exchange(meeting, facts, findings + ([shared] if shared else []))
    # Processes of machines that are there would wait for those that are not.
    meeting.say("go", not any(one.check == "machines" and one.is_wrong for one in findings))
    if meeting.hear("go", 0):
        reduced = check_all_reduce(place, _num_processes(on_gpu, place), on_gpu)
        meeting.say("reduced", vars(reduced))
        findings.append(reduced)
        if place.machine == 0:
            others = [Finding(**one) for machine, one in meeting.hear_all("reduced").items() if machine]
            findings += [one for one in others if one.is_wrong]
    meeting.say("wrong", any(one.is_wrong for one in findings))
    if meeting.hear("wrong", 0) and not any(one.is_wrong for one in findings):
        findings.append(Finding("machines", "machine 0 or another has findings", "See its output.", place.machine))
    meeting.leave()
    return findings


def _num_processes(on_gpu: bool, place: Place) -> int:
    if on_gpu:
        import torch

        return torch.cuda.device_count()
    return 2 if place.num_machines == 1 else 1


# ------------------------------------------------------------------------------------------------ what must be the same


def hash_code() -> str:
    """A hash of this package's files, whatever they were installed from."""
    package = Path(alignment.__file__).resolve().parent
    digest = hashlib.sha256()
    for path in sorted(one for one in package.rglob("*") if one.suffix in (".py", ".jinja", ".json") and one.is_file()):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _commit() -> str:
    place = Path(alignment.__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=place, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return f"(commit {done.stdout.strip()})" if done.returncode == 0 else ""


def describe_recipe(recipe_path: Path) -> dict[str, Any]:
    """Hashes of the resolved recipe and of its local data."""
    recipe = load_recipe(recipe_path)
    data = {}
    for split, spec in named_sources(recipe):
        path = place_data(os.path.expandvars(spec.path), recipe_path.resolve().parent)
        if not path.exists():
            data[spec.path] = "not here"
            continue
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
        sizes = [(one.name, one.stat().st_size) for one in files]
        if sum(size for _, size in sizes) > MAX_HASHED_BYTES:
            data[spec.path] = "sizes " + hashlib.sha256(repr(sizes).encode()).hexdigest()[:12]
            continue
        try:
            found = find_source(spec, recipe_path.resolve().parent, "train" if split == "train" else None)
            data[spec.path] = hashlib.sha256(str(found.content_hash).encode()).hexdigest()[:12]
        except AlignmentError as error:
            data[spec.path] = str(error)
    return {"recipe": recipe_hash(recipe)[:12], "data": data}


@contextmanager
def _limited() -> Iterator[None]:
    """Raises LaunchError when what is inside takes longer than a minute."""

    def stop(_: int, frame: FrameType | None) -> None:
        raise LaunchError(
            f"doctor: not done in {LIMIT_SECONDS} s, at {frame.f_code.co_name if frame else 'its end'}; less was expected. A file system "
            "or the network does not answer: look at df, nvidia-smi, and the other machines."
        )

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
