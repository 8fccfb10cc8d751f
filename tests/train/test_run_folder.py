"""What a second command on a run folder does."""

import json
import os
import socket

import pytest
import study as written

from alignment.errors import RecipeError
from alignment.recipe.loader import load_recipe
from alignment.train.run_folder import find_differences, judge_run, locked, set_aside


def test_a_finished_run_is_left_as_it_is(study) -> None:
    weights = study / "runs/study/sft/final/model.safetensors"
    before = (weights.stat().st_mtime_ns, weights.read_bytes())
    assert written.run("sft") == 0
    assert (weights.stat().st_mtime_ns, weights.read_bytes()) == before


def test_another_recipe_is_refused_with_the_difference(study, capsys) -> None:
    assert written.run("sft", "train.learning_rate=1.0e-3") == 2
    assert "train.learning_rate: 0.005 there, 0.001 here" in capsys.readouterr().err
    assert json.loads((study / "runs/study/sft/exit.json").read_text())["code"] == 0


def test_a_parent_that_was_trained_again_makes_a_run_stale(study) -> None:
    path = study / "runs/study/pretrain/receipt.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"finished": "later"}))
    recipe = load_recipe(study / "study/sft.yaml")
    with pytest.raises(RecipeError, match="pretrain/final was trained again since"):
        judge_run(recipe, study / "runs/study/sft")


def test_an_unfinished_run_goes_on(study) -> None:
    (study / "runs/study/sft/exit.json").unlink()
    assert judge_run(load_recipe(study / "study/sft.yaml"), study / "runs/study/sft") == "resume"


def test_fresh_sets_the_old_run_aside(study) -> None:
    first = set_aside(study / "runs/study/sft")
    assert first.name == "sft.old-1"
    assert (first / "final/config.json").is_file()
    assert set_aside(study / "runs/study/sft") is None


def test_a_folder_in_use_is_refused(study, capsys) -> None:
    with locked(study / "runs/study/sft"):
        assert written.run("sft") == 5
        assert written.run("sft") == 5
    assert (
        capsys.readouterr().err.count(f"process {os.getpid()} on {socket.gethostname()} is at work in this folder") == 2
    )
    assert not (study / "runs/study/sft/.lock-holder").exists()
    # The refused command has changed nothing.
    assert json.loads((study / "runs/study/sft/exit.json").read_text())["code"] == 0


def test_differences_name_keys_inside_lists(study) -> None:
    recipe = load_recipe(study / "study/sft.yaml", ["data.train.0.repeat=2.0"])
    differences = find_differences(study / "runs/study/sft/recipe.yaml", recipe)
    assert differences == ["data.train.0.repeat: absent there, 2.0 here"]
