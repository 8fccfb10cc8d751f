"""`alignment run`: the order, what is skipped, what is made anew and why, and where it stops."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_study import STUDY, pretend_to_train, read_trained, write_study

from alignment.commands.run import print_summary
from alignment.errors import DataError, DivergedError, RecipeError
from alignment.launch import pipeline, ranks, start
from alignment.launch.pipeline import Outcome, run_pipeline
from alignment.launch.request import TrainRequest
from alignment.launch.results import summarise
from alignment.train.run_folder import write_exit


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a study whose stages are only pretended; the processes are real."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "has_gpu", lambda: False)
    monkeypatch.setattr(pipeline, "num_threads", lambda _: 1)
    monkeypatch.setattr(pipeline, "run_worker", pretend_to_train)
    monkeypatch.setattr(start, "run_worker", pretend_to_train)
    load = ranks.preload
    monkeypatch.setattr(ranks, "preload", lambda stages=(): load())
    return write_study(tmp_path)


def run(**options) -> Outcome:
    return run_pipeline(STUDY, TrainRequest(STUDY, **options))


def changed_since(before: list[str]) -> list[str]:
    return read_trained()[len(before) :]


# ------------------------------------------------------------------------------------------------ what runs


def test_stages_run_in_order_and_their_metrics_are_one_flat_file(study):
    assert run().code == 0
    assert read_trained() == ["tokenizer new on 1", "pretrain new on 1", "sft new on 1"]
    assert json.loads(Path("runs/small/results.json").read_text()) == {
        "tokenizer/bytes_per_token": 3.5,
        "pretrain/bits_per_byte_before": 8.0,
        "pretrain/bits_per_byte": 1.1,
        "pretrain/recall": 0.9,
        "sft/exact_match_before": 0.1,
        "sft/exact_match": 0.8,
        "sft/exact_match/capital_before": 0.0,
        "sft/exact_match/capital": 0.7,
        "seconds/tokenizer": 2.5,
        "seconds/pretrain": 2.5,
        "seconds/sft": 2.5,
    }
    assert "exact_match" in Path("runs/small/report.html").read_text()


def test_done_stages_are_skipped(study):
    run()
    before = read_trained()
    assert run().code == 0
    assert changed_since(before) == []


def test_a_second_run_is_quick_and_imports_no_torch(study):
    run()
    code = "import sys; from alignment.cli import main; code = main(); sys.exit(code or ('torch' in sys.modules) * 9)"
    before = cpu_seconds_of_children()
    done = subprocess.run([sys.executable, "-c", code, "run", str(STUDY)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count(": done")) == (0, 3)
    assert cpu_seconds_of_children() - before < 3
    assert done.stdout.splitlines()[1].split(maxsplit=2)[::2] == [
        "pretrain",
        "s  bits_per_byte 1.100 (before 8.000), recall 0.9000",
    ]


def cpu_seconds_of_children() -> float:
    """A clock that a busy machine does not turn faster."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_stage_whose_parent_was_made_anew_is_made_anew_and_so_are_its_children(study):
    run()
    pretend_to_train(TrainRequest(STUDY / "tokenizer.yaml", fresh=True))
    before = read_trained()
    assert run().code == 0
    assert changed_since(before) == ["pretrain new on 1", "sft new on 1"]
    assert Path("runs/small/pretrain.old-1/receipt.json").is_file()


def test_a_stage_whose_data_changed_is_made_anew_with_its_children(study):
    run()
    before = read_trained()
    (study / "data/chats.jsonl").write_text('{"messages": [1]}\n')
    run()
    assert changed_since(before) == ["sft new on 1"]
    before = read_trained()
    (study / "data/text.jsonl").write_text('{"text": "b"}\n')
    run()
    assert changed_since(before) == ["tokenizer new on 1", "pretrain new on 1", "sft new on 1"]


