"""The pad token: one that is never trained on, never ends a turn, and is never found in content.

Padding with eos teaches a model not to stop (a collator that masks pads masks every eos), so eos is never taken.
"""

import re

from transformers import AddedToken, PreTrainedTokenizerBase

from alignment.errors import DataError, RecipeError

NEW_PAD_TOKEN = "<|pad|>"
_KNOWN = ("<|finetune_right_pad_id|>", NEW_PAD_TOKEN, "<pad>", "[PAD]", "<|padding|>", "<|PAD_TOKEN|>")
_RESERVED = re.compile(
    r"<\|reserved_special_token_\d+\|>|<unused_?\d+>|\[unused_?\d+\]|<\|extra_\d+\|>|<\|dummy_\d+\|>|<SPECIAL_\d+>"
)


def settle_pad_token(
    tokenizer: PreTrainedTokenizerBase, wanted: str | None, taken_ids: set[int]
) -> tuple[int, tuple[str, ...]]:
    """Gives `tokenizer` its pad token; returns its id and the tokens that had to be added to the vocabulary.

    `wanted` comes from the recipe. `taken_ids` are eos, the stop tokens and others with a meaning. In order: the wanted
    token, the tokenizer's own, a well-known or reserved one of its vocabulary, a new `<|pad|>`.
    Raises RecipeError when the wanted token is not in the vocabulary, DataError when it is taken.
    """
    taken_ids = taken_ids | {
        id_ for id_ in (tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id) if id_ is not None
    }
    vocabulary = tokenizer.get_vocab()
    if wanted is not None:
        _check_wanted(tokenizer, wanted, vocabulary, taken_ids)
    own = [tokenizer.pad_token] if tokenizer.pad_token in vocabulary else []
    reserved = sorted((token for token in vocabulary if _RESERVED.fullmatch(token)), key=vocabulary.__getitem__)
    choices = [wanted] if wanted is not None else [*own, *(t for t in _KNOWN if t in vocabulary), *reserved]
    token = next((token for token in choices if vocabulary[token] not in taken_ids), NEW_PAD_TOKEN)
    # A special token, so that text which spells it is never encoded to it.
    tokenizer.add_special_tokens({"pad_token": AddedToken(token, special=True, normalized=False)})
    return tokenizer.convert_tokens_to_ids(token), () if token in vocabulary else (token,)


def _check_wanted(tokenizer, wanted: str, vocabulary: dict[str, int], taken_ids: set[int]) -> None:
    if wanted not in vocabulary:
        raise RecipeError(
            f"chat.pad_token: {wanted!r} is not in the tokenizer's vocabulary; one of its tokens was expected."
            " Leave the key out to have a reserved or new token chosen."
        )
    if vocabulary[wanted] in taken_ids:
        raise DataError(
            f"chat.pad_token: {wanted!r} is the tokenizer's eos, bos or unk token, or one that the template uses; a token without a"
            " meaning was expected. Leave the key out to have a reserved or new token chosen."
        )
