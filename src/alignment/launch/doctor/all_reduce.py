"""A small all-reduce between processes that load nothing else: gloo on CPUs, NCCL on GPUs.

    python -m alignment.launch.doctor.all_reduce RANK WORLD_SIZE LOCAL_RANK ADDRESS PORT BACKEND

A sum of small whole numbers has one right value, in 1 KB as in 16 MB. A process that hangs is killed by the doctor, not here.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

from alignment.launch.doctor.findings import Finding
from alignment.launch.doctor.peers import Place

SECONDS = 25.0
SIZES = (256, 4 << 20)  # float32: 1 KB and 16 MB
BACKENDS = {False: "gloo", True: "nccl"}


def check_all_reduce(place: Place, per_machine: int, on_gpu: bool) -> Finding:
    """Starts this machine's processes and waits for their sum.

    Args:
        place: with the port of the store at which they meet.
        per_machine: processes of each machine.
    """
    world_size = place.num_machines * per_machine
    children = [
        _start(place.machine * per_machine + local, world_size, local, place, BACKENDS[on_gpu])
        for local in range(per_machine)
    ]
    until, failed, spoken = time.monotonic() + SECONDS, "", ""
    for local, child in enumerate(children):
        try:
            said, error = child.communicate(timeout=max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            said, error = child.communicate()
            error = error or f"no sum in {SECONDS:.0f} s"
        if child.returncode != 0 and not failed:
            failed = f"process {local}: {_last_line(error)}"
        spoken = spoken or said.strip()
    name = f"{BACKENDS[on_gpu]}, {world_size} processes"
    if failed:
        return Finding("all-reduce", f"{name}: {failed}", _mend(on_gpu), place.machine)
    return Finding("all-reduce", f"{name}: {spoken}" if spoken else name)


def _mend(on_gpu: bool) -> str:
    if on_gpu:
        return "Run it again with NCCL_DEBUG=INFO; NCCL_SOCKET_IFNAME names the interface, NCCL_IB_DISABLE=1 leaves InfiniBand out."
    return "Set GLOO_SOCKET_IFNAME to the interface that joins the machines, and let all ports between them pass."


def _last_line(error: str) -> str:
    return (error.strip().splitlines() or ["no word"])[-1][:200]


def _start(rank: int, world_size: int, local: int, place: Place, backend: str) -> subprocess.Popen:
    numbers = [str(one) for one in (rank, world_size, local, place.address, place.port, backend)]
    command = [sys.executable, "-m", "alignment.launch.doctor.all_reduce", *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def main(argv: Sequence[str]) -> int:
    """One process's part; says the times when it is rank 0."""
    rank, world_size, local, port = (int(argv[index]) for index in (0, 1, 2, 4))
    address, backend = argv[3], argv[5]
    import torch
    from torch import distributed

    timeout = timedelta(seconds=SECONDS)
    store = distributed.TCPStore(address, port, is_master=False, timeout=timeout)
    store = distributed.PrefixStore("all-reduce", store)
    device = torch.device("cuda", local) if backend == "nccl" else torch.device("cpu")
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    taken = []
    for size in SIZES:
        numbers = torch.full((size,), rank + 1.0, device=device)
        begun = time.perf_counter()
        distributed.all_reduce(numbers)
        wanted = world_size * (world_size + 1) / 2
        if not bool((numbers == wanted).all()):
            print(f"the sum is {numbers.min().item():g}..{numbers.max().item():g}, not {wanted:g}", file=sys.stderr)
            return 1
        taken.append(time.perf_counter() - begun)
    print(f"1 KB in {taken[0] * 1e3:.0f} ms, 16 MB in {taken[1] * 1e3:.0f} ms" if rank == 0 else "", flush=True)
    os._exit(0)  # teardown may wait for a process that is gone


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
