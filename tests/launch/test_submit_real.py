"""Two machines that really train: doctor, accelerate's launcher on each, SIGTERM ahead of the time limit, requeue, resume."""

import json
import sys
import time
from pathlib import Path

import pytest
from slurm_cluster import Cluster

from alignment.cli import main

sys.path.append(str(Path(__file__).parents[1] / "train"))
import study

STEPS = 200
PIPELINE = "stages:\n  - tokenizer.yaml\n  - pretrain.yaml\n"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.chdir(tmp_path)
    study.write_study(tmp_path)
    text = study.PRETRAIN.replace("max_steps: 12", f"max_steps: {STEPS}").replace(
        "train_batch_size: 4", "train_batch_size: 2"
    )
    study.write_recipe(tmp_path, "pretrain", text)
    (tmp_path / "study/pipeline.yaml").write_text(PIPELINE)
    return Cluster(tmp_path / "cluster", monkeypatch)


def has_steps(run_dir: Path, number: int) -> bool:
    path = run_dir / "metrics.jsonl"
    return path.exists() and len(path.read_text().splitlines()) >= number


@pytest.mark.slow
@pytest.mark.parametrize("config", ["ddp", "fsdp2"])
def test_two_machines_stopped_ahead_of_the_limit_end_with_the_losses_of_one_process(cluster, capsys, config):
    assert main(["submit", "study", "--num_machines", "2", "--accelerate_config", config]) == 0
    jobs = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    run_dir, log = Path("runs/study/pretrain"), Path(f"runs/study/pretrain/logs/slurm-{jobs[1]}.log")
    until = time.monotonic() + 200
    while not has_steps(run_dir, 5):
        assert time.monotonic() < until, log.read_text() if log.exists() else "the job did not begin"
        time.sleep(0.02)
    cluster.limit.touch()
    states = [cluster.wait(job, 300) for job in jobs]
    text = log.read_text()
    assert states == ["COMPLETED"] * 3, text
    assert f"exit code 75: job {jobs[1]} goes back into the queue" in text, text
    assert text.count("attempt") == 2, text
    assert "all-reduce    gloo, 2 processes" in text
    assert "seconds/pretrain" in json.loads(Path("runs/study/results.json").read_text())

    assert main(["train", "study/pretrain.yaml", "--out", "runs/study/alone"]) == 0
    alone, together = study.read_losses(Path("runs/study/alone")), study.read_losses(run_dir)
    assert len(alone) == STEPS
    assert together == pytest.approx(alone, abs=1e-5)
