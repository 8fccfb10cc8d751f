"""Sizes of models: of those that are named, and of runs that are not there yet."""

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from alignment.errors import RecipeError
from alignment.plan.architecture import KNOWN, find_architecture, find_own_architecture
from alignment.plan.live_bytes import without_storage
from alignment.recipe.loader import load_recipe

GALLERY = Path(__file__).parents[2] / "recipes"
# Elements of the published weights, as their model cards and safetensors headers have them.
PUBLISHED = {
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "Qwen/Qwen3-0.6B-Base": 596_049_920,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "HuggingFaceTB/SmolLM3-3B-Base": 3_075_098_624,
    "EleutherAI/pythia-1b-deduped": 1_011_781_632,
    "openai-community/gpt2": 124_439_808,
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was run in this checkout must not be found, nor the Hub asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_every_known_model_has_the_number_of_its_parameters():
    assert PUBLISHED.keys() == KNOWN.keys()


@pytest.mark.parametrize("name", KNOWN)
def test_sizes_give_the_published_number_of_parameters(name):
    fields = dict(KNOWN[name])
    with without_storage():
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    assert sum(one.numel() for one in model.parameters()) == PUBLISHED[name]


def test_a_run_that_is_not_there_has_the_sizes_of_what_it_starts_from():
    found = find_architecture("runs/zephyr-7b/sft/final", GALLERY / "zephyr-7b/dpo.yaml")
    assert found.config == KNOWN["mistralai/Mistral-7B-v0.1"]
    assert found.known_from == "made by zephyr-7b/sft.yaml: published sizes of mistralai/Mistral-7B-v0.1"


def test_a_new_model_has_the_vocabulary_of_the_tokenizer_that_its_study_trains():
    path = GALLERY / "quickstart/pretrain.yaml"
    found = find_own_architecture(load_recipe(path), path)
    assert found.config["vocab_size"] == load_recipe(GALLERY / "quickstart/tokenizer.yaml").tokenizer.vocab_size
    assert found.config["hidden_size"] == load_recipe(path).model.config.hidden_size


def test_sizes_that_nobody_knows_are_refused_with_how_to_fetch_them(tmp_path):
    with pytest.raises(RecipeError, match=r"hf download acme/llama-2-new config\.json"):
        find_architecture("acme/llama-2-new", tmp_path / "sft.yaml")
