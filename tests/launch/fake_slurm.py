"""SLURM's commands for one computer: jobs really run, on as many "machines" as they ask for. Started under the name of a command.

$FAKE_SLURM holds a folder a job. What counts is as in SLURM: `--signal=B:TERM` reaches only the batch shell; `scancel --signal`
reaches every process of the steps; srun answers SIGTERM by ending its step at once, returns the highest code of its tasks,
and with --kill-on-bad-exit ends the others with the first that fails; a requeued job keeps its id, and its log is appended to.
"""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ.get("FAKE_SLURM", "."))
MAX_ATTEMPTS = 5
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


def sbatch(argv: list[str]) -> int:
    text = Path(argv[-1]).read_text()
    given = [shlex.split(line[8:]) for line in text.splitlines() if line.startswith("#SBATCH ")]
    options = dict(split(word) for words in [*given, argv[:-1]] for word in words)
    job_id = str(1000 + len(list(ROOT.glob("[0-9]*"))))
    folder = ROOT / job_id
    folder.mkdir()
    (folder / "script").write_text(text)
    (folder / "options.json").write_text(json.dumps(options))
    say(folder, "PENDING")
    subprocess.Popen(
        [sys.executable, __file__, "run", job_id],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    print(job_id if "parsable" in options else f"Submitted batch job {job_id}")
    return 0


def split(word: str) -> tuple[str, str]:
    name, _, value = word.removeprefix("--").partition("=")
    return name, value


def say(folder: Path, state: str) -> None:
    (folder / "state.tmp").write_text(state)
    (folder / "state.tmp").rename(folder / "state")


def run(argv: list[str]) -> int:
    folder = ROOT / argv[0]
    options = json.loads((folder / "options.json").read_text())
    for waited in options.get("dependency", "").removeprefix("afterok:").split(":"):
        while waited and (state := (ROOT / waited / "state").read_text()) not in ENDED:
            time.sleep(0.02)
        if waited and state != "COMPLETED":
            say(folder, "CANCELLED")
            return 0
    say(folder, "RUNNING")
    last = int(re.match(r"0-(\d+)", options["array"]).group(1)) if "array" in options else None
    codes = [attempts(folder, options, index) for index in ([None] if last is None else range(last + 1))]
    (folder / "code").write_text(str(max(codes)))
    say(folder, "FAILED" if max(codes) else "COMPLETED")
    return 0


def attempts(folder: Path, options: dict, index: int | None) -> int:
    for attempt in range(MAX_ATTEMPTS):
        code = one_attempt(folder, options, index, attempt)
        if not (folder / "requeue").exists():
            return code
        (folder / "requeue").unlink()
    return 99


def one_attempt(folder: Path, options: dict, index: int | None, attempt: int) -> int:
    nodes, job_id = int(options.get("nodes", 1)), folder.name
    variables = dict(os.environ) | {
        "SLURM_JOB_ID": job_id,
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_JOB_NODELIST": f"127.0.0.[1-{nodes}]",
        "SLURM_NODELIST": f"127.0.0.[1-{nodes}]",
        "SLURM_CPUS_ON_NODE": "1",
    }
    variables |= {"SLURM_RESTART_COUNT": str(attempt)} if attempt else {}
    variables |= {"SLURM_GPUS_ON_NODE": options["gpus-per-node"]} if "gpus-per-node" in options else {}
    variables |= {"SLURM_ARRAY_TASK_ID": str(index)} if index is not None else {}
    variables |= dict(one.split("=") for one in options.get("export", "").split(",") if "=" in one)
    log = options.get("output", f"slurm-{job_id}.log").replace("%j", job_id).replace("%A", job_id)
    with open(log.replace("%a", str(index)), "a") as output:
        place = options.get("chdir", os.getcwd())
        shell = subprocess.Popen(
            ["bash", str(folder / "script")],
            env=variables,
            cwd=place,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        wanted, limit = "signal" in options, Path(os.environ.get("FAKE_SLURM_LIMIT", "/nowhere"))
        while shell.poll() is None:
            if wanted and limit.exists():  # the time limit comes near
                limit.unlink()
                os.kill(shell.pid, signal.SIGTERM)
            time.sleep(0.02)
    for pid in descendants(shell.pid, session=True):
        kill(pid, signal.SIGKILL)
    return shell.returncode if shell.returncode >= 0 else 128 - shell.returncode


def srun(argv: list[str]) -> int:
    words, number = list(argv), 1
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-n":
            number = int(words.pop(0))
        number = int(word.partition("=")[2]) if word.startswith("--ntasks=") else number
    tasks = []
    for node in range(number):
        place = {"SLURM_NODEID": str(node), "SLURM_PROCID": str(node), "GLOO_SOCKET_IFNAME": "lo"}
        tasks.append(subprocess.Popen(words, env=dict(os.environ) | place, start_new_session=True))
    step = ROOT / os.environ["SLURM_JOB_ID"] / f"step-{os.getpid()}"
    step.write_text(" ".join(str(task.pid) for task in tasks))
    ending = []
    signal.signal(signal.SIGTERM, lambda *_: ending.append(True))
    while any(task.poll() is None for task in tasks):
        if ending or ("--kill-on-bad-exit=1" in argv and any(task.poll() for task in tasks)):
            for task in tasks:
                if task.poll() is None:
                    for pid in descendants(task.pid):
                        kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    step.unlink()
    for task in tasks:  # nothing outlives its step
        for pid in descendants(task.pid, session=True):
            kill(pid, signal.SIGKILL)
    return max(task.returncode if task.returncode >= 0 else 128 - task.returncode for task in tasks)


def descendants(pid: int, session: bool = False) -> list[int]:
    """A process and all that it started, whatever session they are in."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = (int(fields[1]), int(fields[3]))
    found = {pid} | {one for one, (_, leader) in parents.items() if session and leader == pid}
    while more := {one for one, (parent, _) in parents.items() if parent in found} - found:
        found |= more
    return sorted(found & set(parents) if session else found)


def kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def scancel(argv: list[str]) -> int:
    assert argv[0] == "--signal=TERM", argv
    for step in (ROOT / argv[1]).glob("step-*"):
        for pid in step.read_text().split():
            for one in descendants(int(pid)):
                kill(one, signal.SIGTERM)
    return 0


def scontrol(argv: list[str]) -> int:
    if argv[0] == "requeue":
        (ROOT / argv[1] / "requeue").touch()
        return 0
    assert argv[:2] == ["show", "hostnames"], argv
    start, last = re.fullmatch(r"(.*)\[1-(\d+)\]", argv[2]).groups()
    with contextlib.suppress(BrokenPipeError):
        print("\n".join(f"{start}{number}" for number in range(1, int(last) + 1)), flush=True)
    return 0


def squeue(argv: list[str]) -> int:
    job = argv[argv.index("--jobs") + 1]
    state = (ROOT / job / "state").read_text()
    print(state if state not in ENDED else "", end="\n" if state not in ENDED else "")
    return 0


if __name__ == "__main__":
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name == Path(__file__).name:
        name, *arguments = arguments
    sys.exit({one.__name__: one for one in (sbatch, run, srun, scancel, scontrol, squeue)}[name](arguments))