def test_the_reason_is_said(study, capfd):
    run()
    pretend_to_train(TrainRequest(STUDY / "pretrain.yaml", fresh=True))
    capfd.readouterr()
    run()
    said = capfd.readouterr().err
    assert (
        "stage 3 of 3, recipes/small/sft.yaml: runs/small/pretrain/final was made anew since, so it is made anew"
        in said
    )
    assert "runs/small/tokenizer: done" in said


def test_fresh_makes_everything_anew(study):
    run()
    before = read_trained()
    run(fresh=True)
    assert changed_since(before) == before
    assert Path("runs/small/sft.old-1").is_dir()


def test_several_processes_train_each_stage(study):
    assert run(num_processes=2).code == 0
    assert read_trained() == ["tokenizer new on 2", "pretrain new on 2", "sft new on 2"]


@pytest.mark.parametrize(
    ("threads", "asked", "batch", "trained_on"),
    [(2, None, 4, 2), (16, None, 4, 2), (1, None, 4, 1), (2, 1, 4, 1), (2, None, 3, 1), (2, None, 6, 1)],
)
def test_two_cores_are_two_ranks_where_nobody_says_how_many(study, monkeypatch, threads, asked, batch, trained_on):
    monkeypatch.setattr(pipeline, "num_threads", lambda _: threads)
    recipe = study / "sft.yaml"
    sizes = f"  global_batch_size: {batch}\n  per_device_train_batch_size: 2\n"
    recipe.write_text(recipe.read_text().replace("train:\n  max_steps", f"train:\n{sizes}  max_steps"))
    assert f"batch_size: {batch}" in recipe.read_text()
    assert run(num_processes=asked).code == 0
    assert read_trained()[::2] == ["tokenizer new on 1", f"sft new on {trained_on}"]


def test_on_gpus_every_stage_is_a_fresh_process(study, monkeypatch):
    started = []
    monkeypatch.setattr(pipeline, "has_gpu", lambda: True)
    monkeypatch.setattr(
        pipeline, "launch_processes", lambda request, recipe, config: started.append((request, config)) or 0
    )
    run(report_to="trackio")
    assert [request.recipe_path.name for request, _ in started] == ["tokenizer.yaml", "pretrain.yaml", "sft.yaml"]
    assert {(request.report_to, config) for request, config in started} == {("trackio", None)}


# ------------------------------------------------------------------------------------------------ where it stops


def test_the_first_failing_stage_stops_the_pipeline_with_its_code_and_the_rest_goes_on_later(study, capfd):
    Path("fail-pretrain").write_text(str(DivergedError.code))
    outcome = run()
    assert outcome.code == DivergedError.code
    assert read_trained() == ["tokenizer new on 1", "pretrain new on 1"]
    assert "recipes/small/pretrain.yaml: stopped with exit code 4; 1 of 3 stages are done" in capfd.readouterr().err
    assert set(json.loads(Path("runs/small/results.json").read_text())) == {
        "tokenizer/bytes_per_token",
        "seconds/tokenizer",
    }
    assert [row[:2] for row in summarise(outcome.stages)][1:] == [("pretrain", "not done"), ("sft", "not done")]
    Path("fail-pretrain").unlink()
    assert run().code == 0
    assert read_trained()[2:] == ["pretrain resume on 1", "sft new on 1"]


def test_an_unfinished_run_that_began_with_another_parent_does_not_go_on(study):
    Path("fail-sft").write_text("5")
    run()
    later = time.time() + 10
    pretend_to_train(TrainRequest(STUDY / "pretrain.yaml", fresh=True))
    os.utime("runs/small/pretrain/receipt.json", (later, later))
    before = read_trained()
    Path("fail-sft").unlink()
    run()
    assert changed_since(before) == ["sft new on 1"]


def test_a_run_that_failed_its_verification_is_not_done(study):
    run()
    write_exit(Path("runs/small/sft"), 7, "not the same logits", "")
    before = read_trained()
    run()
    assert changed_since(before) == ["sft resume on 1"]


# ------------------------------------------------------------------------------------------------ before anything starts


