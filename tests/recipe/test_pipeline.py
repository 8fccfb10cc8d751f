"""A pipeline lists recipe files and nothing else; what is wrong with the list is said at its place."""

from pathlib import Path

import pytest

from alignment.errors import RecipeError
from alignment.recipe.loader import read_recipe
from alignment.recipe.pipeline import find_order_mistakes, is_pipeline, load_pipeline, pipeline_file

SFT = """stage: sft
model: {{path: {start}}}
data:
  train:
    - path: a.jsonl
      format: messages
train: {{max_steps: 1, learning_rate: 1e-4}}
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recipes" / "mine"
    folder.mkdir(parents=True)
    for name, start in {"base": "a/b", "sft": "runs/mine/base/final", "more": "runs/mine/sft/final"}.items():
        (folder / f"{name}.yaml").write_text(SFT.format(start=start))
    monkeypatch.chdir(tmp_path)
    return Path("recipes/mine")


def write(study: Path, text: str) -> Path:
    path = study / "pipeline.yaml"
    path.write_text(text)
    return path


def refusal(study: Path, text: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_pipeline(write(study, text))
    return str(caught.value)


@pytest.mark.parametrize(
    "text", ["stages: [base.yaml, sft.yaml]\n", "# note\nstages:\n  - base.yaml   # first\n  - sft.yaml\n"]
)
def test_block_and_flow_lists_are_read_from_a_file_and_from_a_folder(study: Path, text: str) -> None:
    path = write(study, text)
    for given in (path, study):
        pipeline = load_pipeline(given)
        assert pipeline.path == path
        assert pipeline.recipes == (study / "base.yaml", study / "sft.yaml")


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("stages:\n  - base.yaml\n  - stf.yaml\n", "3:5", "no recipe recipes/mine/stf.yaml\n     3 |   - stf.yaml\n             ^"
         "\n         = did you mean sft.yaml?"),
        ("stages: [base.yaml, base.yaml]\n", "1:21", "base.yaml is given twice"),
        ("stages: [base.yaml, ../mine/base.yaml]\n", "1:21", "../mine/base.yaml is given twice"),
        ("stages: [base.yaml]\nseed: 1\n", "2:1", "unknown key 'seed'"),
        ("stages: [base.yaml]\ntrain.seed: 1\n", "2:1", "overrides nothing"),
        ("stags: [bass.yaml]\n", "1:1", "unknown key 'stags'"),
        ("stags: [bass.yaml]\n", "1:9", "no recipe recipes/mine/bass.yaml"),
        ("stages: []\n", "1:9", "found an empty list; a list of recipe files was expected"),
        ("stages:\n", "1:1", "found nothing"),
        ("stages: base.yaml\n", "1:9", "found 'base.yaml' (text); a list of recipe files was expected"),
        ("stages: [1, base.yaml]\n", "1:10", "found 1 (a whole number); a recipe file was expected"),
        ("stages: [{base.yaml: x}]\n", "1:10", "found a mapping; a recipe file was expected"),
        ("- base.yaml\n", "1:1", "found a list of 1; a mapping with the key 'stages' was expected"),
        ("stages: [pipeline.yaml]\n", "1:10", "a pipeline cannot be a stage of itself"),
        ("stages: [base.yaml\n", "2:1", "not valid YAML"),
        ("stage: sft\n", "1:1", "unknown key 'stage'"),
    ],
)  # fmt: skip
def test_a_mistake_stands_at_its_place(study: Path, text: str, where: str, said: str) -> None:
    found = refusal(study, text)
    assert f"recipes/mine/pipeline.yaml:{where}: error: " in found
    assert said in found


def test_all_mistakes_come_at_once(study: Path) -> None:
    found = refusal(study, "seed: 1\nstages:\n  - a.yaml\n  - base.yaml\n  - base.yaml\n  - 5\n")
    assert found.count(": error: ") == 4
    assert found.endswith("4 errors in recipes/mine/pipeline.yaml; nothing was started.")


def test_two_recipes_with_one_run_folder_are_refused(study: Path) -> None:
    (study / "base.yml").write_text(SFT.format(start="a/b"))
    assert "stages: base.yml has the run folder of base.yaml, runs/mine/base" in refusal(
        study, "stages: [base.yaml, base.yml]\n"
    )


def test_a_folder_without_a_pipeline_is_refused(study: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipes/mine/pipeline\.yaml:1:1: error: cannot be read"):
        load_pipeline(study)


def test_a_pipeline_is_told_from_a_recipe_by_name_or_content(study: Path) -> None:
    write(study, "broken: [\n")
    (study / "other.yaml").write_text("stages: [base.yaml]\n")
    assert is_pipeline(pipeline_file(study))
    assert is_pipeline(study / "other.yaml")
    assert not is_pipeline(study / "base.yaml")


# ------------------------------------------------------------------------------------------------ order


def order_mistakes(study: Path, text: str) -> list[tuple[str, str, str]]:
    pipeline = load_pipeline(write(study, text))
    found = find_order_mistakes(pipeline, {path: read_recipe(path) for path in pipeline.recipes})
    return [
        (m.level, f"{Path(m.place.origin.name).name}:{m.place.line + 1}:{m.place.column + 1}", m.message) for m in found
    ]


def test_a_stage_after_what_it_starts_from_is_in_order(study: Path) -> None:
    assert order_mistakes(study, "stages: [base.yaml, sft.yaml, more.yaml]\n") == []


def test_a_stage_before_what_it_starts_from_is_refused_at_the_path_in_its_recipe(study: Path) -> None:
    assert order_mistakes(study, "stages: [sft.yaml, base.yaml, more.yaml]\n") == [
        (
            "error",
            "sft.yaml:2:15",
            "model.path: runs/mine/base is made by base.yaml, which recipes/mine/pipeline.yaml runs after sft.yaml",
        )
    ]


def test_an_input_that_only_another_recipe_of_the_folder_makes_is_a_warning(study: Path) -> None:
    assert order_mistakes(study, "stages: [base.yaml, more.yaml]\n") == [
        ("warning", "more.yaml:2:15", "model.path: no stage of recipes/mine/pipeline.yaml makes runs/mine/sft")
    ]


def test_an_input_that_nothing_makes_is_refused_unless_it_is_there(study: Path) -> None:
    (study / "more.yaml").write_text(SFT.format(start="runs/mine/stf/final"))
    assert order_mistakes(study, "stages: [base.yaml, sft.yaml, more.yaml]\n")[0][0] == "error"
    Path("runs/mine/stf").mkdir(parents=True)
    assert order_mistakes(study, "stages: [base.yaml, sft.yaml, more.yaml]\n")[0][0] == "warning"


def test_a_recipe_that_starts_from_its_own_run_is_refused(study: Path) -> None:
    (study / "base.yaml").write_text(SFT.format(start="runs/mine/base/final"))
    found = order_mistakes(study, "stages: [base.yaml, sft.yaml]\n")
    assert found[0][2] == "model.path: runs/mine/base is the run of this recipe itself"


def test_runs_of_other_studies_and_hub_ids_are_nobodys_business(study: Path) -> None:
    (study / "base.yaml").write_text(SFT.format(start="runs/other/sft/final"))
    assert order_mistakes(study, "stages: [base.yaml, sft.yaml]\n") == []


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        ("dpo", "dpo: {reference: runs/mine/base/final}"),
        ("sft", "tokenizer: {path: runs/mine/base/final}"),
        ("evaluate", "evaluate: {metrics: [stops], against: runs/mine/base/final}"),
    ],
)
def test_every_key_that_names_a_run_is_looked_at(study: Path, stage: str, line: str) -> None:
    text = SFT.format(start="a/b").replace("stage: sft", f"stage: {stage}")
    if stage == "dpo":
        text = text.replace("messages", "preference")
    if stage == "evaluate":
        text = text.replace("  train:", "  eval:").replace("train: {max_steps: 1, learning_rate: 1e-4}\n", "")
    (study / "sft.yaml").write_text(text + line + "\n")
    assert read_recipe(study / "sft.yaml").mistakes == ()
    found = order_mistakes(study, "stages: [sft.yaml, base.yaml]\n")
    assert [level for level, _, _ in found] == ["error"]
