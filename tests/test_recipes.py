"""Every recipe that comes with the project: it passes check, stands in a pipeline, and is described in five parts."""

import re
from functools import cache
from pathlib import Path

import pytest

from alignment.commands.check import check_files
from alignment.gallery import PARTS, TABLE, find_galleries, find_studies, make_table, read_study
from alignment.recipe.loader import load_recipe
from alignment.recipe.locate import read_nodes
from alignment.recipe.pipeline import is_pipeline, load_pipeline

GALLERY = Path(__file__).parent.parent / "recipes"
STUDIES = find_studies(GALLERY)
MAX_LINES = 52
SOURCE = re.compile(
    r"alignment-handbook|open-instruct|torchtune|huggingface/trl|llm\.c|OLMoE|axolotl|nanoGPT|datatrove"
    r"|summarize_from_feedback_details|OpenRLHF"
)
PUBLISHED = [study for study in STUDIES if study.name != "quickstart"]
WANTED = {
    "zephyr-7b", "smollm2-135m", "smollm2-1.7b", "smollm3-style", "tulu3-8b", "llama-3.1-8b", "llama-3.1-70b", "qwen3-0.6b",
    "gpt2-nl", "llama-124m", "mixtral-style-small", "qwen3-30b-a3b", "quickstart",
}  # fmt: skip


@cache
def recipes_of(study: Path) -> list[Path]:
    return [path for path in sorted(study.glob("*.yaml")) if not is_pipeline(path)]


def name_of(path: Path) -> str:
    return str(path.relative_to(GALLERY))


def test_the_gallery_has_the_studies_that_it_promises() -> None:
    assert {study.name for study in STUDIES} >= WANTED


@pytest.mark.parametrize("study", STUDIES, ids=name_of)
def test_a_study_passes_check_and_runs_in_order(study: Path) -> None:
    outcomes = check_files([study], [])
    mistakes = [mistake.text() for outcome in outcomes for mistake in outcome.mistakes]
    assert mistakes == []


@pytest.mark.parametrize("study", PUBLISHED, ids=name_of)
def test_every_recipe_stands_in_a_pipeline_of_its_study(study: Path) -> None:
    pipelines = [load_pipeline(path) for path in study.glob("*.yaml") if is_pipeline(path)]
    run = {path.name for pipeline in pipelines for path in pipeline.recipes}
    # Curation has a command of its own and is no stage of a pipeline.
    assert run == {path.name for path in recipes_of(study) if load_recipe(path).stage != "curate"}


@pytest.mark.parametrize("study", STUDIES, ids=name_of)
def test_a_study_is_described_in_five_parts(study: Path) -> None:
    text = (study / TABLE).read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == PARTS
    parts = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(len(part.strip()) > 20 for part in parts)
    facts = read_study(study)
    assert facts.hardware != "unknown"
    assert facts.status != "unknown"


@pytest.mark.parametrize("study", PUBLISHED, ids=name_of)
def test_a_result_is_claimed_only_by_a_study_that_was_trained(study: Path) -> None:
    text = (study / TABLE).read_text(encoding="utf-8")
    assert (read_study(study).status == "trained") != ("Not run yet" in text)


@pytest.mark.parametrize("path", [path for study in PUBLISHED for path in recipes_of(study)], ids=name_of)
def test_a_recipe_is_short_and_says_first_what_it_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(("# ", "stage:"))
    assert "\t" not in text
    assert len(text.splitlines()) <= MAX_LINES
    assert max(map(len, text.splitlines())) <= 140


@pytest.mark.parametrize(
    "path", [path for study in PUBLISHED for path in recipes_of(study) if path.name != "tokenizer.yaml"], ids=name_of
)
def test_a_recipe_names_where_its_values_were_read(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\nstage:")[0]
    assert SOURCE.search(head)
    assert re.search(r"\.(yaml|md|py|sh|yml)", head)


@pytest.mark.parametrize("path", [path for study in STUDIES for path in recipes_of(study)], ids=name_of)
def test_no_revision_is_written_that_nobody_looked_up(path: Path) -> None:
    """A revision is a commit of 40 digits that `check --pin` found, or none."""
    root, _ = read_nodes(path)
    found = re.findall(r"^\s*revision: (\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert root is not None
    assert all(re.fullmatch(r"[0-9a-f]{40}", revision) for revision in found)


def test_the_table_is_fresh() -> None:
    assert (GALLERY / TABLE).read_text(encoding="utf-8") == make_table(GALLERY), "run `make gallery`"


def test_training_and_held_out_rows_of_a_published_study_do_not_overlap_by_name() -> None:
    for study in PUBLISHED:
        for path in recipes_of(study):
            recipe = load_recipe(path)
            if recipe.stage == "curate":
                continue
            data = recipe.data
            train = {(source.path, source.name, source.split or "train") for source in data.train}
            held_out = {(source.path, source.name, source.split) for source in getattr(data, "eval", ())}
            assert not train & held_out, path


def test_the_gallery_of_the_checkout_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [folder.resolve() for folder in find_galleries()] == [GALLERY.resolve()]
