"""`alignment check`: one line a file, every mistake, exit code 2; nothing is started and nothing is fetched."""

from pathlib import Path

import pytest

from alignment.cli import main

SFT = """stage: sft
model: {path: START}
chat:
  template: chatml
data:
  train:
    - path: data/a.jsonl
      format: prompt_completion
      columns:
        completion: response
  eval:
    - path: someone/held_out
      split: test
      format: prompt_completion
train: {max_steps: 1, learning_rate: 1e-4}
eval:
  metrics:
    - bits_per_byte
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "recipes" / "mine"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "a.jsonl").write_text("{}\n")
    (folder / "base.yaml").write_text(SFT.replace("START", "a/b"))
    (folder / "sft.yaml").write_text(SFT.replace("START", "runs/mine/base/final"))
    (folder / "pipeline.yaml").write_text("stages: [base.yaml, sft.yaml]\n")
    monkeypatch.chdir(tmp_path)
    return Path("recipes/mine")


def change(study: Path, old: str, new: str, name: str = "sft.yaml") -> None:
    path = study / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_good_recipe_is_one_line(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "recipes/mine/sft.yaml"]) == 0
    assert capsys.readouterr() == ("ok recipes/mine/sft.yaml: sft, 12 keys given\n", "")


@pytest.mark.parametrize("given", ["recipes/mine", "recipes/mine/pipeline.yaml"])
def test_a_folder_and_a_pipeline_bring_their_recipes(study: Path, given: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", given]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok recipes/mine/base.yaml: sft, 12 keys given",
        "ok recipes/mine/sft.yaml: sft, 12 keys given",
        "ok recipes/mine/pipeline.yaml: pipeline of 2 stages",
    ]


def test_each_file_is_checked_once_however_it_is_given(study: Path, capsys: pytest.CaptureFixture) -> None:
    given = [
        "recipes/mine/sft.yaml",
        "recipes/mine",
        "./recipes/mine/../mine/pipeline.yaml",
        str(study.resolve() / "sft.yaml"),
    ]
    assert main(["check", *given]) == 0
    out = capsys.readouterr().out
    assert out.count("sft.yaml:") == 1
    assert out.count("pipeline.yaml:") == 1


def test_all_mistakes_of_all_files_are_shown(study: Path, capsys: pytest.CaptureFixture) -> None:
    change(study, "max_steps", "max_stepz")
    change(study, "stage: sft", "stage: dpo", "base.yaml")
    assert main(["check", "recipes/mine"]) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[:2] == [
        "error recipes/mine/base.yaml: 3 mistakes",
        "error recipes/mine/sft.yaml: 1 mistake",
    ]
    assert "recipes/mine/base.yaml:1:1: error: missing key 'dpo'\n" in err
    assert (
        "recipes/mine/base.yaml:8:7: error: stage dpo cannot use the format of data.train.0 (prompt_completion)" in err
    )
    assert "recipes/mine/base.yaml:18:7: error: stage dpo cannot measure eval.metrics.0 (bits_per_byte)" in err
    assert "recipes/mine/sft.yaml:15:9: error: unknown key 'train.max_stepz'\n" in err
    assert err.endswith("4 errors in 2 files; nothing was started.\n")


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        ("completion: response", "complation: response", "10:9", "format prompt_completion reads no column 'complation'"),
        ("completion: response", "completion: response\n      roles: {human: usr}", "11:22", "'usr'"),
        ("template: chatml", "template: chatlm", "4:13", "chatml"),
        ("template: chatml", "template: mine.jinja", "4:13", "chat.template: no file recipes/mine/mine.jinja"),
    ],
)  # fmt: skip
def test_names_that_other_parts_know_are_checked_too(study, old, new, where, said, capsys) -> None:
    change(study, old, new)
    assert main(["check", "recipes/mine/sft.yaml"]) == 2
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith(f"recipes/mine/sft.yaml:{where}: error: ")
    assert said in first


def test_a_template_file_beside_the_recipe_is_found(study: Path) -> None:
    (study / "mine.jinja").write_text("x")
    change(study, "template: chatml", "template: mine.jinja")
    assert main(["check", "recipes/mine/sft.yaml"]) == 0


def test_data_that_is_not_there_yet_is_a_warning(study: Path, capsys: pytest.CaptureFixture) -> None:
    (study / "data" / "a.jsonl").unlink()
    assert main(["check", "recipes/mine/sft.yaml"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  warning: not there yet: data/a.jsonl (line 7)"


@pytest.mark.parametrize(
    ("path", "set_to", "warned"),
    [
        ("${DATA_ROOT}/a.jsonl", None, "$DATA_ROOT (line 7)"),
        ("${DATA_ROOT}/a.jsonl", "recipes/mine/data", "${DATA_ROOT}/a.jsonl (line 7)"),
        ("${DATA_ROOT}/a.jsonl", "ABSOLUTE", None),
        ("someone/dataset", None, None),
        ("./folder", None, "./folder (line 7)"),
        ("data", None, None),
    ],
)
def test_only_local_data_is_looked_for(study, path, set_to, warned, monkeypatch, capsys) -> None:
    monkeypatch.delenv("DATA_ROOT", raising=False)
    if set_to:
        monkeypatch.setenv("DATA_ROOT", str(study.resolve() / "data") if set_to == "ABSOLUTE" else set_to)
    change(study, "data/a.jsonl", path)
    assert main(["check", "recipes/mine/sft.yaml"]) == 0
    expected = [f"  warning: not there yet: {warned}"] if warned else []
    assert capsys.readouterr().out.splitlines()[1:] == expected


def test_a_stage_before_its_input_is_refused(study: Path, capsys: pytest.CaptureFixture) -> None:
    change(study, "[base.yaml, sft.yaml]", "[sft.yaml, base.yaml]", "pipeline.yaml")
    assert main(["check", "recipes/mine"]) == 2
    err = capsys.readouterr().err
    assert "recipes/mine/sft.yaml:2:15: error: model.path: runs/mine/base is made by base.yaml, which" in err
    assert "= write base.yaml before sft.yaml in pipeline.yaml" in err


def test_an_input_made_apart_from_the_pipeline_is_a_warning(study: Path, capsys: pytest.CaptureFixture) -> None:
    change(study, "[base.yaml, sft.yaml]", "[sft.yaml]", "pipeline.yaml")
    assert main(["check", "recipes/mine"]) == 0
    assert "recipes/mine/sft.yaml:2:15: warning: model.path: no stage of" in capsys.readouterr().err


def test_a_broken_recipe_does_not_hide_the_order(study: Path, capsys: pytest.CaptureFixture) -> None:
    change(study, "[base.yaml, sft.yaml]", "[sft.yaml, base.yaml]", "pipeline.yaml")
    change(study, "max_steps: 1", "max_steps: 0")
    assert main(["check", "recipes/mine"]) == 2
    err = capsys.readouterr().err
    assert "is made by base.yaml" in err
    assert "train.max_steps: found 0" in err


def test_overrides_change_what_is_checked_and_shown(study: Path, capsys: pytest.CaptureFixture) -> None:
    argv = ["check", "recipes/mine/sft.yaml", "--resolved", "--set", "train.learning_rate=3e-4", "--set", "lora={}"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "  learning_rate: 0.0003\n" in out
    assert "  r: 16  # default\n" in out
    assert main(["check", "recipes/mine/sft.yaml", "--set", "train.learning_rat=3"]) == 2
    assert "command line: --set train.learning_rat=3: error: unknown key" in capsys.readouterr().err


def test_an_override_of_several_recipes_is_refused(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "recipes/mine", "--set", "seed=1"]) == 2
    assert capsys.readouterr().err == "--set: it changes one recipe, and 2 were given. Check that recipe alone.\n"


def test_what_is_not_there_is_refused_with_the_nearest_name(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["check", "recipes/mine/stf.yaml"]) == 2
    assert "= did you mean recipes/mine/sft.yaml?" in capsys.readouterr().err
    Path("empty").mkdir()
    assert main(["check", "empty"]) == 2
    assert "empty: a folder without .yaml files" in capsys.readouterr().err


def test_an_unreadable_pipeline_is_refused(study: Path, capsys: pytest.CaptureFixture) -> None:
    change(study, "sft.yaml]", "sftt.yaml]", "pipeline.yaml")
    assert main(["check", "recipes/mine"]) == 2
    out, err = capsys.readouterr()
    assert "error recipes/mine/pipeline.yaml: 1 mistake" in out
    assert "recipes/mine/pipeline.yaml:1:21: error: stages: no recipe recipes/mine/sftt.yaml" in err


def test_a_named_mixture_is_checked_as_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mixtures").mkdir()
    path = tmp_path / "mixtures" / "both.yaml"
    path.write_text("train:\n  - path: a/b\n    formatt: messages\nfoo: 1\n")
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'format'?" in said
    assert "both.yaml:4:1: error: unknown key 'foo'" in said
    path.write_text("train:\n  - path: a/b\n    format: messages\n")
    assert main(["check", str(path)]) == 0
