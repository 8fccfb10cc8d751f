"""What ranks and launchers take from files in the run folder: words of their own launch, and sizes that shrank."""

from types import SimpleNamespace

import pytest

from alignment.errors import LaunchError
from alignment.launch import worker
from alignment.launch.environment import LaunchEnvironment
from alignment.launch.restarts import supervise
from alignment.recipe.loader import load_recipe
from alignment.train.incidents import add_incident
from alignment.train.memory import EVALUATION, shrinking

RECIPE = """stage: sft
model:
  path: start
chat:
  template: chatml
data:
  train:
    - path: rows.jsonl
      format: messages
train:
  max_steps: 2
  learning_rate: 1.0e-3
  global_batch_size: 4
"""


@pytest.fixture
def two_ranks(monkeypatch) -> None:
    """As accelerate's launcher sets them: the same at every launch."""
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(worker, "WAIT_SECONDS", 0.3)


def test_a_rank_obeys_its_own_launch_and_no_earlier_one(two_ranks, tmp_path, monkeypatch) -> None:
    ranks = [LaunchEnvironment(rank=rank, world_size=2) for rank in (0, 1)]
    monkeypatch.setattr(worker.os, "getppid", lambda: 100)
    worker._say_verdict(tmp_path, ranks[0], "done")
    assert worker._wait_for_verdict(tmp_path, ranks[1]) == "done"
    monkeypatch.setattr(worker.os, "getppid", lambda: 200)
    with pytest.raises(LaunchError, match="rank 1 waited"):
        worker._wait_for_verdict(tmp_path, ranks[1])
    worker._say_verdict(tmp_path, ranks[0], "new")
    assert worker._wait_for_verdict(tmp_path, ranks[1]) == "new"


def test_a_note_of_another_kind_starts_nothing_again(tmp_path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe, attempts = load_recipe(tmp_path / "r.yaml", ()), []

    def attempt(watch) -> int:
        attempts.append(watch)
        add_incident(tmp_path, "step 3: alert loss_spike: loss is 9")
        return LaunchError.code

    code = supervise(attempt, recipe=recipe, run_dir=tmp_path, command="alignment train r.yaml", lost_codes=(137,))
    assert (code, len(attempts)) == (LaunchError.code, 1)


def test_what_did_not_fit_is_started_again_with_half_of_it(tmp_path) -> None:
    (tmp_path / "r.yaml").write_text(RECIPE)
    recipe, codes = load_recipe(tmp_path / "r.yaml", ()), [LaunchError.code, 0]

    def attempt(watch) -> int:
        if len(codes) == 2:
            with pytest.raises(LaunchError), shrinking(EVALUATION, 8, SimpleNamespace(run_dir=tmp_path)):
                raise MemoryError
        return codes.pop(0)

    assert supervise(attempt, recipe=recipe, run_dir=tmp_path, command="", lost_codes=(137,)) == 0
    assert not codes
