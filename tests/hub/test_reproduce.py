"""From a published model back to the study that made it."""

import json
from pathlib import Path

import pytest
from finished_runs import write_finished_run
from huggingface_hub import HfApi, constants
from local_hub import TOKEN, LocalHub

from alignment.cli import main
from alignment.hub.publish import publish_run
from alignment.hub.reproduce import compare_receipts, find_data_root, find_obstacles, read_origin, write_study
from alignment.recipe.loader import load_recipe
from alignment.recipe.pipeline import load_pipeline
from alignment.report.receipt import read_receipt, write_receipt

TOKENIZER = "stage: tokenizer\nseed: 1\ntokenizer:\n  vocab_size: 300\nchat:\n  template: chatml\ndata:\n  train:\n    - path: data/text.jsonl\n      format: text\n"
PRETRAIN = (
    "stage: pretrain\nseed: 1\nmodel:\n  config:\n    model_type: llama\n    hidden_size: 16\n    intermediate_size: 32\n    num_hidden_layers: 1\n"
    "    num_attention_heads: 2\ntokenizer:\n  path: runs/study/tokenizer/final\ndata:\n  train:\n    - path: org/text\n      format: text\n"
    "train:\n  max_steps: 1\n  learning_rate: 0.1\n"
)
SFT = (
    "stage: sft\nseed: 1\nmodel:\n  path: runs/study/pretrain/final\nchat:\n  template: chatml\ndata:\n  train:\n    - path: org/rows\n"
    "      revision: abc\n      format: messages\ntrain:\n  max_steps: 1\n  learning_rate: 0.1\n"
)


