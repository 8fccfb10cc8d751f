"""Merging an adapter-only run: which base, how far apart, and a folder that everything else takes for a run."""

import json
from pathlib import Path

import pytest
import study as written
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from alignment.cli import main
from alignment.commands.chat import find_model
from alignment.hub.staging import check_verified, stage_run

ADAPTER_ONLY = written.LORA + "  save: adapter\n"


@pytest.fixture
def adapter_run(study: Path) -> Path:
    written.write_recipe(study, "adapter", written.CHAT.format(lora=ADAPTER_ONLY, steps=6))
    assert written.run("adapter") == 0
    return study / "runs" / "study" / "adapter"


@pytest.mark.slow
def test_the_merged_model_is_the_adapter_on_its_base(
    adapter_run: Path, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    assert main(["merge", "runs/study/adapter", "--dtype", "float32"]) == 0
    said = capsys.readouterr().out
    assert "base: runs/study/pretrain/final" in said
    assert "greedy tokens: 100.0% of" in said
    merged = AutoModelForCausalLM.from_pretrained("runs/study/adapter-merged/final")
    base = load_file("runs/study/pretrain/final/model.safetensors")
    adapter = load_file(adapter_run / "adapter" / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a = adapter[f"base_model.model.{name}.lora_A.weight"]
    b = adapter[f"base_model.model.{name}.lora_B.weight"]
    expected = base[f"{name}.weight"] + (8 / 4) * b @ a  # lora_alpha / r
    assert torch.allclose(merged.state_dict()[f"{name}.weight"], expected, atol=1e-6)
    receipt = written.read_json(Path("runs/study/adapter-merged/receipt.json"))
    assert receipt["parents"][-1]["kind"] == "adapter"
    assert receipt["merge"]["agreement"] == 1.0
    assert receipt["merge"]["gap"] < 1e-5
    assert find_model("runs/study/adapter-merged") == "runs/study/adapter-merged/final"
    (tmp_path / "staged").mkdir()
    staged = stage_run(check_verified(Path("runs/study/adapter-merged")), "org/name", tmp_path / "staged")
    assert "adapter_config.json" not in staged.files
    card = (tmp_path / "staged" / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "Merged into runs/study/pretrain/final" in card
    assert main(["merge", "runs/study/adapter"]) == 2
    assert "exists and is not overwritten" in capsys.readouterr().err


@pytest.mark.slow
def test_a_base_that_was_trained_again_is_refused(adapter_run: Path, capsys: pytest.CaptureFixture) -> None:
    path = Path("runs/study/pretrain/final/model.safetensors")
    weights = load_file(path)
    weights["model.norm.weight"] += 0.5
    save_file(weights, path, metadata={"format": "pt"})
    assert main(["merge", "runs/study/adapter"]) == 7
    assert "are not those that it was trained on" in capsys.readouterr().err
    assert not Path("runs/study/adapter-merged").exists()


@pytest.mark.slow
def test_a_merge_that_loses_the_adapter_is_caught(
    adapter_run: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug that this command is for: a result without the updates."""
    monkeypatch.setattr("alignment.train.merge.merge_put_adapter", lambda model, dtype: model.unload().to(dtype))
    assert main(["merge", "runs/study/adapter", "--dtype", "float32"]) == 7
    assert "of the greatest logit" in capsys.readouterr().err
    assert not Path("runs/study/adapter-merged/final").exists()


def test_a_whole_model_is_not_merged_again(study: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["merge", "runs/study/sft"]) == 2
    assert "a whole model already" in capsys.readouterr().err
    assert json.loads(Path("runs/study/sft/exit.json").read_text())["code"] == 0
