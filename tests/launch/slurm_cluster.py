"""A cluster for one test: the commands of `fake_slurm.py` on PATH, and what became of the jobs."""

import json
import os
import stat
import sys
import time
from pathlib import Path

import pytest

COMMANDS = ("sbatch", "srun", "scancel", "scontrol", "squeue")
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
SOURCE = Path(__file__).with_name("fake_slurm.py")


class Cluster:
    """Jobs by id, and the file whose presence is the time limit coming near."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.limit, commands = folder / "jobs", folder / "limit", folder / "bin"
        self.root.mkdir(parents=True)
        commands.mkdir()
        for name in COMMANDS:
            write_program(commands / name, f'#!/bin/sh\nexec {sys.executable} -S {SOURCE} {name} "$@"\n')
        monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(self.root))
        monkeypatch.setenv("FAKE_SLURM_LIMIT", str(self.limit))

    def wait(self, job: str, seconds: float = 120) -> str:
        """The state in which a job ended."""
        until = time.monotonic() + seconds
        while (state := (self.root / job / "state").read_text()) not in ENDED:
            assert time.monotonic() < until, f"job {job} is {state}"
            time.sleep(0.02)
        return state

    def code(self, job: str) -> int:
        return int((self.root / job / "code").read_text())

    def options(self, job: str) -> dict[str, str]:
        return json.loads((self.root / job / "options.json").read_text())


def write_program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def wait_for(path: Path, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"no {path}"
        time.sleep(0.02)
