"""What may leave this machine, and what is found out before it does."""

import json
import os
import struct
from pathlib import Path

import pytest

from alignment.errors import PublishError
from alignment.hub.staging import check_verified, find_private, stage_run

ID = "org/name"


def stage(run_dir: Path, folder: Path):
    folder.mkdir()
    return stage_run(check_verified(run_dir), ID, folder)


def test_only_files_of_the_list_are_taken(finished_run: Path, tmp_path: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "notes.txt", "pytorch_model.bin"):
        (finished_run / "final" / name).write_bytes(b"x")
    staged = stage(finished_run, tmp_path / "staged")
    assert staged.left_out == ("notes.txt", "optimizer.pt", "pytorch_model.bin", "training_args.bin")
    assert not {"training_args.bin", "notes.txt"} & set(staged.files)
    assert {"model.safetensors", "config.json", "README.md", "recipe.yaml", "receipt.json"} <= set(staged.files)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hf_" + "c" * 34, "a secret"),
        ("sk-" + "d" * 30, "a secret"),
        ("/home/jane/models/base", "a path of this machine"),
        ("/Users/jane/x", "a path of this machine"),
    ],
)
def test_a_secret_or_a_path_in_any_file_stops_everything(
    finished_run: Path, tmp_path: Path, text: str, what: str
) -> None:
    (finished_run / "final" / "tokenizer_config.json").write_text(json.dumps({"name_or_path": text}))
    with pytest.raises(PublishError, match=rf"tokenizer_config\.json:1: {what}.*Nothing was sent"):
        stage(finished_run, tmp_path / "staged")


def test_the_folder_that_one_works_in_counts_as_a_path_of_this_machine(finished_run: Path, tmp_path: Path) -> None:
    (finished_run / "final" / "config.json").write_text(json.dumps({"_name_or_path": str(Path.cwd() / "runs/a/final")}))
    with pytest.raises(PublishError, match="a path of this machine"):
        stage(finished_run, tmp_path / "staged")


def test_the_value_of_a_token_variable_is_found_in_the_header_of_weights(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "not-like-any-pattern")
    header = json.dumps({"__metadata__": {"key": "not-like-any-pattern"}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    assert list(find_private(path, "a.safetensors", finished_run)) == ["a.safetensors:1: a secret"]


def test_ordinary_words_of_a_vocabulary_are_no_paths(finished_run: Path, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(
        json.dumps({"vocab": ["/usr/bin/env", "home/", "/home", "https://x.org/home/me", "hf_token", "sk-"]})
    )
    assert list(find_private(path, "tokenizer.json", finished_run)) == []


def test_an_adapter_on_a_folder_of_this_machine_is_refused(finished_run: Path, tmp_path: Path) -> None:
    base = {"base_model_name_or_path": "runs/study/pretrain/final"}
    (finished_run / "final" / "adapter_config.json").write_text(json.dumps(base))
    with pytest.raises(PublishError, match="alignment merge RUN"):
        stage(finished_run, tmp_path / "staged")


def test_an_adapter_on_a_model_of_the_hub_goes(finished_run: Path, tmp_path: Path) -> None:
    (finished_run / "final" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    assert "adapter_config.json" in stage(finished_run, tmp_path / "staged").files


def test_weights_are_linked_and_not_copied(finished_run: Path, tmp_path: Path) -> None:
    stage(finished_run, tmp_path / "staged")
    assert os.path.samefile(tmp_path / "staged" / "model.safetensors", finished_run / "final" / "model.safetensors")


def test_the_recipes_of_the_runs_before_go_with_it(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tmp_path / "runs" / "study" / "pretrain"
    before.mkdir(parents=True)
    (before / "recipe.yaml").write_text("stage: pretrain\nseed: 1\nmodel:\n  path: org/base\n")
    (finished_run / "recipe.yaml").write_text("stage: sft\nseed: 1\nmodel:\n  path: runs/study/pretrain/final\n")
    staged = stage(finished_run, tmp_path / "staged")
    assert "lineage/pretrain.yaml" in staged.files


def test_a_name_with_sk_in_a_word_is_no_secret(finished_run: Path, tmp_path: Path) -> None:
    base = {"base_model_name_or_path": "my-org/task-oriented-dialogue-dataset"}
    (finished_run / "final" / "adapter_config.json").write_text(json.dumps(base))
    recipe = (finished_run / "recipe.yaml").read_text().replace("org/base", "my-org/desk-assistant-preferences-model")
    (finished_run / "recipe.yaml").write_text(recipe)
    stage(finished_run, tmp_path / "staged")
    assert (tmp_path / "staged" / "recipe.yaml").read_text() == recipe


def test_a_path_in_a_system_message_is_published_and_one_of_this_machine_is_not(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/jane")
    recipe = finished_run / "recipe.yaml"
    original = recipe.read_text()
    recipe.write_text(original + "  system: Your files are in /home/user/work. GET /v1/chat/completions.\n")
    stage(finished_run, tmp_path / "staged")
    assert (tmp_path / "staged" / "recipe.yaml").read_text() == recipe.read_text()
    recipe.write_text(original + "  system: Your files are in /home/jane.\n")
    with pytest.raises(PublishError, match=r"recipe\.yaml:8: a path of this machine"):
        stage(finished_run, tmp_path / "again")


def test_a_home_that_a_system_message_names_is_still_found_in_other_files(finished_run: Path, tmp_path: Path) -> None:
    with (finished_run / "recipe.yaml").open("a") as file:
        file.write("  system: Your files are in /home/user.\n")
    (finished_run / "final" / "config.json").write_text(json.dumps({"_name_or_path": "/home/user/models/base"}))
    with pytest.raises(PublishError, match=r"config\.json:1: a path of this machine"):
        stage(finished_run, tmp_path / "staged")


def test_secrets_and_paths_of_recipes_do_not_leave(finished_run: Path, tmp_path: Path) -> None:
    token = "hf_" + "c" * 34
    with (finished_run / "recipe.yaml").open("a") as file:
        file.write(f'  system: "Never say {token} or the password: swordfish"\ndata:\n  train:\n')
        file.write("    - path: /home/jane/data/rows.jsonl\n      format: messages\n")
    staged = stage(finished_run, tmp_path / "staged")
    texts = [(staged.folder / name).read_text(encoding="utf-8", errors="replace") for name in staged.files]
    assert not [word for word in (token, "swordfish", "jane") for text in texts if word in text]
    assert "path: rows.jsonl" in (staged.folder / "recipe.yaml").read_text()
