"""Checks that a machine can do alone: versions, disk, shared memory, GPUs, network names. No model is loaded.

Each returns one Finding. Limits are those below which runs were seen to fail, not those at which they are comfortable.
"""

import importlib.metadata
import os
import shlex
import socket
import subprocess
import sys
import uuid
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement

from alignment.launch.doctor.findings import Finding
from alignment.launch.environment import has_gpu

MIN_DISK_GB = 5.0  # a checkpoint of a 1 B model with its optimizer is 12 GB; below this not even a small one fits
MIN_SHARED_MB = 256  # NCCL and data workers; Docker's default is 64
MAX_GPU_TAKEN = 0.2  # part of a GPU's memory that something else may hold
_DISTRIBUTION = "alignment"
_NOT_TO_RUN = ("dev",)  # extras that no training needs
_GB, _MB = 1e9, 1 << 20
_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd")


# ------------------------------------------------------------------------------------------------ versions


def read_requirements() -> list[Requirement]:
    """The ranges of setup.py: those that are required, and those of extras, whose marker names one."""
    try:
        return [Requirement(line) for line in importlib.metadata.requires(_DISTRIBUTION) or ()]
    except importlib.metadata.PackageNotFoundError:
        return []


def read_versions(requirements: Iterable[Requirement]) -> dict[str, str]:
    """The installed version of each package that is named."""
    found = {}
    for name in dict.fromkeys(one.name for one in requirements):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check_versions(
    requirements: Iterable[Requirement], versions: Mapping[str, str], needed: Collection[str] = ()
) -> Finding:
    """Whether what is installed is in range; what an extra names need not be there, unless it is in `needed`."""
    outside, wanted = [], []
    for one in requirements:
        version, is_extra = versions.get(one.name), one.marker is not None and "extra" in str(one.marker)
        is_missed = version is None and one.name not in needed
        if is_extra and (is_missed or any(f'"{name}"' in str(one.marker) for name in _NOT_TO_RUN)):
            continue
        if version is None or not one.specifier.contains(version, prereleases=True):
            outside.append(f"{one.name} {version or 'is not installed'}")
            wanted.append(f"{one.name}{one.specifier}")
    if outside:
        command = shlex.join([sys.executable, "-m", "pip", "install", *wanted])
        return Finding("versions", f"{', '.join(outside)}", command)
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding("versions", f"Python {python}, torch {versions.get('torch')}, all {len(versions)} in range")


# ------------------------------------------------------------------------------------------------ disk, memory


