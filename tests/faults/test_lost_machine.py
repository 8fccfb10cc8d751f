"""Two machines, one of which is lost, or one of its ranks (F9): two launchers of two ranks each, and SIGKILL."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import fault_runs as runs
import psutil
import pytest

STEPS = 400
KEYS = (f"train.max_steps={STEPS}", "train.save_steps=50", "train.per_device_train_batch_size=1")
HANG_TIMEOUT = 10


def start_machines(study: Path, out: str, *keys: str) -> list[subprocess.Popen]:
    """`alignment train` on both, as on machines with GPUs."""
    port = find_port()
    return [start_machine(study, out, rank, port, *keys) for rank in (0, 1)]


def find_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_machine(study: Path, out: str, machine_rank: int, port: int, *keys: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "alignment", "train", "recipes/faults/sft-lora.yaml", "--out", f"runs/{out}"]
    command += ["--accelerate_config", str(runs.CONFIGS / "ddp.yaml"), "--num_machines", "2", "--num_processes", "4"]
    for key in (*KEYS, f"train.hang_timeout={HANG_TIMEOUT}", *keys):
        command += ["--set", key]
    command += ["--", "--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]
    command += ["--machine_rank", str(machine_rank)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, cwd=study, env=environment, start_new_session=True)


def wait_for_seal(study: Path, out: str, machines: list[subprocess.Popen], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not list((study / "runs" / out / "checkpoints").glob("checkpoint-*/seal.json")):
        assert time.monotonic() < until, "no checkpoint was sealed"
        assert all(machine.poll() is None for machine in machines), "a machine ended before it was killed"
        time.sleep(0.02)


def kill_all_of_it(machine: subprocess.Popen) -> None:
    """The launcher and its ranks, which have sessions of their own."""
    launcher = psutil.Process(machine.pid)
    for process in (launcher, *launcher.children(recursive=True)):
        process.kill()
    machine.wait()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0])
def test_a_lost_machine_ends_the_other_and_the_same_commands_go_on(study, lost) -> None:
    out = f"lost-machine-{lost}"
    machines = start_machines(study, out)
    wait_for_seal(study, out, machines)
    kill_all_of_it(machines[lost])
    begun = time.monotonic()
    code = machines[1 - lost].wait(120)
    assert time.monotonic() - begun < HANG_TIMEOUT + 20
    assert code == 5
    ended = runs.read_exit(study, out)
    assert ended["code"] == 5
    assert ("lost the others in step" if lost else "rank 0 did not say how the run ended") in ended["reason"]
    assert 0 < len(runs.losses(study, out)) < STEPS

    assert [machine.wait(200) for machine in start_machines(study, out)] == [0, 0]
    assert runs.train(study, "sft-lora", f"{out}-whole", *KEYS, strategy="ddp", ranks=4) == 0
    # Ranks in other processes add in another order: the last digits differ, the run does not.
    assert runs.losses(study, out) == pytest.approx(runs.losses(study, f"{out}-whole"), abs=1e-5)
    assert len(runs.losses(study, out)) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("lost", [3, 0])
def test_a_lost_rank_is_started_again_on_both_machines_where_the_recipe_allows(study, lost) -> None:
    out = f"lost-rank-{lost}"
    machines = start_machines(study, out, "train.max_restarts=1")
    wait_for_seal(study, out, machines)
    kill_rank(machines, lost)
    assert [machine.wait(240) for machine in machines] == [0, 0]
    assert runs.read_exit(study, out)["code"] == 0
    assert runs.train(study, "sft-lora", f"{out}-whole", *KEYS, strategy="ddp", ranks=4) == 0
    assert runs.losses(study, out) == pytest.approx(runs.losses(study, f"{out}-whole"), abs=1e-5)
    assert len(runs.losses(study, out)) == STEPS


@pytest.mark.slow
@pytest.mark.parametrize("lost", [1, 0])
def test_a_machine_that_comes_back_is_waited_for_where_the_recipe_allows(study, lost) -> None:
    out, port, keys = f"back-{lost}", find_port(), ("train.max_restarts=1",)
    machines = [start_machine(study, out, rank, port, *keys) for rank in (0, 1)]
    wait_for_seal(study, out, machines)
    kill_all_of_it(machines[lost])
    time.sleep(20)  # a scheduler takes its time too
    assert machines[1 - lost].poll() is None
    machines[lost] = start_machine(study, out, lost, port, *keys)
    assert [machine.wait(240) for machine in machines] == [0, 0]
    assert runs.read_exit(study, out)["code"] == 0
    assert len(runs.losses(study, out)) == STEPS


def kill_rank(machines: list[subprocess.Popen], rank: int) -> None:
    """SIGKILL to one rank; its machine and launcher stay."""
    for machine in machines:
        for process in psutil.Process(machine.pid).children(recursive=True):
            if process.environ().get("RANK") == str(rank):
                process.kill()
                return
    raise AssertionError(f"no rank {rank}")
