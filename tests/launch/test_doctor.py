"""`alignment doctor`: each fault is planted once and named with what mends it."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from alignment.cli import main
from alignment.errors import LaunchError, RecipeError
from alignment.launch.doctor import all_reduce, examine, local, peers
from alignment.launch.doctor.examine import describe_recipe, hash_code
from alignment.launch.doctor.findings import ALL, Finding, make_table
from alignment.launch.doctor.peers import Meeting, Place, check_shared_folder, compare, exchange

GB = 10**9
RANGES = [
    Requirement("torch>=2.11,<2.14"),
    Requirement("trl>=1.16,<1.17"),
    Requirement('vllm>=0.10,<1; extra == "vllm"'),
]
INSTALLED = local.read_versions(one for one in local.read_requirements() if one.name != "deepspeed")
FACTS = {
    "code": "c0de",
    "data": {"rows.jsonl": "aa"},
    "Python": "3.11.7",
    "versions": {"torch": "2.13.0"},
    "GPUs": "none",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ------------------------------------------------------------------------------------------------ alone


def test_a_version_out_of_range_is_mended_by_one_command():
    found = local.check_versions(RANGES, {"torch": "2.10.1", "trl": "1.17.0"})
    assert found.found == "torch 2.10.1, trl 1.17.0"
    assert found.mend == f"{sys.executable} -m pip install 'torch<2.14,>=2.11' 'trl<1.17,>=1.16'"


def test_what_is_required_must_be_there_and_what_an_extra_names_in_range():
    assert "trl is not installed" in local.check_versions(RANGES, {"torch": "2.13.0+cpu"}).found
    assert not local.check_versions(RANGES, {"torch": "2.13.0+cpu", "trl": "1.16.0"}).is_wrong
    assert local.check_versions(RANGES, {"torch": "2.13.0", "trl": "1.16.0", "vllm": "1.2"}).found == "vllm 1.2"


def test_zero_needs_deepspeed(monkeypatch, capsys):
    monkeypatch.setattr(
        local,
        "read_versions",
        lambda ranges: {one.name: INSTALLED[one.name] for one in ranges if one.name in INSTALLED},
    )
    monkeypatch.setattr(examine, "check_all_reduce", lambda *_: Finding("all-reduce", "gloo, 2 processes"))
    assert main(["doctor", "--accelerate_config", "ddp"]) == 0
    assert main(["doctor", "--accelerate_config", "zero3"]) == LaunchError.code
    assert "deepspeed is not installed" in capsys.readouterr().out


def test_the_ranges_are_those_of_the_package():
    names = {one.name for one in local.read_requirements()}
    assert {"torch", "trl", "transformers", "deepspeed", "datatrove"} <= names
    assert not local.check_versions(local.read_requirements(), local.read_versions(local.read_requirements())).is_wrong


def space(free: int, files: int = 100) -> SimpleNamespace:
    return SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_files=1000, f_favail=files)


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: space(GB))
    found = local.check_disk(tmp_path / "runs/study/sft")
    assert found.found == f"{tmp_path}: 1.0 GB are free, 5 are needed"
    assert "--out" in found.mend
    monkeypatch.setattr(os, "statvfs", lambda _: space(100 * GB, files=0))
    assert "inodes" in local.check_disk(tmp_path).found
    monkeypatch.setattr(os, "statvfs", lambda _: space(100 * GB))
    assert local.check_disk(tmp_path) == Finding("disk", "100 GB are free")
    assert list(tmp_path.iterdir()) == []  # the file that was tried is gone


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch):
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    assert local.check_disk(tmp_path).found == f"{tmp_path}: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_dockers_default_of_shared_memory_is_too_little(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda _: space(64 << 20))
    found = local.check_shared_memory(tmp_path)
    assert found.found == f"{tmp_path}: 64 MB are free, 256 are needed"
    assert "--shm-size" in found.mend


def test_gpus_that_were_given_and_are_not_seen_are_wrong(monkeypatch):
    monkeypatch.setattr(local, "has_gpu", lambda: False)
    assert not local.check_gpus(0).is_wrong
    if not any(Path(name).exists() for name in local._DEVICES):
        assert local.check_gpus(4).is_wrong


def test_a_gpu_that_something_else_fills_is_named(monkeypatch):
    import torch

    monkeypatch.setattr(local, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert local.check_gpus(8).found == "torch sees 2, 8 were given"
    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *sizes, device, dtype: ones(*sizes, dtype=torch.float32))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((79 if index == 0 else 20) * GB, 80 * GB))
    assert local.check_gpus(2).found == "GPU 1: 60 of 80 GB are taken"
    monkeypatch.setattr(torch, "ones", lambda *sizes, device, dtype: ones(*sizes) * 2)
    assert "ones times ones is not 64" in local.check_gpus(2).found


def test_an_interface_must_be_there_and_lead_to_others(monkeypatch):
    found = local.check_interface({"NCCL_SOCKET_IFNAME": "=ib7"}, 1)
    assert found.found.startswith("NCCL_SOCKET_IFNAME=ib7; this machine has")
    monkeypatch.setattr(socket, "gethostbyname", lambda _: "127.0.1.1")  # as Debian writes it into /etc/hosts
    assert "GLOO_SOCKET_IFNAME" in local.check_interface({}, 2).mend
    assert not local.check_interface({}, 1).is_wrong
    assert not local.check_interface({"GLOO_SOCKET_IFNAME": "lo"}, 2).is_wrong


# ------------------------------------------------------------------------------------------------ together


def meet(facts: list[dict], folders: list[Path] | None = None) -> list[list[Finding]]:
    """Each machine is a thread; returns what each found."""
    port, found = free_port(), [[] for _ in facts]

    def be_machine(rank: int) -> None:
        meeting = Meeting(Place(rank, len(facts), "127.0.0.1", port))
        shared = check_shared_folder(meeting, folders[rank]) if folders else None
        found[rank] = exchange(meeting, facts[rank], [shared] if shared else [])
        meeting.leave()

    threads = [threading.Thread(target=be_machine, args=(rank,)) for rank in range(len(facts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def wrong(findings: list[Finding]) -> list[str]:
    return [f"{one.machine} {one.check} {one.found}" for one in findings if one.is_wrong]


def test_machines_that_are_alike_are_well(tmp_path):
    found = meet([FACTS] * 3, [tmp_path] * 3)
    assert [wrong(one) for one in found] == [[], [], []]
    assert Finding("same", "code, data, Python, versions, GPUs") in found[0]


@pytest.mark.parametrize(
    ("fact", "there", "expected"),
    [
        ("versions", {"torch": "2.12.0"}, "1 same versions: torch 2.12.0 (machine 0: 2.13.0)"),
        ("code", "0ld", "1 same code: 0ld (machine 0: c0de)"),
        ("data", {"rows.jsonl": "bb"}, "1 same data: rows.jsonl bb (machine 0: aa)"),
        ("GPUs", "4 x H100", "1 same GPUs: 4 x H100 (machine 0: none)"),
    ],
)
def test_what_one_machine_has_otherwise_is_named(fact, there, expected):
    assert wrong(meet([FACTS, FACTS | {fact: there}])[0]) == [expected]


def test_a_folder_that_is_not_shared_is_named(tmp_path, monkeypatch):
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: not path.name.startswith(".doctor-") and real(path))
    monkeypatch.setattr(peers, "SHARED_SECONDS", 0.1)
    assert "what machine 0 writes there is not seen" in wrong(meet([FACTS] * 2, [tmp_path] * 2)[0])[0]


def test_a_clock_that_is_wrong_is_named():
    facts = {0: {"time": 1000.0}, 1: {"time": 1100.0}, 2: {"time": 900.0}, 3: {"time": 999.0}}
    assert wrong(peers._compare_clocks(facts, 1000.0)) == [
        "1 clock +100 s from machine 0",
        "2 clock -100 s from machine 0",
    ]


def test_a_port_that_is_taken_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        problem = Meeting(Place(0, 2, "127.0.0.1", taken.getsockname()[1])).problem
    assert "it cannot be opened" in problem.found
    assert "another --main_process_port" in problem.mend


def test_a_port_that_is_blocked_and_a_machine_that_does_not_come_are_named(monkeypatch):
    monkeypatch.setattr(peers, "MEETING_SECONDS", 0.5)
    problem = Meeting(Place(1, 2, "127.0.0.1", free_port())).problem
    assert (problem.machine, "not reached in 0 s" in problem.found) == (1, True)
    alone = Meeting(Place(0, 2, "127.0.0.1", free_port()))
    assert "no word of machine 1" in wrong(exchange(alone, FACTS, []))[0]


def test_the_recipe_and_each_file_of_its_data_are_compared_by_content(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "stage: tokenizer\ntokenizer:\n  vocab_size: 300\ndata:\n  train:\n    - path: t.jsonl\n      format: text\n"
    )
    assert describe_recipe(recipe)["data"] == {"t.jsonl": "not here"}
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n')
    first = describe_recipe(recipe)
    (tmp_path / "t.jsonl").write_text('{"text": "b"}\n')
    assert describe_recipe(recipe)["data"] != first["data"]
    recipe.write_text(recipe.read_text().replace("300", "400"))
    assert describe_recipe(recipe)["recipe"] != first["recipe"]


def test_data_that_a_run_has_made_is_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "t.yaml"
    recipe.write_text(
        "stage: tokenizer\ntokenizer:\n  vocab_size: 300\ndata:\n  train:\n    - path: runs/s/curate/final\n      format: text\n"
    )
    assert describe_recipe(recipe)["data"] == {"runs/s/curate/final": "not here"}
    (tmp_path / "runs/s/curate/final").mkdir(parents=True)
    (tmp_path / "runs/s/curate/final/00000.jsonl").write_text('{"text": "a"}\n')
    assert len(describe_recipe(recipe)["data"]["runs/s/curate/final"]) == 12


def test_code_is_compared_by_content():
    assert hash_code() == hash_code()
    assert compare({0: {"code": "a"}, 1: {"code": "b"}})[0].machine == 1


# ------------------------------------------------------------------------------------------------ the command


def test_the_table_says_once_what_all_say_and_where_something_is_wrong():
    said = [Finding("disk", "9 GB are free", machine=0), Finding("disk", "9 GB are free", machine=1)]
    said += [Finding("GPUs", "none; CPU ranks", "Look.", 1), Finding("same", "code", machine=ALL)]
    assert make_table(said, 2).splitlines() == [
        "ok     disk          9 GB are free",
        "WRONG  GPUs          machine 1: none; CPU ranks",
        "                     -> Look.",
        "ok     same          code",
        "1 of 3 wrong",
    ]


def test_something_wrong_is_exit_code_5(monkeypatch, capsys):
    monkeypatch.setattr(local, "read_versions", lambda _: {"torch": "2.13.0"})
    monkeypatch.setattr(examine, "check_all_reduce", lambda *_: Finding("all-reduce", "gloo, 2 processes"))
    assert main(["doctor"]) == LaunchError.code
    out = capsys.readouterr().out
    assert "WRONG  versions" in out
    assert f"-> {sys.executable} -m pip install" in out


def test_it_takes_no_more_than_a_minute(monkeypatch, capsys):
    monkeypatch.setattr(examine, "LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(local, "check_disk", lambda _: time.sleep(5))
    assert main(["doctor"]) == LaunchError.code
    assert "not done in 0.2 s, at <lambda>" in capsys.readouterr().err
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_place_that_cannot_be_is_refused(capsys):
    assert main(["doctor", "--num_machines", "2", "--machine_rank", "2"]) == RecipeError.code
    assert main(["doctor", "--num_machines", "2"]) == RecipeError.code
    assert "--main_process_port" in capsys.readouterr().err


def test_a_process_that_ends_with_a_wrong_sum_is_named(monkeypatch):
    code = "import sys; print('the sum is 3..3, not 6', file=sys.stderr); sys.exit(1)"
    child = subprocess.PIPE
    monkeypatch.setattr(
        all_reduce,
        "_start",
        lambda *_: subprocess.Popen([sys.executable, "-S", "-c", code], stdout=child, stderr=child, text=True),
    )
    found = all_reduce.check_all_reduce(Place(1, 2), 1, on_gpu=True)
    assert found.found == "nccl, 2 processes: process 0: the sum is 3..3, not 6"
    assert "NCCL_DEBUG" in found.mend
    monkeypatch.setattr(all_reduce, "SECONDS", 0.1)
    code = "import time; time.sleep(9)"
    assert "no sum in 0 s" in all_reduce.check_all_reduce(Place(), 1, on_gpu=False).found


@pytest.mark.slow
def test_two_machines_meet_and_a_different_version_on_one_is_seen_by_both(tmp_path):
    """Real processes; machine 1 runs with another version of a package in front of the installed one."""
    other = tmp_path / "trl-1.16.9.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: trl\nVersion: 1.16.9\n")
    command = [
        sys.executable,
        "-m",
        "alignment",
        "doctor",
        "--num_machines",
        "2",
        "--main_process_port",
        str(free_port()),
    ]
    variables = dict(os.environ) | {"GLOO_SOCKET_IFNAME": "lo"}
    changed = variables | {"PYTHONPATH": str(tmp_path)}
    second = subprocess.Popen([*command, "--machine_rank", "1"], env=changed, stderr=subprocess.PIPE, text=True)
    first = subprocess.run(command, env=variables, capture_output=True, text=True)
    _, said = second.communicate()
    assert (first.returncode, second.returncode) == (LaunchError.code, LaunchError.code), (first, said)
    assert "machine 1: versions: trl 1.16.9 (machine 0: 1.16.0)" in first.stdout
    assert "ok     all-reduce    gloo, 2 processes" in first.stdout
    assert "See its output." in said