@pytest.fixture
def chain(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """runs/study/sft, made from pretrain, made from tokenizer."""
    monkeypatch.chdir(tmp_path)
    parents = {"tokenizer": [], "pretrain": ["tokenizer"], "sft": ["pretrain"]}
    for name, text in {"tokenizer": TOKENIZER, "pretrain": PRETRAIN, "sft": SFT}.items():
        run = write_finished_run(tmp_path / "runs" / "study" / name, tiny_model)
        (run / "recipe.yaml").write_text(text)
        receipt = read_receipt(run)
        receipt["parents"] = [{"path": f"runs/study/{parent}/final", "kind": "model"} for parent in parents[name]]
        receipt["command"] = f"alignment train recipes/study/{name}.yaml"
        write_receipt(run, receipt)
    return tmp_path / "runs" / "study" / "sft"


def test_a_published_model_becomes_its_study_again(
    chain: Path, hub: LocalHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_run(chain, "org/mine", api=api, pause=lambda _: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    origin = read_origin("org/mine", api=api)
    assert list(origin.recipes) == ["tokenizer", "pretrain", "sft"]
    paths = write_study(origin, tmp_path / "again")
    assert [path.name for path in load_pipeline(tmp_path / "again").recipes] == [
        "tokenizer.yaml",
        "pretrain.yaml",
        "sft.yaml",
    ]
    assert "path: runs/again/pretrain/final" in paths[-1].read_text()
    assert main(["check", str(tmp_path / "again")]) == 0


def test_a_run_on_this_disk_gives_the_same(chain: Path) -> None:
    assert list(read_origin("runs/study/sft").recipes) == ["tokenizer", "pretrain", "sft"]


def test_what_cannot_be_the_same_is_said(chain: Path, tmp_path: Path) -> None:
    receipt = read_receipt(chain)
    receipt["versions"]["torch"] = "0.0.1"
    write_receipt(chain, receipt)
    origin = read_origin("runs/study/sft")
    obstacles = find_obstacles(origin, write_study(origin, tmp_path / "again"))
    assert any(one.startswith("version: torch 0.0.1 there, ") for one in obstacles)
    assert "data: tokenizer.yaml reads data/text.jsonl, which lay on the machine that it ran on" in obstacles
    assert "data: pretrain.yaml reads org/text at no revision; it may have changed since" in obstacles
    assert not [one for one in obstacles if "org/rows" in one]


def test_the_command_prints_what_would_run_and_overwrites_nothing(chain: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["reproduce", "runs/study/sft"]) == 0
    said = capsys.readouterr().out
    assert "wrote reproduced-sft: tokenizer.yaml, pretrain.yaml, sft.yaml" in said
    assert said.endswith("next: alignment run reproduced-sft\n")
    assert main(["reproduce", "runs/study/sft"]) == 0  # the same command goes on
    Path("reproduced-sft/sft.yaml").write_text("stage: sft\n")
    assert main(["reproduce", "runs/study/sft"]) == 2
    assert Path("reproduced-sft/sft.yaml").read_text() == "stage: sft\n"


def test_local_rows_are_read_from_where_the_first_run_read_them(chain: Path, tmp_path: Path) -> None:
    rows = tmp_path / "recipes" / "study" / "data" / "text.jsonl"
    rows.parent.mkdir(parents=True)
    rows.write_text('{"text": "hello"}\n')
    (tmp_path / "recipes" / "study" / "sft.yaml").write_text(SFT)
    origin = read_origin("runs/study/sft")
    paths = write_study(origin, tmp_path / "again" / "study", find_data_root(origin))
    assert load_recipe(paths[0]).data.train[0].path == "../../recipes/study/data/text.jsonl"
    assert not [one for one in find_obstacles(origin, paths) if "text.jsonl" in one]


def test_local_rows_of_another_machine_are_named_with_the_folder_that_has_them(chain: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "text.jsonl").write_text('{"text": "hello"}\n')
    assert main(["reproduce", "runs/study/sft", "--data", "mine"]) == 0
    assert load_recipe(Path("reproduced-sft/tokenizer.yaml")).data.train[0].path == "../mine/data/text.jsonl"


def test_a_data_folder_that_is_not_there_is_refused_before_anything_is_written(
    chain: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["reproduce", "runs/study/sft", "--data", "elsewhere"]) == 2
    assert capsys.readouterr().err.startswith("--data: elsewhere is no folder; ")
    assert not Path("reproduced-sft").exists()


def rewrite(run: Path, old: str, new: str) -> None:
    path = run / "recipe.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_run_on_this_disk_keeps_its_absolute_paths_and_its_texts(chain: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared" / "runs" / "other" / "rows.jsonl"
    shared.parent.mkdir(parents=True)
    shared.write_text('{"messages": []}\n')
    system = "The password: swordfish. GET /v1/chat/completions."
    rewrite(chain, "org/rows\n      revision: abc", f"{shared}")
    rewrite(chain, "template: chatml", f'template: chatml\n  system: "{system}"')
    origin = read_origin("runs/study/sft")
    paths = write_study(origin, tmp_path / "again")
    recipe = load_recipe(paths[-1])
    assert recipe.data.train[0].path == str(shared)
    assert recipe.chat.system == system
    assert recipe.model.path == "runs/again/pretrain/final"
    assert not [one for one in find_obstacles(origin, paths) if "sft.yaml" in one]


def test_runs_that_are_named_by_absolute_paths_are_made_again_too(chain: Path, tmp_path: Path) -> None:
    rewrite(chain, "runs/study/pretrain", f"{tmp_path}/runs/study/pretrain")
    origin = read_origin("runs/study/sft")
    assert list(origin.recipes) == ["tokenizer", "pretrain", "sft"]
    assert load_recipe(write_study(origin, tmp_path / "again")[-1]).model.path == "runs/again/pretrain/final"


def test_what_was_taken_out_of_a_published_recipe_is_said(
    chain: Path, hub: LocalHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(chain, "template: chatml", 'template: chatml\n  system: "Never reveal the password: swordfish"')
    publish_run(chain, "org/mine", api=api, pause=lambda _: None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    origin = read_origin("org/mine", api=api)
    paths = write_study(origin, tmp_path / "again")
    assert load_recipe(paths[-1]).chat.system == "Never reveal the password: [secret]"
    [obstacle] = [one for one in find_obstacles(origin, paths) if one.startswith("recipe: ")]
    assert obstacle == "recipe: sft.yaml has [secret] where something was taken out before it was published"


def test_the_second_result_stands_beside_the_first(chain: Path, tmp_path: Path) -> None:
    origin = read_origin("runs/study/sft")
    assert compare_receipts(origin, chain) == [
        "prepared rows: the same",
        "exact_match: 0.875 there, 0.875 here",
        "stops: 0.99 there, 0.99 here",
    ]


def test_a_model_that_push_did_not_publish_is_refused(
    hub: LocalHub, api: HfApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    api.create_repo("org/other")
    api.upload_file(path_or_fileobj=json.dumps({}).encode(), path_in_repo="config.json", repo_id="org/other")
    assert main(["reproduce", "org/other"]) == 6
    assert "that `alignment push` published was expected" in capsys.readouterr().err
    assert main(["reproduce", "runs/none"]) == 7
