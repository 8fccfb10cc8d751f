"""Which file a config's name means, and what it asks for."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from alignment.errors import RecipeError
from alignment.launch.configs import find_config, known_configs, read_config

STRATEGIES = ["ddp", "fsdp2", "zero1", "zero2", "zero3"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_config_of_the_repository_says_strategy_and_number_of_processes_only(configs, name):
    path = configs / f"{name}.yaml"
    found = read_config(path)
    assert (found.strategy, found.num_processes) == (name, 8)
    text = path.read_text()
    assert len(text.splitlines()) <= 15
    content = YAML(typ="safe").load(text)
    assert not {"mixed_precision", "use_cpu", "downcast_bf16"} & set(content)
    assert not {"gradient_accumulation_steps", "gradient_clipping"} & set(content.get("deepspeed_config", {}))


def test_a_name_is_found_in_the_repository_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path / "mine/accelerate_configs/ours.yaml", "distributed_type: MULTI_GPU\nnum_processes: 4\n")
    recipe = write(tmp_path / "mine/recipes/study/sft.yaml", "")
    assert find_config("ours", recipe).path == own
    assert find_config("zero3", recipe).strategy == "zero3"
    assert set(known_configs(recipe)) == {"ours", *STRATEGIES}


def test_the_current_folder_comes_before_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = write(tmp_path / "accelerate_configs/ddp.yaml", "distributed_type: MULTI_GPU\nnum_processes: 4\n")
    assert (find_config("ddp").path.resolve(), find_config("ddp").num_processes) == (own.resolve(), 4)


def test_a_path_is_taken_as_it_is(tmp_path):
    path = write(tmp_path / "my.yaml", "distributed_type: MULTI_GPU\n")
    assert find_config(str(path)).num_processes is None


@pytest.mark.parametrize("name", ["zero4", "configs/zero3.yaml"])
def test_an_unknown_name_is_refused_with_those_that_there_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="one of ddp, fsdp2, zero1, zero2, zero3, or a file was expected"):
        find_config(name)


ZERO = "distributed_type: DEEPSPEED\ndeepspeed_config:\n  zero_stage: 3\n  zero3_save_16bit_model: true\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("distributed_type: MULTI_CPU\n", "distributed_type: MULTI_CPU; MULTI_GPU, DEEPSPEED or FSDP was expected"),
        ("distributed_type: 'NO'\n", "distributed_type: NO; MULTI_GPU"),
        ("num_processes: 2\n", "distributed_type: None; MULTI_GPU"),
        ("distributed_type: MULTI_GPU\nuse_cpu: true\n", "use_cpu: true; nothing was expected"),
        ("distributed_type: FSDP\nfsdp_config:\n  fsdp_version: 1\n", "fsdp_version: 1; 2 was expected"),
        ("distributed_type: FSDP\n", "fsdp_version: 1; 2 was expected"),
        (ZERO.replace("true", "false"), "zero3_save_16bit_model: False; true was expected"),
        (ZERO.replace("zero_stage: 3", "zero_stage: 0"), "zero_stage: 0; 1, 2 or 3"),
        (ZERO + "  gradient_accumulation_steps: 4\n", "gradient_accumulation_steps: 4; 'auto' was expected"),
        (ZERO + "  gradient_clipping: 1.0\n", "train.max_grad_norm of the recipe decides it"),
        (ZERO + "  deepspeed_config_file: ds.json\n", "deepspeed_config_file"),
        ("- a\n", "found list; keys of accelerate"),
        ("a: [\n", "YAML of accelerate was expected"),
    ],
)
def test_what_would_not_train_as_the_recipe_says_is_refused(tmp_path, text, reason):
    path = write(tmp_path / "config.yaml", text)
    with pytest.raises(RecipeError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)


def test_auto_is_what_a_zero_config_may_say(tmp_path):
    text = ZERO + "  gradient_accumulation_steps: auto\n  gradient_clipping: auto\n"
    assert read_config(write(tmp_path / "config.yaml", text)).strategy == "zero3"
