"""Whole commands: finished runs, stages without steps, pipelines, and the launchers of others (F3, F7, F8, F10, F11)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fault_runs as runs
import pytest
from injected import Fault

from alignment.launch.configs import find_config
from alignment.launch.request import TrainRequest
from alignment.launch.start import launch_processes
from alignment.recipe.loader import load_recipe

SLOW = pytest.mark.slow
EVALUATE = """stage: evaluate
model:
  path: runs/faults/pretrain/final
data:
  eval:
    - path: text.jsonl
      format: text
evaluate:
  metrics:
    - bits_per_byte
"""


def snapshot(run_dir: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file but the lock."""
    return {
        str(path.relative_to(run_dir)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in run_dir.rglob("*")
        if path.is_file() and not path.name.startswith(".lock")
    }


@pytest.mark.parametrize("name", ["tokenizer", "evaluate", *(pytest.param(name, marks=SLOW) for name in runs.STAGES)])
def test_a_finished_run_is_left_as_it_is_to_the_last_file(study, name) -> None:
    (study / "recipes/faults/evaluate.yaml").write_text(EVALUATE)
    out = f"done-{name}"
    assert runs.train(study, name, out, whole=True) == 0
    before = snapshot(study / "runs" / out)
    assert {"receipt.json", "exit.json"} <= before.keys()
    assert runs.train(study, name, out, whole=True) == 0
    assert snapshot(study / "runs" / out) == before


def test_another_recipe_on_a_checkpoint_is_refused_with_the_difference(study) -> None:
    from alignment.errors import RecipeError

    assert runs.train(study, "sft", "changed", fault=Fault("term", 3)) == 75
    with pytest.raises(RecipeError, match=r"train.max_steps: 6 there, 9 here"):
        runs.train(study, "sft", "changed", "train.max_steps=9")
    assert runs.checkpoints(study, "changed") == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize("name", ["tokenizer", "evaluate"])
def test_a_stage_without_steps_is_stopped_and_begun_again(study, name, monkeypatch) -> None:
    import importlib

    (study / "recipes/faults/evaluate.yaml").write_text(EVALUATE)
    module = importlib.import_module(f"alignment.train.stages.{name}")
    real = module.load_prepared

    def stopped(folder):
        signal.raise_signal(signal.SIGTERM)
        return real(folder)

    out = f"stopped-{name}"
    monkeypatch.setattr(module, "load_prepared", stopped)
    assert runs.train(study, name, out) == 75
    assert "stopped by SIGTERM outside of the training steps" in runs.read_exit(study, out)["reason"]
    monkeypatch.setattr(module, "load_prepared", real)
    assert runs.train(study, name, out, whole=True) == 0


def test_a_pipeline_ends_with_75_and_goes_on(study, monkeypatch, tmp_path) -> None:
    from alignment.launch import pipeline

    monkeypatch.chdir(study)
    folder = study / "recipes/chain"
    folder.mkdir()
    for name in ("sft", "reward"):
        text = (
            runs.RECIPES[name]
            .replace("path: chats", "path: ../faults/chats")
            .replace("path: pairs", "path: ../faults/pairs")
        )
        (folder / f"{name}.yaml").write_text(text)
    (folder / "pipeline.yaml").write_text("stages:\n  - sft.yaml\n  - reward.yaml\n")
    fault = Fault("term", 3, once=tmp_path / "stopped")
    monkeypatch.setattr(pipeline, "has_gpu", lambda: False)
    monkeypatch.setattr(pipeline, "run_worker", lambda request: runs.work(study, request, fault, whole=False))
    outcome = pipeline.run_pipeline(folder, TrainRequest(folder))
    assert outcome.code == 75
    assert not (study / "runs/chain/reward").exists()
    assert json.loads((study / "runs/chain/sft/exit.json").read_text())["code"] == 75


# ------------------------------------------------------------------------------------------------ accelerate launch


def start_accelerate(study: Path, out: str, *overrides: str) -> subprocess.Popen:
    """`accelerate launch` by a user: nobody of ours stands above it."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(runs.CONFIGS / "ddp.yaml")]
    command += ["--num_processes", "2", "-m", "alignment", "train", "recipes/faults/sft.yaml", "--out", f"runs/{out}"]
    for override in overrides:
        command += ["--set", override]
    return subprocess.Popen(command, cwd=study, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, start_new_session=True)


LONG = ("train.max_steps=4000", "train.save_steps=4000", "train.logging_steps=1")


def wait_for_steps(study: Path, out: str, seconds: float = 90.0) -> None:
    path, until = study / "runs" / out / "metrics.jsonl", time.monotonic() + seconds
    while time.monotonic() < until:
        if path.is_file() and path.read_text().count("\n") > 3:
            return
        time.sleep(0.2)
    pytest.fail("no steps")


@SLOW
def test_a_stop_of_accelerates_launcher_is_sealed_and_written_to_exit_json(study) -> None:
    process = start_accelerate(study, "accelerate", *LONG)
    wait_for_steps(study, "accelerate")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    ended = runs.read_exit(study, "accelerate")
    assert ended["code"] == 75
    [name] = runs.checkpoints(study, "accelerate")
    assert f"{name} is sealed" in ended["reason"]


@SLOW
def test_a_hang_under_accelerates_launcher_is_found_by_the_ranks_themselves(study) -> None:
    process = start_accelerate(study, "accelerate-hung", *LONG, "train.hang_timeout=3")
    wait_for_steps(study, "accelerate-hung")
    pid = json.loads((study / "runs/accelerate-hung/logs/heartbeat-1.json").read_text())["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert process.wait(60) != 0
    ended = runs.read_exit(study, "accelerate-hung")
    assert (ended["code"], "rank 1 is stopped (SIGSTOP)" in ended["reason"]) == (5, True)
    assert (study / "runs/accelerate-hung/logs/rank0.stacks").stat().st_size > 0


@SLOW
@pytest.mark.parametrize("kind", ["hang", "kill", "term"])
def test_our_launcher_above_accelerates_has_the_real_exit_code(study, monkeypatch, kind) -> None:
    """What `alignment train` does on GPUs, here on CPU ranks."""
    from alignment.launch import start

    monkeypatch.chdir(study)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(start, "_check_gpus", lambda *_: None)
    out = f"above-{kind}"
    overrides = (*LONG, "train.hang_timeout=3")
    recipe_path = Path("recipes/faults/sft.yaml")
    request = TrainRequest(recipe_path, overrides=overrides, out=Path(f"runs/{out}"), num_processes=2)
    helper = os.fork()
    if helper == 0:
        try:
            wait_for_steps(study, out)
            pid = json.loads((study / f"runs/{out}/logs/heartbeat-1.json").read_text())["pid"]
            number = {"hang": signal.SIGSTOP, "kill": signal.SIGKILL, "term": signal.SIGTERM}[kind]
            os.kill(os.getppid() if kind == "term" else pid, number)
        finally:
            os._exit(0)
    code = launch_processes(
        request, load_recipe(recipe_path, overrides), find_config(str(runs.CONFIGS / "ddp.yaml"), recipe_path)
    )
    os.waitpid(helper, 0)
    assert code == {"hang": 5, "kill": 5, "term": 75}[kind]
    ended = runs.read_exit(study, out)
    assert ended["code"] == code
    assert ("rank 1" in ended["reason"]) == (kind != "term")
