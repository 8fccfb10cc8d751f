"""A local Hub, and finished runs to publish: real folders of a tiny model, made without training."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished_runs import write_finished_run
from huggingface_hub import HfApi, HfFileSystem, close_session, constants
from local_hub import TOKEN, LocalHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """The server; the client takes its LFS path, as HF_HUB_DISABLE_XET=1 makes it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # Listings and open connections are kept by address, and the port of an earlier test's hub may be given again.
    HfFileSystem.clear_instance_cache()
    close_session()
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