def check_disk(folder: Path, need_gb: float = MIN_DISK_GB) -> Finding:
    """Whether a file can be written where the run folder will be, and how much room there is."""
    place = next(one for one in (folder.resolve(), *folder.resolve().parents) if one.is_dir())
    trial = place / f".doctor-{uuid.uuid4().hex[:8]}"
    try:
        with trial.open("wb") as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
        trial.unlink()
    except OSError as error:
        trial.unlink(missing_ok=True)
        return Finding("disk", f"{place}: {error.strerror}", "Give --out DIR, a folder that can be written to.")
    space = os.statvfs(place)
    free_gb = space.f_bavail * space.f_frsize / _GB
    if free_gb < need_gb:
        return Finding(
            "disk", f"{place}: {free_gb:.1f} GB are free, {need_gb:.0f} are needed", "Make room, or give --out DIR."
        )
    if space.f_files and not space.f_favail:
        return Finding("disk", f"{place}: no file can be added (inodes)", "Remove files, or give --out DIR.")
    return Finding("disk", f"{free_gb:.0f} GB are free")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Whether ranks of one machine have room to talk."""
    if not folder.is_dir():
        return Finding("shared memory", f"no {folder}; nothing was checked")
    space = os.statvfs(folder)
    free_mb = space.f_bavail * space.f_frsize / _MB
    if free_mb < MIN_SHARED_MB:
        return Finding(
            "shared memory",
            f"{folder}: {free_mb:.0f} MB are free, {MIN_SHARED_MB} are needed",
            "Remove what is left there; in a container give --shm-size 8g or --ipc host.",
        )
    return Finding("shared memory", f"{free_mb / 1024:.1f} GB are free")


# ------------------------------------------------------------------------------------------------ GPUs


def check_gpus(expected: int | None = None) -> Finding:
    """Whether torch can use the GPUs of this machine, each with a small product.

    Args:
        expected: as many as the scheduler gave.
    """
    if not has_gpu():
        return _explain_no_gpu(expected)
    import torch

    count = torch.cuda.device_count()
    if expected and count != expected:
        return Finding(
            "GPUs", f"torch sees {count}, {expected} were given", "Look at CUDA_VISIBLE_DEVICES and nvidia-smi."
        )
    for index in range(count):
        try:
            free, total = torch.cuda.mem_get_info(index)
            product = torch.ones(64, 64, device=f"cuda:{index}", dtype=torch.float16) @ torch.ones(
                64, 64, device=f"cuda:{index}", dtype=torch.float16
            )
            is_right = bool((product == 64).all())
        except RuntimeError as error:
            return Finding(
                "GPUs", f"GPU {index}: {str(error).splitlines()[0]}", "Look at nvidia-smi; leave the machine out."
            )
        if not is_right:
            return Finding(
                "GPUs", f"GPU {index}: ones times ones is not 64", "Leave the machine out: sbatch --exclude."
            )
        if 1 - free / total > MAX_GPU_TAKEN:
            taken = f"GPU {index}: {(total - free) / _GB:.0f} of {total / _GB:.0f} GB are taken"
            return Finding("GPUs", taken, "End what holds it: nvidia-smi names the process.")
    return Finding("GPUs", f"{count} x {torch.cuda.get_device_name(0)}, driver {_driver()}, CUDA {torch.version.cuda}")


def _explain_no_gpu(expected: int | None) -> Finding:
    if not expected and not any(Path(name).exists() for name in _DEVICES):
        return Finding("GPUs", "none; CPU ranks")
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        build = f"torch {torch.__version__} is built for CPUs"
        return Finding(
            "GPUs", build, "Install torch for your CUDA (pytorch.org), or unset what gives GPUs to this job."
        )
    return Finding(
        "GPUs",
        f"torch {torch.__version__} (CUDA {torch.version.cuda}) sees none; driver {_driver()}",
        "Look at nvidia-smi and CUDA_VISIBLE_DEVICES; a driver older than CUDA needs an older build of torch.",
    )


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.split() or ["unknown"])[0]


# ------------------------------------------------------------------------------------------------ network


def check_interface(variables: Mapping[str, str], num_machines: int) -> Finding:
    """Whether gloo and NCCL will speak through an interface that other machines reach.

    Args:
        variables: the process's environment.
    """
    there = sorted(name for _, name in socket.if_nameindex())
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        named = [one.lstrip("^=") for one in variables.get(variable, "").split(",") if one]
        if unknown := [one for one in named if not any(name.startswith(one) for name in there)]:
            mend = f"Set {variable} to one of {', '.join(there)}, or unset it."
            return Finding("interface", f"{variable}={unknown[0]}; this machine has {', '.join(there)}", mend)
    if named := variables.get("GLOO_SOCKET_IFNAME"):
        return Finding("interface", named)
    host = socket.gethostname()
    try:
        address = socket.gethostbyname(host)
    except OSError:
        if num_machines == 1:
            return Finding("interface", "lo")
        return Finding(
            "interface", f"{host} has no address", f"export GLOO_SOCKET_IFNAME=NAME, one of {', '.join(there)}."
        )
    if address.startswith("127.") and num_machines > 1:
        mend = f"export GLOO_SOCKET_IFNAME=NAME, one of {', '.join(there)}."
        return Finding("interface", f"{host} is {address}, which no other machine reaches", mend)
    return Finding("interface", f"{host} is {address}" if num_machines > 1 else "this machine alone")
