"""Chat templates that lie beside a recipe hold what the package's own hold."""

from pathlib import Path

import pytest
from chat_tokenizers import wrap_tokenizer

from alignment.data.chat import load_chat, render
from alignment.data.template_check import check_template
from alignment.recipe.loader import load_recipe

TULU = Path(__file__).parents[2] / "recipes" / "tulu3-8b"


@pytest.mark.parametrize("kind", ["bytes", "metaspace_first"])
def test_tulu_holds_what_a_template_must(kind: str) -> None:
    tokenizer = wrap_tokenizer(kind, ["<s>", "</s>"], bos="<s>", eos="</s>")
    chat = load_chat(tokenizer, load_recipe(TULU / "sft.yaml").chat, TULU)
    assert check_template(chat) == []


def test_tulu_writes_what_open_instruct_writes() -> None:
    """open_instruct/dataset_transformation.py, CHAT_TEMPLATES["tulu"], worked out by hand for two turns."""
    tokenizer = wrap_tokenizer("bytes", ["<s>", "</s>"], bos="<s>", eos="</s>")
    chat = load_chat(tokenizer, load_recipe(TULU / "sft.yaml").chat, TULU)
    said = [("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye"), ("assistant", "Bye.")]
    row = render(chat, [{"role": role, "content": text} for role, text in said])
    text = tokenizer.decode(row.ids)
    assert text == "<|user|>\nHi\n<|assistant|>\nYes?</s>\n<|user|>\nBye\n<|assistant|>\nBye.</s>"
