"""Disks that are full or not to be written, and files that colleagues can read (S1, S6)."""

import os
import shutil
from collections import namedtuple

import fault_runs as runs
import pytest
from injected import Fault

from alignment.errors import ArtifactError, LaunchError
from alignment.train import guard, trial

Usage = namedtuple("Usage", "total used free")


def test_a_disk_that_fills_in_a_save_leaves_the_last_good_checkpoint(study, uninterrupted) -> None:
    fault = Fault("disk", 4, where="save")
    assert runs.train(study, "sft-lora", "full", fault=fault) == 5
    assert "the disk is full" in runs.read_exit(study, "full")["reason"]
    assert runs.checkpoints(study, "full") == ["checkpoint-2"]  # the part that was written made room again
    assert runs.train(study, "sft-lora", "full") == 0
    assert runs.final_hash(study, "full") == uninterrupted("sft-lora")


def test_a_disk_that_is_found_full_when_a_checkpoint_is_sealed_is_said(study) -> None:
    """A network's disk, or a quota, may only say so when files are made to reach it."""
    assert runs.train(study, "sft", "full-seal", fault=Fault("disk", 4, where="seal")) == 5
    assert "the disk is full" in runs.read_exit(study, "full-seal")["reason"]
    assert runs.checkpoints(study, "full-seal") == ["checkpoint-2"]


def test_room_is_looked_for_before_a_save(study, monkeypatch) -> None:
    """The disk gets full while the run is at work: the second save is not begun."""
    real = shutil.disk_usage

    def usage(path):
        return Usage(1, 1, 1000) if (study / "runs/no-room/checkpoints/checkpoint-2/seal.json").exists() else real(path)

    monkeypatch.setattr(guard.shutil, "disk_usage", usage)
    assert runs.train(study, "sft", "no-room") == 5
    assert "room for one more checkpoint was expected" in runs.read_exit(study, "no-room")["reason"]
    assert runs.checkpoints(study, "no-room") == ["checkpoint-2"]


def test_room_for_the_whole_run_is_looked_for_before_step_1(study, monkeypatch) -> None:
    monkeypatch.setattr(trial.shutil, "disk_usage", lambda path: Usage(1, 1, 100_000))
    assert runs.train(study, "sft", "too-small") == 5
    assert "checkpoints and result take about" in runs.read_exit(study, "too-small")["reason"]
    assert not (study / "runs/too-small/metrics.jsonl").exists()


def test_what_cannot_be_saved_is_found_before_step_1(study, monkeypatch) -> None:
    from alignment.train import artifacts

    real = artifacts._save_whole

    def spoil(model, folder, training, policy, state) -> None:
        name = next(name for name in state if "q_proj" in name)
        real(model, folder, training, policy, dict(state) | {name: state[name] + 0.5})

    monkeypatch.setattr(artifacts, "_save_whole", spoil)
    assert runs.train(study, "sft", "spoilt") == ArtifactError.code
    assert "before step 1 the weights were written and read back" in runs.read_exit(study, "spoilt")["reason"]
    assert not (study / "runs/spoilt/metrics.jsonl").exists()
    assert not (study / "runs/spoilt/trial").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything(study, monkeypatch) -> None:
    """As root every folder can be written, so the system call is what refuses."""
    from alignment.train.run_folder import locked

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("alignment.train.run_folder.FileLock.acquire", refuse)
    with (
        pytest.raises(LaunchError, match="Permission denied; a folder to write to was expected"),
        locked(study / "runs/read-only"),
    ):
        pass


def test_files_follow_the_umask(study) -> None:
    before = os.umask(0o027)
    try:
        assert runs.train(study, "sft", "modes") == 0
    finally:
        os.umask(before)
    for path in (study / "runs/modes/checkpoints").rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o777 == 0o640, path


def test_no_pickled_arguments_are_left(study) -> None:
    assert not list((study / "runs").rglob("training_args.bin"))


def test_prepared_rows_that_were_cut_are_named_with_how_to_make_them_again(study) -> None:
    assert runs.train(study, "sft", "cut", fault=Fault("term", 3)) == 75
    [path] = (study / "runs/prepared").glob("sft-*/train.arrow")
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    try:
        assert runs.train(study, "sft", "cut") == 3
    finally:
        path.write_bytes(whole)
    reason = runs.read_exit(study, "cut")["reason"]
    assert f"train.arrow: found {len(whole) - 200} bytes; {len(whole)} were written. Delete " in reason
    assert runs.train(study, "sft", "cut") == 0
