"""SLURM and Ray give the bytes of the local executor; what a task refuses is refused by the command."""

import sys
from pathlib import Path

import pytest
from dirty import all_bytes, write_rows, write_study

from alignment.cli import main
from alignment.curate import executor
from alignment.errors import DataError, LaunchError, RecipeError

sys.path.append(str(Path(__file__).parents[1] / "launch"))
from slurm_cluster import Cluster

EXECUTORS = {
    "slurm": ("--set", "curate.executor.kind=slurm", "--set", "curate.executor.time=10:00"),
    "ray": ("--set", "curate.executor.kind=ray"),
}
ONE_STEP = """stage: curate
data:
  train:
    - path: raw
      format: text
curate:
  steps:
    - normalize: {}
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(executor, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(executor, "_SETTLE_SECONDS", 0.5)
    return Cluster(tmp_path / "cluster", monkeypatch)


def write_small(folder: Path, rows: list[dict]) -> Path:
    write_rows(folder / "raw" / "a.jsonl", rows)
    (folder / "r.yaml").write_text(ONE_STEP)
    return folder / "r.yaml"


def test_one_segment_on_slurm_is_the_local_one_byte_for_byte(tmp_path, cluster):
    recipe = write_small(tmp_path, [{"id": f"{n}", "text": f"text {n}\x00"} for n in range(20)])
    assert main(["curate", str(recipe), "--out", str(tmp_path / "here")]) == 0
    assert main(["curate", str(recipe), "--out", str(tmp_path / "there"), *EXECUTORS["slurm"], "--set", "curate.executor.partition=cpu"]) == 0  # fmt: skip
    assert all_bytes(tmp_path / "there") == all_bytes(tmp_path / "here")
    [job] = cluster.root.iterdir()
    options = cluster.options(job.name)
    assert (options["partition"], options["time"], options["array"]) == ("cpu", "10:00", "0-0%1")
    assert "account" not in options


def test_what_a_slurm_task_refuses_is_refused_here_with_its_message(tmp_path, cluster, capsys):
    recipe = write_small(tmp_path, [])
    (tmp_path / "raw/a.jsonl").write_text("not json\n")
    assert main(["curate", str(recipe), "--out", str(tmp_path / "out")]) == DataError.code
    here = capsys.readouterr().err
    assert main(["curate", str(recipe), "--out", str(tmp_path / "there"), *EXECUTORS["slurm"]]) == DataError.code
    assert capsys.readouterr().err.endswith(here)  # what is logged before it is not on every terminal


def test_a_task_that_was_lost_is_named(tmp_path, cluster, capsys, monkeypatch):
    recipe = write_small(tmp_path, [{"text": "a"}])
    (tmp_path / "cluster/bin/srun").write_text("#!/bin/sh\nexit 9\n")
    assert main(["curate", str(recipe), "--out", str(tmp_path / "out"), *EXECUTORS["slurm"]]) == LaunchError.code
    assert "1 of 1 tasks did not end well, first task 0" in capsys.readouterr().err


def test_a_key_that_another_executor_reads_is_refused(tmp_path, capsys):
    recipe = write_small(tmp_path, [{"text": "a"}])
    for key, kind in (("partition=cpu", "local"), ("address=auto", "slurm"), ("time=1:00", "ray")):
        options = ["--set", f"curate.executor.kind={kind}", "--set", f"curate.executor.{key}"]
        assert main(["curate", str(recipe), "--out", str(tmp_path / "out"), *options]) == RecipeError.code
        assert f"'{key.partition('=')[0]}' is not read by kind: {kind}" in capsys.readouterr().err


def test_without_slurm_the_executor_is_refused(tmp_path, capsys, monkeypatch):
    recipe = write_small(tmp_path, [{"text": "a"}])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert main(["curate", str(recipe), "--out", str(tmp_path / "out"), *EXECUTORS["slurm"]]) == LaunchError.code
    assert "sbatch is not found here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("tasks", ["auto", "2"])
def test_all_steps_on_slurm_give_the_bytes_of_the_local_executor(tmp_path, cluster, tasks):
    write_study(tmp_path, files=3)
    assert main(["curate", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "here")]) == 0
    options = [*EXECUTORS["slurm"], "--set", f"curate.executor.tasks={tasks}"]
    assert main(["curate", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "there"), *options]) == 0
    assert all_bytes(tmp_path / "there") == all_bytes(tmp_path / "here")
    assert len(list(cluster.root.iterdir())) == 3  # one array job a segment


@pytest.mark.slow
def test_a_job_that_a_killed_command_left_at_work_is_waited_for(tmp_path, cluster, monkeypatch):
    recipe = write_small(tmp_path, [{"id": f"{n}", "text": f"text {n}"} for n in range(20)])
    monkeypatch.setattr(executor, "_wait_for_job", lambda job: (_ for _ in ()).throw(SystemExit(9)))
    with pytest.raises(SystemExit):
        main(["curate", str(recipe), "--out", str(tmp_path / "out"), *EXECUTORS["slurm"]])
    monkeypatch.undo()
    monkeypatch.setattr(executor, "_POLL_SECONDS", 0.05)
    again = Cluster(tmp_path / "other", monkeypatch)
    monkeypatch.setenv("FAKE_SLURM", str(cluster.root))
    assert main(["curate", str(recipe), "--out", str(tmp_path / "out"), *EXECUTORS["slurm"]]) == 0
    assert len(list(cluster.root.iterdir())) == 1
    assert list(again.root.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("tasks", ["auto", "2"])
def test_a_ray_cluster_gives_the_bytes_of_the_local_executor(tmp_path, tasks):
    pytest.importorskip("ray")
    write_study(tmp_path, files=3)
    assert main(["curate", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "here")]) == 0
    options = [*EXECUTORS["ray"], "--set", f"curate.executor.tasks={tasks}"]
    assert main(["curate", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "there"), *options]) == 0
    assert all_bytes(tmp_path / "there") == all_bytes(tmp_path / "here")


@pytest.mark.slow
def test_what_a_ray_task_refuses_is_refused_here_with_its_message(tmp_path, capsys):
    pytest.importorskip("ray")
    recipe = write_small(tmp_path, [])
    (tmp_path / "raw/a.jsonl").write_text("not json\n")
    assert main(["curate", str(recipe), "--out", str(tmp_path / "out"), *EXECUTORS["ray"]]) == DataError.code
    assert "a.jsonl" in capsys.readouterr().err
