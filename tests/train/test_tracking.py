"""Trackers write what they are given, at the global step; read back from their own files."""

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.errors import LaunchError, RecipeError
from alignment.train.tracking import open_tracker

SCRIPT = """
import sys
from pathlib import Path
from alignment.train.tracking import open_tracker
tracker = open_tracker(sys.argv[1], Path(sys.argv[2]), "study/sft")
tracker.log({"loss": 2.5, "rewards/margins": 0.25, "note": "not a number"}, 10)
tracker.log({"loss": 1.5}, 30)
tracker.finish()
"""


def track(name: str, run_dir: Path, **environment: str) -> subprocess.CompletedProcess:
    """A process of its own, as each run is: trackio settles its folder at import."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("TRACKIO", "WANDB"))}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, name, str(run_dir)],
        env=clean | {"HF_HUB_OFFLINE": "1"} | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def read_trackio(folder: Path) -> list[tuple[str, int, dict]]:
    with sqlite3.connect(folder / "study.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    return [(name, step, json.loads(metrics)) for name, step, metrics in rows]


def test_trackio_keeps_global_steps_in_the_run_folder_offline(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    done = track("trackio", tmp_path / "run")
    rows = read_trackio(tmp_path / "run" / "trackio")
    assert [(step, metrics) for _, step, metrics in rows] == [
        (10, {"loss": 2.5, "rewards/margins": 0.25}),
        (30, {"loss": 1.5}),
    ]
    assert re.fullmatch(r"sft-[0-9a-f]{6}", rows[0][0])
    assert done.stdout == ""


def test_a_resumed_run_is_a_run_of_its_own_so_that_curves_do_not_double(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    track("trackio", tmp_path / "run")
    track("trackio", tmp_path / "run")
    assert len({name for name, *_ in read_trackio(tmp_path / "run" / "trackio")}) == 2


def test_a_trackio_folder_that_the_user_has_set_is_used(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    track("trackio", tmp_path / "run", TRACKIO_DIR=str(tmp_path / "mine"))
    assert len(read_trackio(tmp_path / "mine")) == 2
    assert not (tmp_path / "run" / "trackio").exists()


def test_a_second_trackio_folder_in_one_process_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    two = SCRIPT + "open_tracker('trackio', Path(sys.argv[2]) / 'other', 'study/dpo')"
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TRACKIO")}
    done = subprocess.run(
        [sys.executable, "-c", two, "trackio", str(tmp_path)],
        env=clean | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "already writes to" in done.stderr


def test_tensorboard_event_file_holds_the_steps(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = open_tracker("tensorboard", tmp_path, "study/sft")
    tracker.log({"loss": 2.5, "eval_loss": 2.75, "note": "not a number"}, 10)
    tracker.log({"loss": 1.5}, 30)
    tracker.finish()
    (folder,) = (tmp_path / "tensorboard").iterdir()
    events = accumulator.EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 2.5), (30, 1.5)]
    assert [(event.step, event.value) for event in events.Scalars("eval_loss")] == [(10, 2.75)]
    assert events.Tags()["scalars"] == ["loss", "eval_loss"]


def test_wandb_runs_offline_in_the_run_folder(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    (tmp_path / "run").mkdir()
    track("wandb", tmp_path / "run", WANDB_MODE="offline")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))


@pytest.mark.parametrize(
    ("name", "missing", "command"),
    [
        ("wandb", "wandb", "pip install wandb"),
        ("trackio", "trackio", "pip install trackio"),
        ("tensorboard", "tensorboard", "pip install tensorboard"),
    ],
)
def test_a_missing_library_is_named_with_its_pip_command(
    name: str, missing: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [module for module in sys.modules if module.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(LaunchError, match=command):
        open_tracker(name, tmp_path, "study/sft")


def test_an_unknown_tracker_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="trackio, tensorboard, wandb"):
        open_tracker("mlflow", tmp_path, "study/sft")
