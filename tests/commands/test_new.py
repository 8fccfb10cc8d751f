"""`alignment new`: a copy that says where it is from, runs under its own name and still finds its data."""

from pathlib import Path

import pytest

from alignment import __version__
from alignment.cli import main
from alignment.recipe.loader import load_recipe
from alignment.recipe.pipeline import load_pipeline

SFT = """# SFT of the old study: alignment train recipes/old/sft.yaml
stage: sft
model:
  path: runs/old/base/final   # not runs/older/base
chat:
  template: mine.jinja
data:
  train:
    - path: data/a.jsonl          # made by make_data.py
      format: messages
    - path: '../shared/b.jsonl'
      format: messages
    - path: someone/dataset
      format: messages
    - path: ${ROOT}/c.jsonl
      format: messages
train: {max_steps: 1, learning_rate: 1e-4}
"""


@pytest.fixture(autouse=True)
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    old = tmp_path / "recipes" / "old"
    (old / "data").mkdir(parents=True)
    (old / "data" / "a.jsonl").write_text("{}\n")
    (old.parent / "shared").mkdir()
    (old.parent / "shared" / "b.jsonl").write_text("{}\n")
    (old / "sft.yaml").write_text(SFT)
    (old / "base.yaml").write_text(SFT.replace("runs/old/base/final", "a/b"))
    (old / "pipeline.yaml").write_text("stages: [base.yaml, sft.yaml]\n")
    (old / "README.md").write_text("Run `alignment run recipes/old`, then open runs/old/report.html.\n")
    (old / "make_data.py").write_text("#!/usr/bin/env python3\nprint('runs/old')\n")
    (old / "mine.jinja").write_text("{{ messages }}")
    (old / "notes.txt").write_text("mine alone")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "ddp.yaml").write_text("distributed_type: MULTI_CPU\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def new(*argv: str) -> int:
    return main(["new", *argv])


def test_a_curation_and_what_reads_its_result_still_find_their_files(gallery: Path) -> None:
    old = gallery / "recipes/old"
    (old / "curate.yaml").write_text(
        "stage: curate\ndata:\n  train:\n    - path: data/a.jsonl\n      format: text\ncurate:\n  steps:\n    - decontaminate:\n"
        "        evals:\n          - path: ../shared/b.jsonl\n"
    )
    (old / "sft.yaml").write_text(SFT.replace("someone/dataset", "runs/old/curate/final"))
    assert new("mine", "--from", "old/curate") == 0
    copied = load_recipe(Path("recipes/mine/curate.yaml"))
    assert copied.data.train[0].path == "../old/data/a.jsonl"
    assert copied.curate.steps[0].decontaminate.evals[0].path == "../shared/b.jsonl"
    assert new("below/mine", "--from", "old") == 0
    assert (
        load_recipe(Path("below/mine/curate.yaml")).curate.steps[0].decontaminate.evals[0].path
        == "../../recipes/shared/b.jsonl"
    )
    assert [source.path for source in load_recipe(Path("below/mine/sft.yaml")).data.train][
        2
    ] == "runs/mine/curate/final"


def test_a_study_is_copied_with_its_makers_and_without_its_data(gallery: Path, capsys: pytest.CaptureFixture) -> None:
    assert new("mine", "--from", "old") == 0
    copied = sorted(path.name for path in Path("recipes/mine").iterdir())
    assert copied == ["README.md", "base.yaml", "make_data.py", "mine.jinja", "pipeline.yaml", "sft.yaml"]
    assert capsys.readouterr().out.splitlines()[-1] == "next: alignment check recipes/mine"
    assert [path.name for path in load_pipeline(Path("recipes/mine")).recipes] == ["base.yaml", "sft.yaml"]


def test_the_first_line_says_where_a_file_is_from(gallery: Path) -> None:
    new("mine", "--from", "recipes/old")
    first = {path.name: path.read_text().splitlines()[:2] for path in Path("recipes/mine").iterdir()}
    assert first["sft.yaml"][0] == f"# from old/sft @ {__version__}"
    assert first["pipeline.yaml"][0] == f"# from old/pipeline @ {__version__}"
    assert first["README.md"][0] == f"<!-- from old/README @ {__version__} -->"
    assert first["make_data.py"] == ["#!/usr/bin/env python3", f"# from old/make_data @ {__version__}"]
    assert first["mine.jinja"] == ["{{ messages }}"]  # byte for byte, for it decides the tokens


def test_run_folders_become_those_of_the_new_study_and_no_others(gallery: Path) -> None:
    new("mine", "--from", "old")
    text = Path("recipes/mine/sft.yaml").read_text()
    assert "  path: runs/mine/base/final   # not runs/older/base\n" in text
    assert "alignment train recipes/mine/sft.yaml" in text
    assert "runs/mine/report.html" in Path("recipes/mine/README.md").read_text()
    assert "print('runs/mine')" in Path("recipes/mine/make_data.py").read_text()


def test_data_that_the_copied_makers_write_stays_in_the_study(gallery: Path) -> None:
    new("deep/er/mine", "--from", "old")
    paths = [source.path for source in load_recipe(Path("deep/er/mine/sft.yaml")).data.train]
    assert paths == ["data/a.jsonl", "../../../recipes/shared/b.jsonl", "someone/dataset", "${ROOT}/c.jsonl"]
    assert load_recipe(Path("deep/er/mine/sft.yaml")).chat.template == "mine.jinja"


def test_a_single_recipe_keeps_its_data_and_template_where_they_are(gallery: Path) -> None:
    assert new("mine", "--from", "old/sft") == 0
    assert [path.name for path in Path("recipes/mine").iterdir()] == ["sft.yaml"]
    recipe = load_recipe(Path("recipes/mine/sft.yaml"))
    paths = [source.path for source in recipe.data.train]
    assert paths == ["../old/data/a.jsonl", "../shared/b.jsonl", "someone/dataset", "${ROOT}/c.jsonl"]
    assert recipe.chat.template == "../old/mine.jinja"
    for path in [*paths[:2], recipe.chat.template]:
        assert (Path("recipes/mine") / path).is_file()


def test_without_makers_data_of_the_study_is_used_where_it_is(gallery: Path) -> None:
    Path("recipes/old/make_data.py").unlink()
    new("mine", "--from", "old")
    assert load_recipe(Path("recipes/mine/sft.yaml")).data.train[0].path == "../old/data/a.jsonl"


def test_everything_else_of_a_recipe_is_kept_to_the_letter(gallery: Path) -> None:
    new("mine", "--from", "old/sft.yaml")
    expected = SFT.replace("runs/old/", "runs/mine/").replace("data/a.jsonl", "../old/data/a.jsonl")
    expected = expected.replace("mine.jinja", "../old/mine.jinja").replace("'../shared/b.jsonl'", "../shared/b.jsonl")
    assert Path("recipes/mine/sft.yaml").read_text() == f"# from old/sft @ {__version__}\n{expected}"


def test_a_single_recipe_says_which_runs_nobody_makes_yet(gallery: Path, capsys: pytest.CaptureFixture) -> None:
    new("mine", "--from", "old/sft")
    assert "starts from runs/mine/base, which no recipe there makes yet" in capsys.readouterr().out
    new("third", "--from", "old/base")
    assert "starts from" not in capsys.readouterr().out


def test_recipes_can_be_gathered_one_by_one(gallery: Path) -> None:
    assert new("mine", "--from", "old/base") == 0
    assert new("mine", "--from", "old/sft") == 0
    assert sorted(path.name for path in Path("recipes/mine").iterdir()) == ["base.yaml", "sft.yaml"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("mine", "--from", "odl"), "--from: odl: no such recipe or study. Did you mean 'old'?"),
        (("mine", "--from", "old/stf"), "Did you mean 'old/sft'?"),
        (("mine", "--from", "zzz"), "mixtral-style-small, old, quickstart"),
        (("mine", "--from", "recipes/shared"), "a folder without recipes"),
        (("mine", "--from", "configs"), "a folder without recipes"),
        (("mine", "--from", "configs/ddp.yaml"), "--from: configs/ddp.yaml: no recipe; a .yaml file with a stage"),
        (("mine", "--from", "/etc/passwd"), "--from: /etc/passwd: no recipe; a .yaml file with a stage"),
        (("mine", "--from", "/dev/null"), "--from: /dev/null: no recipe"),
        (("mine", "--from", "recipes/old/README.md"), "--from: recipes/old/README.md: no recipe"),
        (("mine", "--from", ""), "--from: an empty name"),
        (("", "--from", "old"), "STUDY: an empty name"),
        ((" ", "--from", "old"), "STUDY: an empty name"),
        (("elsewhere/old", "--from", "old"), "its runs would lie in runs/old like those of recipes/old"),
        (("old", "--from", "old/sft"), "recipes/old/sft.yaml: exists and is not overwritten"),
        (("recipes/old/README.md", "--from", "old/sft"), "a file; a folder was expected"),
        (("mine",), "the following arguments are required: --from"),
    ],
)
def test_what_cannot_be_copied_is_refused_and_nothing_is_written(gallery, argv, said, capsys) -> None:
    before = sorted(gallery.rglob("*"))
    assert new(*argv) == 2
    assert said in capsys.readouterr().err
    assert sorted(gallery.rglob("*")) == before


