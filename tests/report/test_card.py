"""The model card: metadata that the Hub accepts, and nothing that is not a fact of the run."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from study_on_disk import write_run

from alignment.report.card import loading_lines, write_card


def write_recipe(run: Path, text: str) -> None:
    run.mkdir(parents=True, exist_ok=True)
    (run / "recipe.yaml").write_text(text)


def front(run: Path) -> dict:
    return ModelCard.load(write_card(run)).data.to_dict()


def test_a_fine_tune_of_a_hub_model_names_its_base_and_its_datasets(tmp_path: Path) -> None:
    run = tmp_path / "study" / "sft"
    write_recipe(run, "stage: sft\nseed: 1\nmodel:\n  path: org/base\n  revision: abc123\n")
    sources = [
        {"split": "train", "path": "org/rows", "revision": "def456", "content_hash": "x"},
        {"split": "eval", "path": "org/rows", "revision": "def456", "content_hash": "x"},
        {"split": "train", "path": "data/own.jsonl", "revision": None, "content_hash": "y"},
    ]
    mix = [
        {
            "split": "train",
            "source": "org/rows[train]",
            "format": "messages",
            "asked": "all",
            "obtained": 7,
            "kept": 6,
            "tokens": 50,
        }
    ]
    (run / "data_manifest.json").write_text(json.dumps({"sources": sources, "mix": mix}))
    assert front(run) == {
        "base_model": "org/base",
        "base_model_relation": "finetune",
        "datasets": ["org/rows"],
        "library_name": "transformers",
        "license": "unknown",
        "pipeline_tag": "text-generation",
        "tags": ["alignment", "sft", "conversational"],
    }
    text = (run / "README.md").read_text()
    assert "From `org/base` at revision `abc123`." in text
    assert "| train | org/rows\\[train\\] | def456 | messages | all | 7 | 6 | 50 |" in text


def test_an_adapter_says_peft_and_how_to_put_it_on_its_base(tmp_path: Path) -> None:
    run = tmp_path / "study" / "reward"
    write_recipe(run, "stage: reward\nseed: 1\nmodel:\n  path: org/base\nlora:\n  r: 8\n  save: adapter\n")
    data = front(run)
    assert (data["library_name"], data["base_model_relation"], data["pipeline_tag"]) == (
        "peft",
        "adapter",
        "text-classification",
    )
    lines = loading_lines(stage="reward", path="runs/study/reward/final", base="org/base")
    assert "\n".join(lines) in (run / "README.md").read_text()
    assert 'base = AutoModelForSequenceClassification.from_pretrained("org/base", num_labels=1)' in lines


@pytest.mark.parametrize("stage", ["pretrain", "sft", "reward", "dpo"])
@pytest.mark.parametrize("base", [None, "org/base"])
def test_loading_lines_are_python(stage: str, base: str | None) -> None:
    lines = loading_lines(stage=stage, path="runs/a/b/final", base=base, revision=base and "abc")
    compile("\n".join(lines), "card", "exec")
    assert base or len(lines) == 3


def test_the_licence_and_the_base_come_down_a_chain_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base, sft, dpo = (tmp_path / "runs" / "q" / name for name in ("pretrain", "sft", "dpo"))
    write_recipe(base, "stage: pretrain\nseed: 1\nmodel:\n  path: org/base\n")
    write_recipe(sft, "stage: sft\nseed: 1\nmodel:\n  path: runs/q/pretrain/final\n")
    write_recipe(dpo, "stage: dpo\nseed: 1\nmodel:\n  path: runs/q/sft/final\n")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    data = front(dpo)
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "org/base"


def test_a_model_from_nothing_names_no_base_and_guesses_no_licence(tmp_path: Path) -> None:
    run = tmp_path / "study" / "pretrain"
    write_run(run, "pretrain")
    data = front(run)
    assert "base_model" not in data
    assert "datasets" not in data
    assert data["license"] == "unknown"
    assert "From new weights." in (run / "README.md").read_text()


def test_the_card_tells_metrics_before_and_after_lineage_limits_and_samples(tmp_path: Path) -> None:
    write_run(tmp_path / "study" / "sft", "sft", "parentreceipt")
    write_run(tmp_path / "study" / "dpo", "dpo", "abcd")
    text = write_card(tmp_path / "study" / "dpo").read_text()
    for fact in (
        "| invented | 0.9510 ± 0.0101 | 0.0830 ± 0.0123 |",
        "| sft | runs/study/sft/final |  | abcd |",
        "| folder | runs/study/pretrain/final |  | parentreceipt |",
        "12 of 12,000 rows of train were dropped: 9 too long, 3 nothing to train on.",
        "its adapter was merged before training",
        "after:  The capital of France is Paris.",
        "hash 0123456789abcdef, seed 1",
    ):
        assert fact in text, fact


def test_absent_facts_are_absent(tmp_path: Path) -> None:
    write_recipe(tmp_path / "s" / "r", "stage: tokenizer\nseed: 1\n")
    text = write_card(tmp_path / "s" / "r").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## How it was trained"]
    assert "None" not in text


def test_secrets_of_a_recipe_do_not_reach_the_card(tmp_path: Path) -> None:
    token = "hf_" + "b" * 30
    write_recipe(
        tmp_path / "s" / "r",
        f"stage: sft\nseed: 1\nmodel:\n  path: org/base\nnote: {token}\ndata: /home/jane/rows.jsonl\n",
    )
    text = write_card(tmp_path / "s" / "r").read_text()
    assert token not in text
    assert "jane" not in text


def test_text_with_fences_and_pipes_stays_inside_its_block(tmp_path: Path) -> None:
    run = tmp_path / "s" / "sft"
    write_run(run, "sft")
    sample = {"prompt": "a|b", "completion": "```python\nx\n```", "stopped": False}
    (run / "samples.json").write_text(json.dumps({"before": [], "after": [sample]}))
    text = write_card(run).read_text()
    assert "````text\nprompt: a|b\nafter:  ```python\nx\n```\n````" in text
    assert "1 of 1 sampled answers did not stop" in text
