"""`alignment push` as a person runs it: in a process of its own, against HF_ENDPOINT."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from local_hub import TOKEN, LocalHub

ID = "org/study-sft"


def push(hub: LocalHub, cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    variables |= {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"
    } | environment  # fmt: skip
    command = [sys.executable, "-m", "alignment", "push", *arguments]
    return subprocess.run(command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_it_says_where_the_result_is(hub: LocalHub, finished_run: Path, tmp_path: Path) -> None:
    done = push(hub, tmp_path, "runs/study/sft", ID)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{hub.url}/{ID} at v-")
    assert hub.repositories[ID].private


@pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_TOKEN": "hf_" + "b" * 34}])
def test_a_failure_exits_6_with_the_command_that_goes_on(
    hub: LocalHub, finished_run: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    failed = push(hub, tmp_path, "runs/study/sft", ID, "--public", "--revision", "candidate", **environment)
    assert failed.returncode == 6
    assert f"Try again: alignment push runs/study/sft {ID} --public --revision candidate" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert TOKEN not in failed.stderr
