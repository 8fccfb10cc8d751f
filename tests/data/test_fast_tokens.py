"""The fast engine gives the tokenizer's ids or is not used."""

import pytest
from chat_tokenizers import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from alignment.data.fast_tokens import make_engine
from alignment.models.tokenizer import train_tokenizer
from alignment.recipe.model_spec import NewTokenizerSpec

pytest.importorskip("tiktoken")
TEXTS = [
    f"The {word} of {number} things, isn't it? {word * 3}"
    for number, word in enumerate(["cat", "Haus", "été", "語"] * 40)
]
TRAINED = train_tokenizer(TEXTS, NewTokenizerSpec(algorithm="bpe", vocab_size=400), ["<|endoftext|>"])
ENGINE = make_engine(TRAINED, TEXTS)


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=80))
@settings(max_examples=400, deadline=None)
def test_any_text_has_the_tokenizers_ids(text: str) -> None:
    assert ENGINE([text]) == [ids_of(TRAINED, text)]


def test_text_that_spells_a_special_token_is_ordinary_text() -> None:
    text = "before <|endoftext|> after"
    assert TRAINED.convert_tokens_to_ids("<|endoftext|>") not in ENGINE([text])[0]
    assert ENGINE([text]) == [ids_of(TRAINED, text)]


@pytest.mark.parametrize(
    ("kind", "is_fast"), [("bytes", True), ("bytes_split", True), ("bytes_prefix", False), ("metaspace_first", False)]
)
def test_only_byte_level_bpe_is_handed_over(kind: str, is_fast: bool) -> None:
    assert (make_engine(make_tokenizer("chatml", kind), []) is not None) is is_fast


def rebuilt(change) -> PreTrainedTokenizerFast:
    backend = Tokenizer.from_str(TRAINED.backend_tokenizer.to_str())
    change(backend)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def _shuffle_merges(backend: Tokenizer) -> None:
    import json

    model = json.loads(backend.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    backend.model = models.BPE(vocab=model["vocab"], merges=merges[::-1])


CHANGES = {
    "a normalizer": lambda backend: setattr(backend, "normalizer", normalizers.Lowercase()),
    "another splitter": lambda backend: setattr(backend, "pre_tokenizer", pre_tokenizers.Whitespace()),
    "an added word": lambda backend: backend.add_tokens([AddedToken("isn't it")]),
    "merges in another order": _shuffle_merges,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_tokenizer_that_does_anything_else_is_left_alone(change) -> None:
    assert make_engine(rebuilt(lambda backend: None), TEXTS) is not None
    assert make_engine(rebuilt(change), TEXTS) is None


def test_a_pattern_that_differs_on_a_sample_only_is_refused() -> None:
    from tokenizers import Regex

    def change(backend: Tokenizer) -> None:
        # tiktoken's engine reads (?s:.) alike; a lookbehind that sees across pieces is where they part.
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex("zq|[a-z]+|[^a-z]+"), "removed"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )

    assert make_engine(rebuilt(change), ["zq zq"]) is None
