"""A checkpoint of a mixture of experts is read whole, though its names are not the model's."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from alignment.errors import ArtifactError
from alignment.train.renamed import load_renamed


def make_model(kind: str, **further):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, num_key_value_heads=2, **further))


def test_experts_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    model = make_model("mixtral", num_local_experts=2)
    model.save_pretrained(tmp_path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    # As transformers' Trainer reads it. Once this leaves nothing out, the file under test has had its time.
    missing = model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False).missing_keys
    assert any("experts" in name for name in missing)
    assert load_renamed(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_experts_come_back_from_several_files_and_none_is_left_at_random(tmp_path: Path) -> None:
    model = make_model("mixtral", num_local_experts=2)
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.nn.init.zeros_(model.lm_head.weight)
    assert load_renamed(model, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    other = make_model("mixtral", num_local_experts=2, tie_word_embeddings=False)
    other.save_pretrained(tmp_path / "other")
    weights = load_file(tmp_path / "other/model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "q_proj" not in name},
        tmp_path / "other/model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(ArtifactError, match="1 weights are missing"):
        load_renamed(other, tmp_path / "other")


def test_a_checkpoint_with_the_models_own_names_is_left_alone(tmp_path: Path) -> None:
    model = make_model("llama")
    model.save_pretrained(tmp_path)
    assert not load_renamed(model, tmp_path)
    assert not load_renamed(model, tmp_path / "nowhere")
