import pytest

from alignment.data.chat import load_chat
from alignment.errors import ArtifactError, DataError
from alignment.models.tokenizer import load_tokenizer, train_tokenizer
from alignment.recipe.model_spec import ChatSpec, NewTokenizerSpec

PARTS = [a + b for a in ("ba", "ke", "lo", "mi", "su", "ran") for b in ("da", "fel", "gor", "nit", "pu", "zan")]
TEXTS = [f"The {one}{other} of {other} is  {one[::-1]}.\n" for one in PARTS for other in PARTS]


def train(algorithm: str, vocab_size: int = 350, **further):
    return train_tokenizer(TEXTS, NewTokenizerSpec(algorithm=algorithm, vocab_size=vocab_size, **further), "chatml")


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("text", ["The gate of Arda", "  two  spaces\n\nand lines\t", "é☃ 日本語 🙂", "x" * 50])
def test_any_text_comes_back(algorithm: str, text: str) -> None:
    tokenizer = train(algorithm)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_the_vocabulary_has_the_size_asked_special_tokens_included(algorithm: str) -> None:
    tokenizer = train(algorithm, special_tokens=("<|mine|>",))
    assert len(tokenizer) == 350
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|pad|>", "<|mine|>"):
        assert len(tokenizer(token, add_special_tokens=False).input_ids) == 1


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_training_twice_gives_the_same_tokenizer(algorithm: str) -> None:
    assert train(algorithm).backend_tokenizer.to_str() == train(algorithm).backend_tokenizer.to_str()


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_its_template_holds_and_its_pad_token_is_its_own(algorithm: str, tmp_path) -> None:
    chat = load_chat(train(algorithm), ChatSpec(template="chatml"), tmp_path)
    assert chat.added_tokens == ()
    assert chat.pad_id == chat.tokenizer.convert_tokens_to_ids("<|pad|>")


def test_too_little_text_is_refused_with_how_much_there_is() -> None:
    for algorithm in ("bpe", "unigram"):
        with pytest.raises(DataError, match=r"the texts give \d+ entries; 9000 were asked"):
            train(algorithm, 9000)


def test_a_folder_without_a_tokenizer_is_refused_by_name(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="no tokenizer can be loaded"):
        load_tokenizer(tmp_path)


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path) -> None:
    tokenizer = train("unigram")
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)(TEXTS).input_ids == tokenizer(TEXTS).input_ids