def refused(kind: type[Exception], **options) -> str:
    with pytest.raises(kind) as caught:
        run(**options)
    assert read_trained() == []
    return str(caught.value)


def test_all_missing_inputs_are_named_with_the_script_that_makes_them(study):
    (study / "data/text.jsonl").unlink()
    (study / "make_world.py").touch()
    edit(study / "sft.yaml", "runs/small/pretrain/final", "runs/other/pretrain/final")
    assert refused(DataError).splitlines() == [
        "3 inputs are missing; nothing was started.",
        "  recipes/small/tokenizer.yaml: data/text.jsonl",
        "  recipes/small/pretrain.yaml: data/text.jsonl",
        "  recipes/small/sft.yaml: runs/other/pretrain/final",
        "Make the data first: python recipes/small/make_world.py",
    ]


def test_a_missing_model_alone_is_no_matter_of_data(study):
    edit(study / "sft.yaml", "runs/small/pretrain/final", "./elsewhere")
    assert "recipes/small/sft.yaml: ./elsewhere" in refused(RecipeError)


def test_a_variable_that_is_not_set_is_named(study, monkeypatch):
    monkeypatch.delenv("NO_SUCH_ROOT", raising=False)
    edit(study / "sft.yaml", "data/chats.jsonl", "${NO_SUCH_ROOT}/chats.jsonl")
    assert "recipes/small/sft.yaml: ${NO_SUCH_ROOT}/chats.jsonl: a variable in it is not set" in refused(DataError)
    monkeypatch.setenv("NO_SUCH_ROOT", str((study / "data").resolve()))
    assert run().code == 0


def test_a_hub_dataset_and_a_hub_model_are_not_looked_for_on_disk(study):
    edit(study / "sft.yaml", "data/chats.jsonl", "HuggingFaceH4/ultrachat_200k")
    edit(study / "sft.yaml", "runs/small/pretrain/final", "HuggingFaceTB/SmolLM2-135M")
    Path("fail-tokenizer").write_text("5")
    assert run().code == 5


def test_mistakes_of_all_recipes_are_said_at_once(study):
    edit(study / "pretrain.yaml", "max_steps", "max_step")
    edit(study / "sft.yaml", "learning_rate", "learning_rat")
    said = refused(RecipeError)
    assert "recipes/small/pretrain.yaml:" in said
    assert "recipes/small/sft.yaml:" in said


def test_a_stage_before_its_parent_is_refused(study):
    (study / "pipeline.yaml").write_text("stages:\n  - tokenizer.yaml\n  - sft.yaml\n  - pretrain.yaml\n")
    assert "which recipes/small/pipeline.yaml runs after sft.yaml" in refused(RecipeError)


def test_a_changed_recipe_is_refused_before_anything_starts(study):
    run()
    Path("trained.txt").unlink()
    edit(study / "sft.yaml", "max_steps: 2", "max_steps: 3")
    (study / "data/text.jsonl").write_text('{"text": "b"}\n')
    said = refused(RecipeError)
    assert "runs/small/sft: a run of another recipes/small/sft.yaml (train.max_steps: 2 there, 3 here)" in said
    assert "alignment train RECIPE --fresh" in said
    assert run(fresh=True).code == 0


def test_several_machines_are_refused(study):
    assert "--num_machines: a pipeline runs on one machine" in refused(RecipeError, num_machines=2)


@pytest.mark.parametrize("option", ["num_processes", "num_machines"])
@pytest.mark.parametrize("asked", [0, -1])
def test_less_than_one_process_or_machine_is_refused(option, asked):
    with pytest.raises(RecipeError, match=f"^--{option}: {asked}; at least 1 was expected"):
        TrainRequest(STUDY, **{option: asked})


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_without_a_terminal_the_summary_has_one_line_a_stage(capsys):
    print_summary([("sft", "1 min 5 s", "exact_match 0.8 " * 20), ("evaluate", "3 s", "")])
    lines = capsys.readouterr().out.splitlines()
    assert [line[:19] for line in lines] == ["sft       1 min 5 s", "evaluate        3 s"]
