"""Where a run happened: commits, versions and hardware; neither host nor user names."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import alignment

PACKAGES = (
    "alignment", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "deepspeed",
    "bitsandbytes", "vllm", "numpy",
)  # fmt: skip
_GIT_TIMEOUT_SECONDS = 20


def read_git(recipe_dir: Path) -> dict[str, dict[str, Any]]:
    """Commit and dirty flag of the repository that the recipe is in, and of the package's where that is another one.

    Dirty: a tracked file differs from the commit, or a file beside the recipe is not tracked. Absent where there is no repository.
    """
    repositories = {"recipe": _read_repository(recipe_dir)}
    package_dir = Path(alignment.__file__).parent
    # An installed package may lie in a virtual environment inside somebody's repository: that commit is not the package's.
    if _git(package_dir, "ls-files", "--error-unmatch", "__init__.py") is not None:
        package = _read_repository(package_dir)
        if package != repositories["recipe"]:
            repositories["package"] = package
    return {name: facts for name, facts in repositories.items() if facts}


def _read_repository(folder: Path) -> dict[str, Any] | None:
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    beside = _git(folder, "status", "--porcelain", "--", ".")
    return {"commit": commit, "dirty": bool(changed or beside)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of git in `folder`; None when there is no git, no repository or no answer."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=_GIT_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def read_versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that decide a result."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def read_hardware(gpus: Sequence[str] = ()) -> dict[str, Any]:
    """CPU model, cores that this process may use, memory in GiB, and the GPUs as the caller names them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    facts = {"cpu": _cpu_model(), "cores": cores, "memory_gib": round(memory, 1), "system": platform.system()}
    return facts | ({"gpus": list(gpus)} if gpus else {})


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
