"""A hung rank is found and named, a lost one is named, and both are started again where the recipe allows it (F7, F8)."""

import json
import time

import fault_runs as runs
import pytest
from injected import Fault


def test_a_rank_that_stands_still_is_named_with_the_stacks_of_all(study, caplog) -> None:
    begun = time.monotonic()
    fault = Fault("hang", 3, rank=1)
    assert runs.train(study, "sft", "hung", "train.hang_timeout=3", strategy="ddp", fault=fault) == 5
    assert time.monotonic() - begun < 15
    reason = runs.read_exit(study, "hung")["reason"]
    assert "rank 1 is stopped (SIGSTOP) in step 3" in reason
    assert reason in caplog.text
    logs = study / "runs/hung/logs"
    assert "_run_epoch" in (logs / "rank0.stacks").read_text()  # it waits for the other in the step
    assert "training_step" in (logs / "rank1.stacks").read_text()


def test_a_process_that_nobody_watches_watches_itself(study) -> None:
    """One process without a launcher of ours, whose main thread waits for something that does not come."""
    from alignment.train.guard import Guarded

    real = Guarded.training_step

    def wait(self, *args, **kwargs):
        if self.state.global_step == 2:
            time.sleep(60)
        return real(self, *args, **kwargs)

    Guarded.training_step = wait
    try:
        assert runs.train_alone(study, "sft", "alone", "train.hang_timeout=1") == 5
    finally:
        Guarded.training_step = real
    assert "rank 0 made no progress for" in runs.read_exit(study, "alone")["reason"]
    assert "in wait" in (study / "runs/alone/logs/rank0.stacks").read_text()


@pytest.mark.slow
def test_a_hung_rank_is_started_again_where_the_recipe_allows_it(study, uninterrupted, tmp_path) -> None:
    fault = Fault("hang", 4, rank=1, once=tmp_path / "hung")
    keys = ("train.hang_timeout=3", "train.max_restarts=1")
    assert runs.train(study, "sft-lora", "again", *keys, strategy="ddp", fault=fault) == 0
    assert runs.final_hash(study, "again") == uninterrupted("sft-lora", "ddp")
    [note] = json.loads((study / "runs/again/incidents.json").read_text())["notes"]
    assert note.startswith("Restart 1 of 1: rank 1 is stopped")


def test_a_lost_rank_is_named_and_the_restarts_are_counted(study, caplog) -> None:
    fault = Fault("kill", 3, rank=1)
    assert runs.train(study, "sft", "lost", "train.max_restarts=1", strategy="ddp", fault=fault) == 5
    assert caplog.text.count("rank 1 ended with SIGKILL") == 2
    assert "restart 1 of 1, from the last checkpoint" in caplog.text
    ended = runs.read_exit(study, "lost")
    assert ended["code"] == 5
    assert "rank 1 (in step 3) did not come to an end" in ended["reason"]


def test_a_lost_rank_that_is_started_again_ends_in_the_same_weights(study, uninterrupted, tmp_path) -> None:
    fault = Fault("kill", 4, rank=1, once=tmp_path / "killed")
    assert runs.train(study, "sft-lora", "back", "train.max_restarts=2", strategy="ddp", fault=fault) == 0
    assert runs.final_hash(study, "back") == uninterrupted("sft-lora", "ddp")


def test_one_process_is_started_again_too(study, uninterrupted, tmp_path) -> None:
    fault = Fault("kill", 4, once=tmp_path / "killed")
    assert runs.train(study, "sft-lora", "single", "train.max_restarts=1", fault=fault) == 0
    assert runs.final_hash(study, "single") == uninterrupted("sft-lora")


@pytest.mark.parametrize("kind", ["nan_loss", "term"])
def test_what_is_no_loss_of_a_rank_is_not_started_again(study, kind) -> None:
    out = f"kept-{kind}"
    code = runs.train(study, "sft", out, "train.max_restarts=3", fault=Fault(kind, 3))
    assert code == {"nan_loss": 4, "term": 75}[kind]
    assert not (study / "runs" / out / "incidents.json").exists()


def test_how_a_run_is_watched_over_may_change_between_two_commands(study) -> None:
    """After a hang that was none one gives it more time, and goes on."""
    assert runs.train(study, "sft", "more-time", fault=Fault("term", 3)) == 75
    assert runs.train(study, "sft", "more-time", "train.hang_timeout=99", "train.max_restarts=1") == 0
