"""Every key of `model.config` is one that the installed transformers reads under that name."""

from pathlib import Path

import pytest
import transformers
from recipe_files import CONFIG_VALUES, CONFIGS, config_recipe
from transformers import CONFIG_MAPPING

from alignment.errors import RecipeError
from alignment.recipe.loader import load_recipe
from alignment.recipe.model_config import Gpt2ConfigSpec
from alignment.recipe.scalars import read_scalar

# Keys that transformers 5.23 reads from a configuration that does not declare them.
UNDECLARED = {"qwen3_moe": ["head_dim"]}


def config_of(spec_class: type, tmp_path):
    path = tmp_path / "pretrain.yaml"
    path.write_text(config_recipe(spec_class))
    return load_recipe(path).model.config


@pytest.mark.parametrize("spec_class", CONFIGS)
def test_every_key_is_a_key_of_transformers(spec_class, tmp_path) -> None:
    """A configuration class takes any keyword and keeps it, so a wrong name shows only in its defaults."""
    spec = config_of(spec_class, tmp_path)
    config_class = CONFIG_MAPPING[spec.model_type]
    known = {*config_class().to_dict(), *config_class.attribute_map, *UNDECLARED.get(spec.model_type, ())}
    assert [name for name in spec.arguments() if name not in known] == []


@pytest.mark.parametrize(("model_type", "name"), [(kind, name) for kind, names in UNDECLARED.items() for name in names])
def test_a_key_that_no_configuration_declares_is_read_by_the_model(model_type: str, name: str) -> None:
    folder = Path(transformers.__file__).parent / "models" / model_type
    assert f'getattr(config, "{name}"' in (folder / f"modeling_{model_type}.py").read_text()


@pytest.mark.parametrize("spec_class", CONFIGS)
def test_every_value_arrives_and_differs_from_the_default(spec_class, tmp_path) -> None:
    spec = config_of(spec_class, tmp_path)
    built = CONFIG_MAPPING[spec.model_type](**spec.arguments())
    default = CONFIG_MAPPING[spec.model_type]()
    for name in spec_class.model_fields:
        if name in ("model_type", "rope_theta"):
            continue
        expected, _, _ = read_scalar(CONFIG_VALUES[name])
        assert getattr(built, name) == expected, name
        if name != "tie_word_embeddings":  # true is gpt2's default
            assert getattr(default, name, None) != expected, f"{name}: the test could not tell"


@pytest.mark.parametrize("spec_class", [spec for spec in CONFIGS if "rope_theta" in spec.model_fields])
def test_the_rotary_base_arrives(spec_class, tmp_path) -> None:
    spec = config_of(spec_class, tmp_path)
    built = CONFIG_MAPPING[spec.model_type](**spec.arguments())
    assert built.rope_parameters["rope_theta"] == 123.0
    assert built.rope_parameters["rope_type"] == "default"


def test_a_key_left_out_keeps_the_default_of_transformers() -> None:
    spec = Gpt2ConfigSpec(model_type="gpt2", n_embd=8, n_layer=1, n_head=1, n_positions=16)
    assert spec.arguments() == {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_positions": 16}


@pytest.mark.parametrize("spec_class", [spec for spec in CONFIGS if "head_dim" in spec.model_fields])
def test_heads_follow_the_other_sizes_unless_given(spec_class) -> None:
    """Qwen3 would take 128-wide heads, Llama 32 key heads, whatever the width."""
    sizes = {"hidden_size": 48, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 3}
    model_type = spec_class.model_fields["model_type"].annotation.__args__[0]
    built = CONFIG_MAPPING[model_type](**spec_class(model_type=model_type, **sizes).arguments())
    assert (built.num_key_value_heads, built.head_dim) == (3, 16)


@pytest.mark.parametrize(
    ("model_type", "sizes", "wrong"),
    [
        ("llama", {"hidden_size": 30, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4}, "num_attention_heads"),
        ("qwen3", {"hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 3},
         "num_key_value_heads"),
        ("gpt2", {"n_embd": 30, "n_layer": 1, "n_head": 4, "n_positions": 16}, "n_head"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_divide_are_refused_at_their_line(tmp_path, model_type: str, sizes: dict, wrong: str) -> None:
    lines = "".join(f"    {name}: {value}\n" for name, value in sizes.items())
    path = tmp_path / "pretrain.yaml"
    path.write_text(
        f"stage: pretrain\nmodel:\n  config:\n    model_type: {model_type}\n{lines}tokenizer:\n  path: t\ndata:\n  train:\n"
        "    - path: a.txt\n      format: text\ntrain:\n  max_steps: 1\n  learning_rate: 0.1\n"
    )
    line = 5 + list(sizes).index(wrong)
    with pytest.raises(RecipeError, match=rf"pretrain.yaml:{line}:.*is no multiple of"):
        load_recipe(path)
