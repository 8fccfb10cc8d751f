"""Receipts: what they hold, what they must not hold, and their hash."""

import json
import subprocess
from pathlib import Path

import pytest

from alignment.errors import ArtifactError
from alignment.report.receipt import make_receipt, read_receipt, receipt_hash, write_receipt
from alignment.report.redact import redact


def make(tmp_path: Path, **more) -> dict:
    return make_receipt(stage="sft", recipe_hash="ab", recipe_dir=tmp_path, seed=0, **more)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_facts_that_are_not_known_have_no_key(tmp_path: Path) -> None:
    receipt = make(tmp_path)
    assert not {"metrics", "parents", "schedule", "strategy", "probe", "notes", "template_hash"} & set(receipt)
    assert receipt["seed"] == 0
    assert receipt["versions"]["python"].startswith("3.")
    assert receipt["hardware"]["cores"] >= 1


def test_it_is_read_back_as_it_was_written_and_the_hash_ignores_the_order_of_keys(tmp_path: Path) -> None:
    receipt = make(tmp_path, metrics={"exact_match": 0.5, "honesty": 0.25}, gpus=["NVIDIA H100"] * 2)
    hash_ = write_receipt(tmp_path, receipt)
    assert read_receipt(tmp_path) == receipt
    assert hash_ == receipt_hash(dict(reversed(receipt.items())))
    assert hash_ != receipt_hash(receipt | {"seed": 1})
    assert receipt["hardware"]["gpus"] == ["NVIDIA H100"] * 2


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    write_receipt(tmp_path, make(tmp_path, metric_errors={"kl": float("nan")}))
    assert json.loads((tmp_path / "receipt.json").read_text())["metric_errors"] == {"kl": None}


def test_it_names_neither_secrets_nor_folders_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    token = "hf_" + "a" * 30
    receipt = make(
        tmp_path,
        command=[
            "alignment",
            "train",
            str(tmp_path / "recipes/sft.yaml"),
            "--out=/scratch/jane/runs/x",
            "--token",
            "s3cret",
        ],
        parents=[{"path": str(tmp_path / "runs/q/pretrain/final"), "receipt_hash": "cd", "kind": "model"}],
        notes=[f"read with {token} from /home/jane/data/a.jsonl"],
    )
    text = json.dumps(receipt)
    assert not [word for word in (str(tmp_path), token, "s3cret", "jane", "/scratch", "/home") if word in text]
    assert receipt["command"] == "alignment train recipes/sft.yaml --out=x --token [secret]"
    assert receipt["parents"][0]["path"] == "runs/q/pretrain/final"


@pytest.mark.parametrize(
    "text",
    [
        "pad_token: <|pad|>",
        "special_tokens: [</s>]",
        "path: ${ALIGNMENT_DATA}/a/b.jsonl",
        "path: runs/quickstart/sft/final",
        "https://huggingface.co/org/model",
        "rewards/chosen 1/2 and/or",
        "../data/x.jsonl",
        "max_new_tokens: 128",
        "my-org/task-oriented-dialogue-dataset",
    ],
)
def test_redacting_leaves_ordinary_recipe_text_alone(text: str) -> None:
    assert redact(text) == text


def test_the_commit_of_the_recipe_and_what_is_not_committed_are_recorded(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "sft.yaml").write_text("a")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    commit = git(tmp_path, "rev-parse", "HEAD")

    def recorded() -> dict:
        return make(recipes)["git"]["recipe"]

    assert recorded() == {"commit": commit, "dirty": False}
    (tmp_path / "notes.txt").write_text("elsewhere, not tracked: no part of the run")
    assert recorded()["dirty"] is False
    (recipes / "dpo.yaml").write_text("beside the recipe, not tracked")
    assert recorded()["dirty"] is True
    (recipes / "dpo.yaml").unlink()
    (recipes / "sft.yaml").write_text("b")
    assert recorded()["dirty"] is True


def test_a_recipe_outside_any_repository_has_no_commit(tmp_path: Path) -> None:
    assert "recipe" not in make(tmp_path).get("git", {})


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 99}'])
def test_a_missing_or_broken_receipt_is_refused_by_name(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "receipt.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"receipt\.json"):
        read_receipt(tmp_path)
