"""A loss or gradient that is not a number stops the run, names the rows and keeps the last good checkpoint (N1, N2, N3)."""

import json
import math

import fault_runs as runs
import pytest
from injected import Fault

from tests.ragged_rows import WORDS

SLOW = pytest.mark.slow


def check(study, out: str, what: str) -> dict:
    ended = runs.read_exit(study, out)
    assert ended["code"] == 4
    assert ended["reason"].startswith(f"step 3: {what}; expected a finite number. It read prepared rows ")
    assert runs.checkpoints(study, out) == ["checkpoint-2"]
    assert all(math.isfinite(loss) for loss in runs.losses(study, out))
    return json.loads((study / "runs" / out / "diverged.json").read_text())


@pytest.mark.parametrize("name", [name if name == "sft" else pytest.param(name, marks=SLOW) for name in runs.STAGES])
def test_a_loss_that_is_not_a_number_stops_with_the_rows_of_its_forward_pass(study, name) -> None:
    out = f"nan-{name}"
    keys = (
        ("train.logging_steps=2",) if name == "ppo" else ("train.logging_steps=5",)
    )  # long before a line would show it
    assert runs.train(study, name, out, *keys, fault=Fault("nan_loss", 3, micro=1)) == 4
    found = check(study, out, "loss is nan")
    assert [one["loss"] == "nan" for one in found["passes"]] == [False, True]
    assert len(found["passes"][1]["rows"]) == 2
    assert list(found["texts"]) == [str(row) for row in found["passes"][1]["rows"]]
    assert all(any(word in text for word in WORDS) for text in found["texts"].values())


def test_the_rows_are_those_that_were_read(study, monkeypatch) -> None:
    from alignment.data.prepare import load_prepared
    from alignment.train.guard import Guarded

    real, seen = Guarded.training_step, study / "seen"
    seen.mkdir()

    def training_step(self, model, inputs, *args, **kwargs):
        if self.state.global_step == 2:
            mask = inputs["attention_mask"].bool()
            ids = [row[kept].tolist() for row, kept in zip(inputs["input_ids"], mask, strict=True)]
            (seen / f"{self.args.process_index}.json").write_text(json.dumps(ids))
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(Guarded, "training_step", training_step)
    assert runs.train(study, "sft", "rows", fault=Fault("nan_loss", 3, rank=1), strategy="ddp") == 4
    passes = json.loads((study / "runs/rows/diverged.json").read_text())["passes"]
    assert [(one["rank"], one["loss"] == "nan") for one in passes] == [(0, False), (1, True)]
    [folder] = (study / "runs/prepared").glob("sft-*/")
    prepared = load_prepared(folder).train
    for one in passes:
        read = json.loads((seen / f"{one['rank']}.json").read_text())
        assert [prepared[row]["input_ids"] for row in one["rows"]] == read


@pytest.mark.parametrize("kind", ["inf_loss", "nan_gradient"])
@pytest.mark.parametrize("rank", [0, pytest.param(1, marks=SLOW)])
def test_infinity_and_gradients_of_one_rank_stop_all(study, kind, rank) -> None:
    out = f"{kind}-{rank}"
    fault = Fault(kind, 3, rank=rank)
    assert runs.train(study, "sft", out, "train.logging_steps=5", strategy="ddp", fault=fault) == 4
    check(study, out, "loss is inf" if kind == "inf_loss" else "grad_norm is nan")


@SLOW
@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
def test_it_is_so_under_every_strategy(study, strategy) -> None:
    out = f"nan-{strategy}"
    assert (
        runs.train(study, "sft", out, "train.logging_steps=5", strategy=strategy, fault=Fault("nan_loss", 3, rank=1))
        == 4
    )
    check(study, out, "loss is nan")


def test_the_same_command_goes_on_from_the_good_checkpoint(study, uninterrupted) -> None:
    assert runs.train(study, "sft-lora", "mended", fault=Fault("nan_gradient", 3)) == 4
    assert runs.train(study, "sft-lora", "mended") == 0
    assert runs.final_hash(study, "mended") == uninterrupted("sft-lora")


def test_a_loss_spike_is_said_or_ends_the_run_which_then_goes_on(study) -> None:
    """In the loss of all ranks, though one has it (N3)."""
    keys, fault = ("train.max_steps=14",), Fault("loss_spike", 12, rank=1)
    stop = "train.on_loss_spike=stop"
    assert runs.train(study, "sft", "spike", *keys, stop, strategy="ddp", fault=fault) == 4
    reason = runs.read_exit(study, "spike")["reason"]
    assert reason.startswith("step 12: alert loss_spike: loss is ")
    assert "the median of the 11 lines before" in reason
    assert sorted(runs.checkpoints(study, "spike")) == ["checkpoint-10", "checkpoint-8"]
    assert runs.train(study, "sft", "spike", *keys, strategy="ddp", fault=fault) == 0  # the same run with another rule
    notes = json.loads((study / "runs/spike/incidents.json").read_text())["notes"]
    assert [note.partition(": loss")[0] for note in notes] == ["step 12: alert loss_spike"]
    assert len(runs.losses(study, "spike")) == 14


def test_rows_without_anything_to_learn_are_refused_before_training(study) -> None:
    """Cut behind the prompt, no row has a label left (N5)."""
    assert runs.train(study, "sft", "masked", "data.max_length=5") == 3
    assert "0 rows" in runs.read_exit(study, "masked")["reason"]
    assert not (study / "runs/masked/metrics.jsonl").exists()


def test_flags_that_are_read_a_step_later_are_read_before_anything_is_saved(study, monkeypatch) -> None:
    """As on a GPU, where nothing waits for them."""
    from alignment.train.guard import Guard

    monkeypatch.setattr(Guard, "lag", 1)
    assert runs.train(study, "sft", "late", "train.logging_steps=5", fault=Fault("nan_loss", 4, micro=1)) == 4
    assert runs.read_exit(study, "late")["reason"].startswith("step 4: loss is nan")
    assert runs.checkpoints(study, "late") == ["checkpoint-2"]
    assert runs.train(study, "sft", "late-stop", "train.logging_steps=6", fault=Fault("term", 3)) == 75
    assert runs.checkpoints(study, "late-stop") == ["checkpoint-2", "checkpoint-4"]


def test_a_stop_does_not_seal_a_step_whose_own_flags_were_not_read(study, monkeypatch) -> None:
    """Asked to stop in step 3, which is read in step 4, whose loss is not a number."""
    from alignment.train.guard import Guard

    monkeypatch.setattr(Guard, "lag", 1)
    faults = (Fault("term", 3), Fault("nan_loss", 4))
    assert runs.train(study, "sft", "late-nan", "train.logging_steps=6", "train.save_steps=6", fault=faults) == 4
    assert runs.checkpoints(study, "late-nan") == []
