"""Results in the two forms that the Hub reads, and the energy that a run took at most."""

import json
from pathlib import Path

import pytest
from huggingface_hub import EvalResultEntry, ModelCard
from study_on_disk import write_run

from alignment.report.card import make_eval_results, write_card
from alignment.report.energy import estimate_energy
from alignment.report.run_files import read_run


def add_held_out(run: Path, *sources: dict) -> None:
    manifest = json.loads((run / "data_manifest.json").read_text())
    manifest["sources"] = list(sources)
    (run / "data_manifest.json").write_text(json.dumps(manifest))


def test_the_metrics_are_in_the_front_matter_and_are_read_back(tmp_path: Path) -> None:
    write_run(tmp_path / "study" / "dpo", "dpo")
    results = ModelCard.load(write_card(tmp_path / "study" / "dpo")).data.eval_results
    assert {result.metric_name: result.metric_value for result in results} == {
        "exact_match": 0.861, "stops": 0.998, "invented": 0.083, "honesty": 0.889, "kl": 3.42,
    }  # fmt: skip
    assert {result.dataset_type for result in results} == {"held-out-rows"}


def test_results_on_a_dataset_of_the_hub_name_it_and_its_revision(tmp_path: Path) -> None:
    run = tmp_path / "study" / "sft"
    write_run(run, "sft")
    add_held_out(run, {"split": "eval", "path": "org/rows", "revision": "abc", "content_hash": "x"})
    results = ModelCard.load(write_card(run)).data.eval_results
    assert {(result.dataset_type, result.dataset_revision) for result in results} == {("org/rows", "abc")}
    (entries,) = make_eval_results(read_run(run)).values()
    assert all(isinstance(entry, EvalResultEntry) for entry in entries)
    first = entries[0]
    assert (first.dataset_id, first.task_id, first.value, first.dataset_revision) == (
        "org/rows",
        "exact_match",
        0.882,
        "abc",
    )
    assert first.notes == "held-out rows of the recipe; standard error 0.0123"


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [{"split": "eval", "path": "data/own.jsonl", "revision": None, "content_hash": "x"}],
        [{"split": "eval", "path": name, "revision": "a", "content_hash": "x"} for name in ("org/a", "org/b")],
    ],
)
def test_rows_that_are_no_one_dataset_of_the_hub_make_no_entry(tmp_path: Path, sources: list[dict]) -> None:
    run = tmp_path / "study" / "sft"
    write_run(run, "sft")
    add_held_out(run, *sources)
    assert make_eval_results(read_run(run)) == {}


def test_energy_is_power_times_time_of_all_processes() -> None:
    receipt = {"hardware": {"gpus": ["NVIDIA L4"] * 8}, "world_size": 16, "seconds": {"train": 1.0, "total": 7200.0}}
    assert estimate_energy(receipt).startswith("at most 2.3 kWh (16 x 72 W")  # 16 x 72 W x 2 h = 2.304 kWh


@pytest.mark.parametrize("gpus", [[], ["Unheard Of"], ["NVIDIA L4", "Tesla T4"]])
def test_no_energy_is_said_where_the_power_is_not_known(gpus: list[str]) -> None:
    assert estimate_energy({"hardware": {"gpus": gpus}, "seconds": {"total": 10.0}}) == ""
