"""Tokenizers: loaded strictly, or trained with the libraries' own trainers.

A new tokenizer knows the special tokens of its chat template and a pad token from the start, so no later stage has to add a
row to a model's embeddings. Chat templates are attached by data/chat.py.
"""

import io
import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alignment.data.pad_token import NEW_PAD_TOKEN
from alignment.data.templates import TEMPLATES, template_bos_eos, template_special_tokens
from alignment.errors import ArtifactError, DataError
from alignment.recipe.model_spec import NewTokenizerSpec

DEFAULT_EOS = "<|endoftext|>"
UNKNOWN = "<unk>"


def load_tokenizer(
    path: str | Path, revision: str | None = None, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The fast tokenizer in a folder or on the Hub.

    Raises:
        ArtifactError: there is none, or only a slow one.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ArtifactError(
            f"{path}: no tokenizer can be loaded ({reason}); one was expected. Correct the path."
        ) from error
    if not tokenizer.is_fast:
        raise ArtifactError(
            f"{path}: its tokenizer has no fast form (tokenizer.json); one was expected. Convert it first."
        )
    return tokenizer


def train_tokenizer(texts: Iterable[str], spec: NewTokenizerSpec, template: str) -> PreTrainedTokenizerFast:
    """A tokenizer of exactly `spec.vocab_size` entries.

    Args:
        template: name of a chat template of this project, whose special tokens it gets; of another template (a .jinja file)
            the recipe names them in `special_tokens`.

    Raises:
        DataError: the texts do not have enough different parts for so many entries.
    """
    bos, eos = template_bos_eos(template) if template in TEMPLATES else (None, DEFAULT_EOS)
    own = template_special_tokens(template) if template in TEMPLATES else (DEFAULT_EOS,)
    special = list(dict.fromkeys([*own, NEW_PAD_TOKEN, *spec.special_tokens]))
    backend = _ALGORITHMS[spec.algorithm](texts, spec.vocab_size, special)
    if backend.get_vocab_size() != spec.vocab_size:
        raise DataError(
            f"tokenizer.vocab_size: the texts give {backend.get_vocab_size()} entries; {spec.vocab_size} were asked. "
            "Lower vocab_size, or add text."
        )
    names = {"bos_token": bos, "eos_token": eos, "unk_token": UNKNOWN if spec.algorithm == "unigram" else None}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=NEW_PAD_TOKEN,
        clean_up_tokenization_spaces=False,
        **{key: token for key, token in names.items() if token},
    )


def _make_special(tokens: list[str]) -> list[AddedToken]:
    return [AddedToken(token, special=True, normalized=False) for token in tokens]


def _train_bpe(texts: Iterable[str], vocab_size: int, special: list[str]) -> Tokenizer:
    """Byte-level BPE as in GPT-2: every text can be encoded, and no character is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_make_special(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _train_unigram(texts: Iterable[str], vocab_size: int, special: list[str]) -> Tokenizer:
    """SentencePiece's unigram model, with bytes for characters outside the vocabulary, in the form of `tokenizers`.

    Text is kept as it is: no normalisation, no space put before the first word. As with every
    SentencePiece model in this form, a ▁ comes back as a space, and text that spells <0x41> as that byte.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size - len(special),
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            unk_id=0,
            unk_piece=UNKNOWN,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,  # with several, the sums are made in another order each time
            minloglevel=2,
        )
    except RuntimeError as error:
        most = re.search(r"value <= (\d+)", str(error))
        found = f"the texts give {int(most[1]) + len(special)} entries" if most else str(error).splitlines()[0]
        raise DataError(
            f"tokenizer.vocab_size: {found}; {vocab_size} were asked. Lower vocab_size, or add text."
        ) from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(trained.id_to_piece(id_), trained.get_score(id_)) for id_ in range(len(trained))]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(_make_special([UNKNOWN]))
    tokenizer.add_special_tokens(_make_special(special))
    return tokenizer


_ALGORITHMS = {"bpe": _train_bpe, "unigram": _train_unigram}