def test_a_file_that_is_there_is_never_overwritten(gallery: Path, capsys: pytest.CaptureFixture) -> None:
    Path("recipes/mine").mkdir()
    Path("recipes/mine/sft.yaml").write_text("mine")
    assert new("mine", "--from", "old") == 2
    assert Path("recipes/mine/sft.yaml").read_text() == "mine"
    assert [path.name for path in Path("recipes/mine").iterdir()] == ["sft.yaml"]
    assert "recipes/mine/sft.yaml: exists and is not overwritten" in capsys.readouterr().err


def test_a_recipe_that_cannot_be_read_is_refused_with_its_mistake(gallery: Path, capsys: pytest.CaptureFixture) -> None:
    Path("recipes/old/sft.yaml").write_text("a: [\n")
    assert new("mine", "--from", "old") == 2
    assert "not valid YAML" in capsys.readouterr().err
    assert not Path("recipes/mine").exists()


def test_a_named_mixture_comes_with_the_recipe_where_it_would_not_be_found(gallery: Path) -> None:
    (gallery / "recipes" / "mixtures").mkdir()
    (gallery / "recipes" / "mixtures" / "both.yaml").write_text("train:\n  - path: a/b\n    format: messages\n")
    recipe = "stage: sft\nmodel:\n  path: a/b\ndata:\n  mixture: both\ntrain:\n  max_steps: 1\n  learning_rate: 1e-4\n"
    (gallery / "recipes" / "old" / "mixed.yaml").write_text(recipe)
    assert new("elsewhere/mine", "--from", "old/mixed") == 0
    assert (gallery / "elsewhere" / "mine" / "mixtures" / "both.yaml").is_file()
    assert load_recipe(gallery / "elsewhere" / "mine" / "mixed.yaml").data.train[0].path == "a/b"
    assert new("beside", "--from", "old/mixed") == 0
    assert not (gallery / "recipes" / "beside" / "mixtures").exists()


def test_a_study_of_the_package_is_found_from_an_empty_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("empty"))
    assert new("mine", "--from", "zephyr-7b") == 0
    assert load_recipe(Path("mine/dpo.yaml")).model.path == "runs/mine/sft/final"


def test_a_path_is_written_where_it_says_and_found_there(gallery: Path, capsys: pytest.CaptureFixture) -> None:
    """docs/recipes.md: with a folder recipes/ a bare name stands for one in it, a path does not."""
    assert new("./mine", "--from", "zephyr-7b") == 0
    assert capsys.readouterr().out.endswith("next: alignment check mine\n")
    assert main(["check", "mine"]) == 0
