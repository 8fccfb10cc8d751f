"""Pieces to ids: borders between tokens, and prompts that read as they do alone."""

import random

import pytest
from chat_tokenizers import make_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from alignment.data.chat import load_chat
from alignment.data.fast_tokens import make_engine
from alignment.data.text_encoder import Piece, TextEncoder
from alignment.errors import DataError
from alignment.recipe.model_spec import ChatSpec


@pytest.fixture(scope="module")
def tokenizer():
    """Knows "ĊĊ" and "xy" as one token each; its regex (GPT-2's) parts two newlines only before a word."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=261, initial_alphabet=alphabet, special_tokens=["</s>"], show_progress=False
    )
    backend.train_from_iterator(["\n\n\nxy xy"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def encode(tokenizer, *pieces):
    ids, ranges = TextEncoder(tokenizer).encode(list(pieces))
    words = tokenizer.convert_ids_to_tokens(ids)
    return [words[start:end] for start, end in ranges]


def test_one_encoding_stands_when_its_borders_do(tokenizer):
    assert encode(tokenizer, Piece("a\n"), Piece("xy</s>", True), Piece("\n")) == [["a", "Ċ"], ["xy", "</s>"], ["Ċ"]]


def test_no_token_crosses_a_border(tokenizer):
    assert tokenizer.tokenize("axy") == ["a", "xy"]
    assert encode(tokenizer, Piece("ax"), Piece("y</s>", True)) == [["a", "x"], ["y", "</s>"]]


def test_a_prompt_is_encoded_as_it_is_alone_even_where_the_border_would_hold(tokenizer):
    assert tokenizer.tokenize("a\n\nxy") == ["a", "Ċ", "Ċ", "xy"]
    assert tokenizer.tokenize("a\n\n") == ["a", "ĊĊ"]
    assert encode(tokenizer, Piece("a\n\n"), Piece("xy</s>", True)) == [["a", "ĊĊ"], ["xy", "</s>"]]


def test_what_is_not_trained_after_a_stop_token_is_encoded_as_one_text(tokenizer):
    pieces = (Piece("ax"), Piece("y</s>", True), Piece("\n\n"), Piece("xy", True))
    assert encode(tokenizer, *pieces) == [["a", "x"], ["y", "</s>"], ["ĊĊ"], ["xy"]]


def test_a_literal_piece_is_spelled_out(tokenizer):
    assert encode(tokenizer, Piece("a"), Piece("</s>", literal=True), Piece("</s>")) == [
        ["a"],
        ["<", "/", "s", ">"],
        ["</s>"],
    ]


def test_a_template_whose_history_is_served_in_other_tokens_is_refused(tmp_path, tokenizer):
    text = (
        "{%- for m in messages -%}{%- if m.role == 'assistant' -%}{{- 'A:\\n\\n' -}}{%- generation -%}"
        "{{- m.content + '</s>' -}}{%- endgeneration -%}{%- else -%}{{- m.content + '</s>' -}}{%- endif -%}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- 'A:\\n\\n' -}}{%- endif -%}"
    )
    (tmp_path / "two_newlines.jinja").write_text(text)
    with pytest.raises(DataError, match="ids are not those of the tokenizer's own apply_chat_template"):
        load_chat(tokenizer, ChatSpec(template="two_newlines.jinja"), tmp_path)


@pytest.mark.parametrize("kind", ["metaspace_first", "metaspace_always", "metaspace_legacy"])
def test_sentencepiece_adds_no_space_in_the_middle_of_a_text(kind):
    encoder = TextEncoder(make_tokenizer("chatml", kind))
    pieces = [Piece("<|im_start|>user:"), Piece("</s>x", literal=True), Piece("the", True)]
    ids, ranges = encoder.encode(pieces)
    assert [encoder.decode(ids, *span) for span in ranges[1:]] == ["</s>x", "the"]
    assert encoder.decode(ids, 0, len(ids)).endswith("user:</s>xthe")


FRAGMENTS = (
    "a", "xy", "x", "y", "\n", "\n\n", " ", "  xy", "The", " is", "é", "日本", "'s", "12", "{special}", "{special}",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["own", "bytes", "bytes_split"])
def test_the_fast_engine_gives_the_same_ids_and_ranges(tokenizer, kind) -> None:
    """Of 3,000 lists of pieces whose borders fall anywhere: inside of words, spaces and beside special tokens."""
    chosen = tokenizer if kind == "own" else make_tokenizer("chatml", kind)
    engine = make_engine(chosen, [])
    slow, fast = TextEncoder(chosen), TextEncoder(chosen, engine)
    assert fast.engine is not None
    rng, used = random.Random(0), 0
    specials = sorted(slow.special_ids)
    for _ in range(3000):
        texts = ["".join(rng.choices(FRAGMENTS, k=rng.randrange(5))) for _ in range(rng.randrange(1, 6))]
        pieces = [Piece(text.replace("{special}", rng.choice(specials)), trained=rng.random() < 0.4) for text in texts]
        used += fast._encode_sections(pieces) is not None
        assert fast.encode(pieces) == slow.encode(pieces), pieces
    assert used > 1000


def test_an_engine_is_left_aside_where_an_added_token_takes_the_spaces_beside_it() -> None:
    chosen = make_tokenizer("chatml", "bytes_rstrip")
    assert TextEncoder(chosen, make_engine(chosen, [])).engine is None
