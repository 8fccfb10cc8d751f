"""Ids of running text through tiktoken where it gives exactly those of the tokenizer, five times as fast.

Byte-level BPE is one algorithm whichever library runs it, so a `tokenizer.json` that is nothing else can be handed to tiktoken's
engine. Whether it is nothing else is not believed but tried: on adversarial strings and on a sample of the texts themselves. Where one id
differs, or tiktoken is not installed ([fast] extra), the tokenizer does the work. Special tokens that a text spells are never
special here; callers keep them apart.
"""

import json
import logging
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)
Engine = Callable[[Sequence[str]], list[list[int]]]

# GPT-2's pattern, which `ByteLevel(use_regex=True)` of tokenizers 0.23 applies (pre_tokenizers/byte_level.rs).
_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Tried on every tokenizer: spaces, digits, marks, scripts, unpaired and private characters, and what merges across them.
ADVERSARIAL = (
    "", " ", "  ", "\n", " \n ", "\t\t x", "a  b   c", "x\r\ny\r\n", "1234567890", "3.14159,26", "it's we'll I'M 'S", "''''", "don’t",
    "e\u0301 \u00e9 ﬁ ½", "日本語の文、そして中文。", "한국어 문장", "ไทยภาษา", "עִבְרִית العربية हिन्दी", "😀👩‍👩‍👧‍👦🏳️‍🌈", "\x00\x01\x7f\u200b\ufeff",
    "\U000f0000\U0010ffff", "a" * 300, "ab" * 200, "-" * 120, "= = = =", "<|endoftext|>", "<|im_start|>user", "</s><s>[INST]",
    "def f(x):\n\treturn x**2  # ok\n", '{"a": [1, 2.5e-7, null]}', "https://example.org/a?b=c&d=%20", "  lead", "trail  ", "\u3000全角\u3000", "\xa0nbsp\xa0",
    "Ünïcödé ẞ ß İ ı", "A\u030a Å", "x\u2028y\u2029z", "\u0661\u0662\u0663 ٣", "²³¹ ⅷ Ⅷ", "\ud7ff\ue000",
)  # fmt: skip


def make_engine(tokenizer: PreTrainedTokenizerBase, sample: Sequence[str]) -> Engine | None:
    """The fast engine; None where it would give other ids, or cannot be built.

    Args:
        sample: texts on which both must agree, beside the adversarial ones.
    """
    try:
        import tiktoken
    except ImportError:
        return None
    parts = _byte_level_parts(tokenizer)
    if parts is None:
        return None
    ranks, pattern = parts
    encoding = tiktoken.Encoding("derived", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [encoding.encode_ordinary(text) for text in texts]

    # An added token that is not special stays whole in the tokenizer and not in the engine.
    added = [f"a {token.content}b" for token in tokenizer.added_tokens_decoder.values()]
    trial = [*ADVERSARIAL, *added, *sample]
    slow = tokenizer(trial, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    wrong = [text for text, one, other in zip(trial, slow, encode(trial), strict=True) if one != other]
    if wrong:
        logger.info(
            "tokens: tiktoken differs on %r and %d other texts; using tokenizers", wrong[0][:40], len(wrong) - 1
        )
        return None
    return encode


def _byte_level_parts(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[bytes, int], str] | None:
    """Rank of every token's bytes and the splitting pattern; None for a tokenizer that is more than byte-level BPE."""
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    model = spec["model"]
    if model["type"] != "BPE" or spec.get("normalizer") or model.get("byte_fallback") or model.get("dropout"):
        return None
    pattern = _split_pattern(spec.get("pre_tokenizer") or {})
    if pattern is None:
        return None
    to_byte = _byte_alphabet()
    added = {token["content"] for token in spec["added_tokens"]}
    ranks = {}
    for text, number in model["vocab"].items():
        if text in added:
            continue
        if not all(char in to_byte for char in text):
            return None
        ranks[bytes(to_byte[char] for char in text)] = number
    # tiktoken merges by rank, tokenizers in the order of `merges`: alike only when ids follow that order.
    merged = [
        ranks.get(bytes(to_byte[char] for char in "".join(_pair(merge)) if char in to_byte))
        for merge in model["merges"]
    ]
    if None in merged or merged != sorted(merged) or len(ranks) != 256 + len(set(merged)):
        return None
    return ranks, pattern


def _split_pattern(pre_tokenizer: dict) -> str | None:
    parts = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"] and parts[0]["use_regex"] and not parts[0]["add_prefix_space"]:
        return _GPT2
    is_split = kinds == ["Split", "ByteLevel"] and not parts[1]["use_regex"] and not parts[1]["add_prefix_space"]
    if is_split and parts[0]["behavior"] == "Isolated" and not parts[0]["invert"] and "Regex" in parts[0]["pattern"]:
        return parts[0]["pattern"]["Regex"]
    return None


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge


def _byte_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in byte-level vocabularies, as GPT-2 numbered them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(others)}
