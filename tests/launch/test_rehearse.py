"""Rehearsals for real: recipes of the repository under launcher configs, and what breaks them is found and named."""

import json
import os
import shutil
from pathlib import Path

import pytest

from alignment.cli import main
from alignment.commands.rehearse import find_recipes
from alignment.errors import RecipeError
from alignment.launch.rehearse import rehearsal, stage
from alignment.launch.rehearse.page import format_table, recipe_diff, write_files
from alignment.launch.rehearse.rehearsal import Rehearsal, rehearse

GALLERY = Path(__file__).parents[2] / "recipes"
QUICKSTART = ["tokenizer", "pretrain", "sft", "reward", "dpo", "ppo", "evaluate"]
STRATEGIES = ["ddp", "zero3", "fsdp2"]
# One recipe of the gallery for each stage, and one with all that a CPU cannot do; under the strategy that is tried in each run of the tests.
PER_STAGE = {
    "gpt2-nl/pretrain": "fsdp2",
    "smollm2-135m/sft": "zero3",
    "llama-3.1-8b/sft": "ddp",
    "qwen3-0.6b/reward": "fsdp2",
    "tulu3-8b/dpo": "zero3",
    "quickstart/ppo": "fsdp2",
}
CELLS = [
    pytest.param(name, strategy, marks=() if strategy == PER_STAGE[name] else pytest.mark.slow)
    for name in PER_STAGE
    for strategy in STRATEGIES
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def states(result: Rehearsal) -> dict[str, str]:
    return {step.name: step.state for step in result.steps}


def failed_step(result: Rehearsal) -> str:
    return next(f"{step.name}: {step.detail}" for step in result.steps if step.state == "failed")


def check_proven(result: Rehearsal) -> None:
    assert result.code == 0, format_table(result)
    assert set(states(result).values()) == {"proven"}


def test_the_command_proves_a_recipe_and_says_what_it_could_not(capsys: pytest.CaptureFixture) -> None:
    assert main(["rehearse", str(GALLERY / "tulu3-8b/dpo.yaml")]) == 0
    said = capsys.readouterr().out
    assert "goes on after SIGKILL: checkpoint of step 3; steps 4, 5 made again: the same" in said
    assert "architecture assumed" in said
    assert "rows of its format were generated" in said
    folder = Path("rehearsals/tulu3-8b/dpo")
    facts = json.loads((folder / "rehearsal.json").read_text())
    assert (facts["code"], facts["strategy"], facts["stage"]) == (0, "ddp", "dpo")
    assert "-    num_train_epochs" in "\n".join(facts["diff"]) or "-  num_train_epochs: 1.0" in "\n".join(facts["diff"])
    page = (folder / "rehearsal.md").read_text()
    assert "| not proven | memory, speed and kernels of GPUs |" in page
    assert "loss_type" not in recipe_diff_lines(page)
    assert (folder / "run/final/model.safetensors").is_file()


def recipe_diff_lines(page: str) -> str:
    """What the page shows as changed."""
    block = page.partition("```diff")[2].partition("```")[0]
    return "\n".join(line for line in block.splitlines() if line[:1] in "+-")


@pytest.mark.parametrize("name", QUICKSTART)
def test_every_quickstart_recipe_holds_before_there_is_any_data(name: str, tmp_path: Path) -> None:
    # Copied: beside the original lies data/ once the quickstart has run, and rows would be drawn from it.
    study = tmp_path / "recipes/quickstart"
    study.mkdir(parents=True)
    for recipe in (GALLERY / "quickstart").glob("*.yaml"):
        shutil.copy2(recipe, study)
    check_proven(rehearse(study / f"{name}.yaml"))


@pytest.mark.parametrize(("name", "strategy"), CELLS)
def test_a_recipe_of_each_stage_holds_under_each_strategy(name: str, strategy: str) -> None:
    check_proven(rehearse(GALLERY / f"{name}.yaml", accelerate_config=strategy))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral-style-small/pretrain", "qwen3-30b-a3b/sft"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_mixtures_of_experts_hold_under_each_strategy(name: str, strategy: str) -> None:
    check_proven(rehearse(GALLERY / f"{name}.yaml", accelerate_config=strategy))


@pytest.mark.slow
def test_an_adapter_that_is_continued_is_stood_in_for(tmp_path: Path) -> None:
    study = tmp_path / "recipes/quickstart"
    study.mkdir(parents=True)
    for name in ("tokenizer", "pretrain", "sft", "dpo"):
        shutil.copy2(GALLERY / f"quickstart/{name}.yaml", study)
    text = (study / "dpo.yaml").read_text().replace("r: 64", "r: 32\n  start: continue").replace("128", "64", 1)
    (study / "dpo.yaml").write_text(text)
    check_proven(rehearse(study / "dpo.yaml"))


# ------------------------------------------------------------------------------------------------ what breaks


SFT = """stage: sft
model:
  path: HuggingFaceTB/SmolLM2-135M
{lora}chat:
  template: chatml
data:
  max_length: 256
  train:
    - path: {path}
      format: {format}
train:
  max_steps: 1000
  global_batch_size: 64
  learning_rate: 1.0e-3
  bf16: false
"""


def write_recipe(folder: Path, *, lora: str = "", path: str = "gone.jsonl", format_: str = "messages") -> Path:
    recipe = folder / "mine" / "sft.yaml"
    recipe.parent.mkdir(exist_ok=True)
    recipe.write_text(SFT.format(lora=lora, path=path, format=format_))
    return recipe


def test_lora_targets_that_the_architecture_lacks_are_found(tmp_path: Path) -> None:
    result = rehearse(write_recipe(tmp_path, lora="lora:\n  target_modules: [c_attn]\n"))
    assert result.code == 2
    assert "trains under ddp on 2 ranks" in failed_step(result)
    assert "c_attn" in failed_step(result)
    assert states(result)["goes on after SIGKILL"] == "not reached"
    assert "failed" in format_table(result)
    assert write_files(result).is_file()


def test_rows_of_another_format_are_found_before_any_rank_starts(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, path="rows.jsonl")
    (recipe.parent / "rows.jsonl").write_text('{"question": "a", "answer": "b"}\n' * 8)
    result = rehearse(recipe)
    assert result.code == 3
    assert failed_step(result).startswith("rows are prepared and previewed")
    assert "messages" in failed_step(result)


def test_a_run_that_begins_anew_is_not_taken_for_one_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its losses are the same, for it is deterministic; only the lines before the checkpoint tell."""

    def forgetful(request, config, num_processes, log, kill_at=None):
        if kill_at is None:
            shutil.rmtree(Path(request.out) / "checkpoints")
        return stage.launch(request, config, num_processes, log, kill_at)

    monkeypatch.setattr(rehearsal, "launch", forgetful)
    result = rehearse(write_recipe(tmp_path))
    assert result.code == 7
    assert "began anew" in failed_step(result)


def test_gpus_are_hidden_before_anything_looks_at_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA refuses ranks that are forked from a process which has looked for GPUs."""
    seen = []

    def look(_: object) -> None:
        seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        raise RuntimeError("far enough")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("alignment.launch.ranks.preload", look)
    with pytest.raises(RuntimeError, match="far enough"):
        rehearse(write_recipe(tmp_path), out=tmp_path / "out")
    assert seen == [""]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_a_curation_has_nothing_to_rehearse() -> None:
    with pytest.raises(RecipeError, match="nothing to rehearse"):
        rehearse(GALLERY / "curation/chat.yaml")


def test_a_study_and_its_pipeline_are_its_recipes(tmp_path: Path) -> None:
    names = ["dpo.yaml", "reward.yaml", "sft.yaml"]
    assert [path.name for path in find_recipes(GALLERY / "qwen3-0.6b")] == names
    assert sorted(path.name for path in find_recipes(GALLERY / "qwen3-0.6b/pipeline.yaml")) == names
    assert [path.name for path in find_recipes(GALLERY / "llama-124m")] == ["pretrain.yaml", "tokenizer.yaml"]
    with pytest.raises(RecipeError, match="without recipes to rehearse"):
        find_recipes(tmp_path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/model.bin").write_text("weights")
    with pytest.raises(RecipeError, match="not a folder of an earlier rehearsal"):
        rehearse(write_recipe(tmp_path), out=tmp_path / "precious")
    assert (tmp_path / "precious/model.bin").read_text() == "weights"


def test_the_difference_shows_what_was_made_small_and_nothing_else() -> None:
    result = Rehearsal(Path("a.yaml"), "sft", "ddp", Path("out"), original="a: 1\nb: 2\n", rehearsed="a: 1\nb: 3\n")
    assert [line for line in recipe_diff(result).splitlines() if line[:1] in "+-"][2:] == ["-b: 2", "+b: 3"]
