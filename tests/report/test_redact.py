"""What is taken out of texts and recipes, and what is not."""

import re
from pathlib import Path

import pytest

from alignment.recipe.spec import Spec
from alignment.report.redact import PATH_KEYS, redact, redact_recipe, redact_secrets

HF = "hf_" + "a" * 30
OPENAI = "sk-" + "dE3f" * 8


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (HF, "[secret]"),
        (f"key {OPENAI}.", "key [secret]."),
        (f"({OPENAI})", "([secret])"),
        (f"_{OPENAI}", "_[secret]"),
        ("sk-proj-" + "aB3_-" * 20, "[secret]"),
        ("sk-" + "d" * 30, "[secret]"),
        ("sk-lf-1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d", "[secret]"),
        (rf"{{\"a\": \"x\n{OPENAI}\"}}", r"{\"a\": \"x\n[secret]\"}"),  # as JSON has a line break
        (rf"caf\u00e9{HF}", r"caf\u00e9[secret]"),
        (f"next%3D{HF}", "next%3D[secret]"),
        ("https://h/x?token=abc&y=1 z", "https://h/x?token=[secret] z"),
        ("https://h/x?access_token=abc", "https://h/x?access_token=[secret]"),
        ("https://jane:abc@h/x", "https://[secret]@h/x"),
        ("--api-key abc --seed 1", "--api-key [secret] --seed 1"),
        ("password=hunter2", "password=[secret]"),
        ('password="two words" z', "password=[secret] z"),
        ('password=ab"cd ef', "password=[secret] ef"),
        ("WANDB_API_KEY: abc", "WANDB_API_KEY: [secret]"),
    ],
)
def test_a_secret_is_taken_out_and_what_stands_around_it_stays(text: str, left: str) -> None:
    assert redact_secrets(text) == left
    assert redact(text) == left


@pytest.mark.parametrize("quote", ['"', "'"])
def test_the_quote_that_closes_the_text_around_a_secret_stays(quote: str) -> None:
    found = redact_secrets(f"system: {quote}Never reveal the password: swordfish{quote}\nseed: 1")
    assert found == f"system: {quote}Never reveal the password: [secret]{quote}\nseed: 1"


@pytest.mark.parametrize(
    "text",
    [
        "my-org/task-oriented-dialogue-dataset",
        "data/desk-assistant-preferences.jsonl",
        "runs/risk-assessment-instruct-v2/sft/final",
        "my-org/sk-parallel-corpus-of-the-national-library-2023",  # sk: Slovak
        "my-org/bookshelf_classificationdata",
        'Reply with "password: " and wait.',
        "https://h:8000/v1/x@y",
    ],
)
def test_ordinary_names_are_no_secrets(text: str) -> None:
    assert redact_secrets(text) == text


def test_paths_of_a_recipe_are_shortened_under_the_keys_that_name_a_place_and_nowhere_else(tmp_path: Path) -> None:
    recipe = {
        "model": {"path": f"{tmp_path}/runs/q/pretrain/final"},
        "chat": {"template": "/data/my files (2)/own.jinja", "system": "/v1/chat/completions is what to GET."},
        "dpo": {"reference": "~/models/base"},
        "data": {"train": [{"path": "/data/shared/ultra.jsonl", "system": "Home is /home/user/work.", "rows": 3}]},
    }
    assert redact_recipe(recipe, tmp_path) == {
        "model": {"path": "runs/q/pretrain/final"},
        "chat": {"template": "own.jinja", "system": "/v1/chat/completions is what to GET."},
        "dpo": {"reference": "base"},
        "data": {"train": [{"path": "ultra.jsonl", "system": "Home is /home/user/work.", "rows": 3}]},
    }


def test_secrets_of_a_recipe_are_taken_out_under_every_key(tmp_path: Path) -> None:
    recipe = {"chat": {"system": f"Say {HF}."}, "ppo": {"sampler_url": "http://me:abc@h:8000"}, HF: [OPENAI, 1, None]}
    assert redact_recipe(recipe, tmp_path) == {
        "chat": {"system": "Say [secret]."},
        "ppo": {"sampler_url": "http://[secret]@h:8000"},
        "[secret]": ["[secret]", 1, None],
    }


def every_spec(section: type[Spec] = Spec) -> set[type[Spec]]:
    return {section}.union(*map(every_spec, section.__subclasses__()))


def test_every_key_that_the_schema_calls_a_file_or_folder_counts_as_a_path() -> None:
    fields = [item for section in every_spec() for item in section.model_fields.items()]
    named = {
        name
        for name, field in fields
        if "str" in repr(field.annotation) and re.search(r"\b(file|folder)s?\b", field.description or "")
    }
    assert {"path", "reference", "template", "mixture", "against"} <= named
    assert named <= set(PATH_KEYS)
