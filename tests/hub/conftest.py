"""A local Hub, and finished runs to publish: real folders of a tiny model, made without training."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from local_hub import TOKEN, LocalHub

from alignment.models.hashes import hash_weights
from alignment.report.receipt import make_receipt, write_receipt
from alignment.train.run_folder import write_exit

RECIPE = "stage: sft\nseed: 1\nmodel:\n  path: org/base\n  revision: abc123\nchat:\n  template: chatml\n"
MANIFEST = {
    "sources": [
        {"split": "train", "path": "org/rows", "revision": "def456", "content_hash": "x"},
        {"split": "eval", "path": "org/held-out", "revision": "0a1b2c", "content_hash": "y"},
    ],
    "max_length": 64,
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """The server; the client takes its LFS path, as HF_HUB_DISABLE_XET=1 makes it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with LocalHub() as server:
        yield server


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A final/ folder: a Llama of a few thousand weights with its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("model") / "final"
    config = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0}}}))
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture
def finished_run(tmp_path: Path, tiny_model: Path) -> Path:
    return write_finished_run(tmp_path / "runs" / "study" / "sft", tiny_model)


def write_finished_run(run_dir: Path, model: Path) -> Path:
    """A run folder as training leaves it."""
    run_dir.mkdir(parents=True)
    shutil.copytree(model, run_dir / "final")
    (run_dir / "recipe.yaml").write_text(RECIPE)
    (run_dir / "data_manifest.json").write_text(json.dumps(MANIFEST))
    receipt = make_receipt(
        stage="sft",
        recipe_hash="0123456789abcdef",
        recipe_dir=run_dir,
        seed=1,
        metrics={"exact_match": 0.875, "stops": 0.99},
        metric_errors={"exact_match": 0.0123},
        parents=[{"path": "org/base", "kind": "model"}],
        weights_hash=hash_weights(run_dir / "final"),
        seconds={"total": 3600.0},
        gpus=["NVIDIA L4", "NVIDIA L4"],
        world_size=2,
    )
    write_receipt(run_dir, receipt)
    write_exit(run_dir, 0, "done", "alignment train recipes/study/sft.yaml")
    return run_dir
