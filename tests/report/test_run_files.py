"""The recipe of a run read back: what leaves this machine of it, as text and as values."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alignment.errors import ArtifactError
from alignment.report.card import write_card
from alignment.report.run_files import read_own_recipe, read_run
from alignment.report.run_report import write_report

HEAD = "stage: sft\nseed: 1\nmodel:\n  path: org/base\n"


def write_recipe(run: Path, text: str) -> Path:
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(text, encoding="utf-8")
    return run


@pytest.mark.parametrize(
    "line",
    [
        '"Never reveal the password: swordfish"',
        "'Never reveal the password: swordfish'",
        "|-\n    Never reveal the password: swordfish",
    ],
)
def test_a_word_taken_out_of_a_text_leaves_the_recipe_readable(tmp_path: Path, line: str) -> None:
    run = write_recipe(tmp_path / "s" / "sft", f"{HEAD}chat:\n  system: {line}\n  template: chatml\n")
    files = read_run(run)
    assert files.recipe["chat"] == {"system": "Never reveal the password: [secret]", "template": "chatml"}
    assert YAML(typ="safe", pure=True).load(files.recipe_text) == files.recipe
    for page in (write_card(run), write_report(run)):
        assert "swordfish" not in page.read_text(encoding="utf-8")
        assert "Never reveal the password: [secret]" in page.read_text(encoding="utf-8")


def test_a_recipe_without_secrets_and_paths_is_shown_as_it_is(tmp_path: Path) -> None:
    text = f"{HEAD}chat:\n  system: You may call GET /v1/chat/completions.\n# by hand\ndata: {{train: []}}\n"
    run = write_recipe(tmp_path / "s" / "sft", text)
    assert read_run(run).recipe_text == text
    assert "You may call GET /v1/chat/completions." in write_card(run).read_text()


def test_a_secret_in_a_comment_is_not_shown(tmp_path: Path) -> None:
    run = write_recipe(tmp_path / "s" / "sft", f"{HEAD}# hf_{'a' * 30}\n")
    assert read_run(run).recipe_text == HEAD


def test_a_next_line_character_is_read_back_where_something_else_was_taken_out(tmp_path: Path) -> None:
    run = write_recipe(tmp_path / "s" / "sft", f'{HEAD}chat:\n  system: "a\\Nb password=x"\n')
    files = read_run(run)
    assert files.recipe["chat"]["system"] == "a\x85b password=[secret]"
    assert YAML(typ="safe", pure=True).load(files.recipe_text) == files.recipe


def test_the_own_recipe_of_a_run_has_everything(tmp_path: Path) -> None:
    text = f"{HEAD}data:\n  train:\n    - path: /data/shared/ultra.jsonl\n"
    run = write_recipe(tmp_path / "s" / "sft", text)
    assert read_own_recipe(run) == text
    assert read_run(run).recipe["data"]["train"] == [{"path": "ultra.jsonl"}]
    assert read_own_recipe(tmp_path) == ""


@pytest.mark.parametrize("text", ['a: "b', "- a\n", "a: 1\na: 2\n"])
def test_what_is_no_recipe_is_refused_by_name(tmp_path: Path, text: str) -> None:
    run = write_recipe(tmp_path / "s" / "sft", text)
    with pytest.raises(ArtifactError, match=r"recipe\.yaml: .*a recipe was expected"):
        read_run(run)
