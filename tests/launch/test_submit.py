"""`alignment submit`, on a cluster of one computer whose commands really run the jobs; the training is a stand-in."""

import sys
from pathlib import Path

import pytest
from slurm_cluster import Cluster, wait_for, write_program
from small_study import STUDY, pretend_to_train, write_study

from alignment.cli import main
from alignment.errors import DataError, LaunchError, RecipeError
from alignment.launch import slurm
from alignment.launch.request import TrainRequest
from alignment.launch.slurm_job import find_code

SFT = str(STUDY / "sft.yaml")
RUN = Path("runs/small/sft")
# The stand-in answers `-m alignment doctor` and `-m alignment train`; everything else is asked of the real interpreter.
PROGRAM = """#!/bin/bash
folder={folder}
case "$2 $3" in
"alignment doctor")
  echo "doctor ${{*:4}}" >> $folder/said
  exit $(cat $folder/doctor 2>/dev/null || echo 0) ;;
"alignment train")
  echo "train ${{*:4}} on $SLURM_NODEID attempt ${{SLURM_RESTART_COUNT:-0}} wait $TORCH_ELASTIC_SHUTDOWN_TIMEOUT" >> $folder/said
  source $folder/train.sh ;;
"alignment push" | "alignment run")
  echo "${{*:3}}" >> $folder/said ;;
*) exec {python} "$@" ;;
esac
"""
FINISH = """
mkdir -p runs/small/sft
finish() { echo "{\\"code\\": $1}" > runs/small/sft/exit.json; exit "$1"; }
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path)
    parent = tmp_path / "runs/small/pretrain/final"
    parent.mkdir(parents=True)
    found = Cluster(tmp_path / "cluster", monkeypatch)
    program = write_program(tmp_path / "python", PROGRAM.format(folder=tmp_path, python=sys.executable))
    monkeypatch.setattr(slurm.sys, "executable", str(program))
    return found


def submit(capsys: pytest.CaptureFixture, *arguments: str) -> list[str]:
    """Ids of the jobs."""
    assert main(["submit", *arguments]) == 0
    return [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]


def train_by(text: str) -> None:
    Path("train.sh").write_text(FINISH + text)


def said() -> list[str]:
    return Path("said").read_text().splitlines()


# ------------------------------------------------------------------------------------------------ scripts


def test_a_dry_run_shows_the_script_and_leaves_nothing(cluster, capsys):
    options = ["--num_machines", "2", "--gpus", "4", "--cpus", "12", "--mem", "0", "--time", "1-00:00:00"]
    options += ["--partition", "big", "--account", "us", "--signal_seconds", "120", "--sbatch=--constraint=a100"]
    before = sorted(Path().rglob("*"))
    assert main(["submit", SFT, *options, "--setup", "module load cuda", "--dry_run", "--", "--debug"]) == 0
    text = capsys.readouterr().out
    for option in (
        "nodes=2", "gpus-per-node=4", "cpus-per-task=12", "mem=0", "time=1-00:00:00", "partition=big", "account=us",
        "signal=B:TERM@120", "constraint=a100", "requeue", f"output={Path.cwd() / RUN}/logs/slurm-%j.log",
    ):  # fmt: skip
        assert f"#SBATCH --{option}\n" in text
    assert "\nmodule load cuda\n" in text
    assert f"\nset -- {SFT} -- --debug\n" in text
    assert sorted(Path().rglob("*")) == before


def test_the_number_of_gpus_stands_in_no_script(cluster, capsys):
    main(["submit", SFT, "--num_machines", "2", "--dry_run"])
    text = capsys.readouterr().out
    assert "gpus-per-node" not in text
    assert "--num_processes 8" not in text


def test_without_slurm_the_way_out_is_named(cluster, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["submit", SFT]) == LaunchError.code
    assert "sbatch: it is not found here" in capsys.readouterr().err


def test_what_is_missing_is_said_before_anything_waits_in_a_queue(cluster, capsys):
    (STUDY / "data/chats.jsonl").unlink()
    assert main(["submit", SFT]) == DataError.code
    assert main(["submit", str(STUDY), "--set", "seed=2"]) == RecipeError.code
    assert main(["submit", SFT, "--num_machines", "0"]) == RecipeError.code
    assert list(cluster.root.iterdir()) == []


# ------------------------------------------------------------------------------------------------ one stage


def test_every_machine_runs_the_command_with_its_place_after_the_doctor_has_looked(cluster, capsys):
    train_by("finish 0")
    [job] = submit(capsys, SFT, "--num_machines", "2", "--gpus", "3", "--set", "seed=5", "--signal_seconds", "77")
    assert cluster.wait(job) == "COMPLETED"
    port = 10000 + int(job) * 10 % 20000
    peers = f"--main_process_ip 127.0.0.1 --main_process_port {port} --machine_rank"
    assert sorted(said()[:2]) == [f"doctor {SFT} --num_machines 2 --num_gpus 3 {peers} {node}" for node in (0, 1)]
    own = f"train {SFT} --set seed=5 --num_processes 6 --num_machines 2 -- {peers}"
    assert sorted(said()[2:]) == [f"{own} {node} on {node} attempt 0 wait 77" for node in (0, 1)]
    assert "2 machine(s) from 127.0.0.1" in (RUN / f"logs/slurm-{job}.log").read_text()


def test_one_machine_needs_no_peers(cluster, capsys):
    train_by("finish 0")
    [job] = submit(capsys, SFT, "--gpus", "1")
    assert cluster.wait(job) == "COMPLETED"
    assert said()[1] == f"train {SFT} --num_processes 1 on 0 attempt 0 wait 300"


def test_a_machine_that_the_doctor_refuses_trains_nothing(cluster, capsys):
    Path("doctor").write_text("5")
    [job] = submit(capsys, SFT, "--gpus", "1")
    assert (cluster.wait(job), cluster.code(job)) == ("FAILED", LaunchError.code)
    assert all(line.startswith("doctor") for line in said())


def test_exit_code_75_puts_the_job_back_and_the_same_command_goes_on(cluster, capsys):
    train_by('if [ -z "$SLURM_RESTART_COUNT" ]; then finish 75; fi; finish 0')
    [job] = submit(capsys, SFT, "--gpus", "1")
    assert cluster.wait(job) == "COMPLETED"
    commands = [line.partition(" on ")[0] for line in said() if line.startswith("train")]
    assert len(commands) == 2
    assert commands[0] == commands[1]
    log = (RUN / f"logs/slurm-{job}.log").read_text()
    assert "attempt 1:" in log
    assert "attempt 2:" in log


@pytest.mark.slow
def test_requeues_end(cluster, capsys):
    train_by("finish 75")
    [job] = submit(capsys, SFT, "--gpus", "1", "--max_requeues", "1")
    assert (cluster.wait(job), cluster.code(job)) == ("FAILED", 75)
    assert sum(line.startswith("train") for line in said()) == 2


def test_the_code_is_the_one_that_the_run_folder_tells_not_the_highest(cluster, capsys):
    """Machine 1 lost its peer and ends with 134; machine 0 says that loss is not a number, which no requeue mends."""
    train_by('if [ "$SLURM_NODEID" = 1 ]; then sleep 0.3; exit 134; fi; finish 4')
    [job] = submit(capsys, SFT, "--num_machines", "2", "--gpus", "1")
    assert (cluster.wait(job), cluster.code(job)) == ("FAILED", 4)


def test_a_machine_that_is_lost_is_exit_code_5_and_is_not_requeued(cluster, capsys):
    train_by('if [ "$SLURM_NODEID" = 0 ]; then kill -9 $$; fi; sleep 9')
    [job] = submit(capsys, SFT, "--num_machines", "2", "--gpus", "1")
    assert (cluster.wait(job), cluster.code(job)) == ("FAILED", LaunchError.code)


def test_an_exit_json_of_an_earlier_attempt_is_not_read(tmp_path):
    (tmp_path / "exit.json").write_text('{"code": 75}')
    written = (tmp_path / "exit.json").stat().st_mtime
    assert find_code(tmp_path, 3, begun=written + 1) == 3
    assert find_code(tmp_path, 1, begun=written + 1) == LaunchError.code
    assert find_code(tmp_path, 1, begun=written - 1) == 75
    assert find_code(tmp_path, 0, begun=written - 1) == 0


def test_sigterm_ahead_of_the_limit_lets_every_machine_seal_and_the_job_goes_on(cluster, capsys):
    train_by(
        'if [ -n "$SLURM_RESTART_COUNT" ]; then finish 0; fi\n'
        'trap "sleep 0.$((8 - 7 * SLURM_NODEID)); touch sealed-$SLURM_NODEID; finish 75" TERM; touch ready-$SLURM_NODEID\n'
        "for n in $(seq 600); do sleep 0.1; done; exit 9"
    )
    [job] = submit(capsys, SFT, "--num_machines", "2", "--gpus", "1")
    for node in (0, 1):
        wait_for(Path(f"ready-{node}"))
    cluster.limit.touch()
    assert cluster.wait(job) == "COMPLETED"
    assert Path("sealed-0").exists()
    assert Path("sealed-1").exists()


# ------------------------------------------------------------------------------------------------ chains


def test_a_pipeline_is_a_chain_that_ends_with_its_results(cluster, capsys):
    train_by("exit 0")
    jobs = submit(
        capsys, str(STUDY), "--num_machines", "2", "--gpus", "2", "--accelerate_config", "zero3", "--push", "us"
    )
    assert [cluster.wait(job) for job in jobs] == ["COMPLETED"] * 4
    waits = [cluster.options(job).get("dependency") for job in jobs]
    assert waits == [None, *(f"afterok:{job}" for job in jobs[:3])]
    trained = [line.split(" on ")[0] for line in said() if line.startswith("train")]
    assert trained[0] == f"train {STUDY}/tokenizer.yaml --num_processes 1"  # one machine: it trains no weights
    assert [line.split()[1] for line in trained[1:]] == [
        str(STUDY / f"{name}.yaml") for name in ("pretrain", "pretrain", "sft", "sft")
    ]
    assert all("--accelerate_config zero3 --num_processes 4" in line for line in trained[1:])
    assert said()[-1] == f"run {STUDY} --push us"


def test_what_waits_for_a_stage_that_failed_does_not_run(cluster, capsys):
    train_by("exit 3")
    jobs = submit(capsys, str(STUDY))
    assert [cluster.wait(job) for job in jobs] == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]


def test_a_result_is_pushed_by_a_job_of_its_own(cluster, capsys):
    train_by("finish 0")
    jobs = submit(capsys, SFT, "--gpus", "1", "--push", "us")
    assert [cluster.wait(job) for job in jobs] == ["COMPLETED"] * 2
    assert said()[-1] == f"push {RUN} us/small-sft"
    assert "gpus-per-node" not in cluster.options(jobs[1])


# ------------------------------------------------------------------------------------------------ what is done already


@pytest.fixture
def finished(cluster) -> Path:
    """All three stages are done."""
    for name in ("tokenizer", "pretrain", "sft"):
        pretend_to_train(TrainRequest(STUDY / f"{name}.yaml"))
    return STUDY


def todo(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[list[str], list[str]]:
    """Jobs and run folders that would be set aside."""
    assert main(["submit", str(STUDY), "--dry_run", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    jobs = [line.rpartition("=")[2] for line in lines if line.startswith("#SBATCH --job-name")]
    return jobs, [line.rpartition("/")[2] for line in lines if line.startswith("would be set aside")]


def test_stages_that_are_done_are_not_submitted(finished, capsys):
    assert todo(capsys) == ([], [])
    assert todo(capsys, "--push", "us") == (["small-sft-results"], [])
    assert main(["submit", SFT]) == 0
    assert capsys.readouterr().out == f"done: {RUN}\n"


def test_a_stage_whose_parent_is_made_anew_is_made_anew_too(finished, capsys):
    """`alignment train` refuses to go on with a run whose parent has changed, and in a queue nobody could say --fresh."""
    (STUDY / "data/chats.jsonl").write_text('{"messages": [1]}\n')
    assert todo(capsys) == (["small-sft", "small-sft-results"], ["sft"])
    (STUDY / "data/text.jsonl").write_text('{"text": "b"}\n')
    names = ["tokenizer", "pretrain", "sft"]
    assert todo(capsys) == ([f"small-{name}" for name in names] + ["small-sft-results"], names)


def test_an_old_run_is_set_aside_before_the_job_is_submitted_and_no_job_says_fresh(finished, cluster, capsys):
    train_by("finish 0")
    [job] = submit(capsys, SFT, "--gpus", "1", "--fresh")
    assert cluster.wait(job) == "COMPLETED"
    assert Path("runs/small/sft.old-1/receipt.json").exists()
    assert "--fresh" not in " ".join(said())
