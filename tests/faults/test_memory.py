"""Out of memory: a smaller micro-batch, the same global batch, the same losses (N4)."""

import json

import fault_runs as runs
import pytest
from injected import Fault

from alignment.train.memory import is_out_of_memory


def read_notes(study, out: str) -> list[str]:
    return json.loads((study / "runs" / out / "incidents.json").read_text())["notes"]


def test_the_micro_batch_is_halved_and_the_losses_stay(study, caplog) -> None:
    assert runs.train(study, "sft", "fits") == 0
    keys = ("train.per_device_train_batch_size=4",)
    assert runs.train(study, "sft", "halved", *keys, fault=Fault("memory", 3, fits=1)) == 0
    assert runs.losses(study, "halved") == pytest.approx(runs.losses(study, "fits"), abs=1e-5)
    first, second = read_notes(study, "halved")
    assert first == (
        "Memory ran out with 4 rows in a forward pass of one process; 2 are taken since, with 2 passes a step. "
        "The global batch is still 4."
    )
    assert second.startswith(
        "Memory ran out with 2 rows in a forward pass of one process; 1 are taken since, with 4 passes"
    )
    # From the last seal: the second half began at step 3.
    seals = [json.loads(path.read_text()) for path in sorted((study / "runs/halved/checkpoints").rglob("seal.json"))]
    assert [one["per_device_train_batch_size"] for one in seals] == [1, 1]


def test_ranks_of_which_one_has_no_memory_shrink_together(study, caplog) -> None:
    assert runs.train(study, "sft", "two", strategy="ddp") == 0
    assert runs.train(study, "sft", "one-full", strategy="ddp", fault=Fault("memory", 3, rank=1, fits=1)) == 0
    assert runs.losses(study, "one-full") == pytest.approx(runs.losses(study, "two"), abs=1e-5)
    assert "started again: Memory ran out with 2 rows" in caplog.text
    assert len(read_notes(study, "one-full")) == 1


def test_one_row_that_does_not_fit_is_said_with_what_to_do(study) -> None:
    assert runs.train(study, "sft", "none-fits", fault=Fault("memory", 1, fits=0)) == 5
    reason = runs.read_exit(study, "none-fits")["reason"]
    assert "memory ran out with 1 row(s) in a forward pass, which cannot be fewer. Lower data.max_length" in reason


@pytest.mark.slow
def test_ppo_shrinks_as_well(study) -> None:
    assert runs.train(study, "ppo", "ppo-fits") == 0
    assert runs.train(study, "ppo", "ppo-halved", fault=Fault("memory", 3, fits=1)) == 0
    assert runs.losses(study, "ppo-halved") == pytest.approx(runs.losses(study, "ppo-fits"), abs=1e-4)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_memory(error, expected) -> None:
    assert is_out_of_memory(error) is expected
