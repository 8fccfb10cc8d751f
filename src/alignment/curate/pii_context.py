"""Whether a number is personal data, by the words around it and by its form: a linear model beside the patterns of `pii.py`.

A loose pattern proposes numbers. Of each, a few dozen features are hashed to a table of small whole weights, and their sum says how
much the number is a phone number, a card or a US social security number. Sums of whole numbers are the same on every machine.
The table lies beside this file and is made by `pii_training.py`; nothing is learnt here, and only numpy is needed.
"""

import re
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

WEIGHTS_PATH = Path(__file__).with_name("pii_weights.npz")
KINDS = ("phone", "card", "ssn")
BUCKETS = 1 << 14
_TAG_END = r"(?:EMAIL|PHONE|IP|CARD|IBAN|SSN|SECRET)(?:-[0-9a-f]{8})?>"
TAG = re.compile(f"<{_TAG_END}")  # what `pii.replace` writes
TAG_END = re.compile(rf"\b{_TAG_END}")  # what a window may leave of it
_DASHES = "\u2010\u2011\u2012\u2013"
_SPACES = "\u00a0\u202f"
_GAP = rf"(?: [-/{_DASHES}] |[ .\-/(){_DASHES}{_SPACES}]{{1,2}})"
# Whole runs of groups of digits: a row of a table is one run, and too long.
_CANDIDATE = re.compile(rf"(?<!\w)(?:\+\(?|\()?\d++(?:{_GAP}\d++)*+(?: ?(?:x|ext\.?) ?\d{{1,5}}(?!\w))?")
_DECIMAL = re.compile(r"\d+\.\d+")
_TOKEN = re.compile(rf"{TAG.pattern}|[^\W\d_]+|\d+|[^\w ]|_")
_AS_ASCII = str.maketrans(dict.fromkeys(_DASHES, "-") | dict.fromkeys(_SPACES, " "))
_LEFT, _RIGHT = 60, 40  # characters of context
_LEFT_TOKENS, _RIGHT_TOKENS = 6, 4
_UNSPACED = "\u0e00"  # scripts from here on (Thai, Chinese, Japanese, Korean) are looked at by pairs of characters


@cache
def load_weights() -> dict[str, np.ndarray]:
    """`weights` [BUCKETS, len(KINDS)] int8; `add` and `veto` [len(KINDS)], the sums above and below which they decide."""
    with np.load(WEIGHTS_PATH, allow_pickle=False) as file:
        return {name: file[name].astype(np.int32) for name in ("weights", "add", "veto")}


def propose(text: str) -> Iterator[tuple[int, int]]:
    """Numbers of 7 to 19 digits in text, other than decimals and parts of paths, prices and longer numbers."""
    for match in _CANDIDATE.finditer(text):
        start, end = match.span()
        opened, closed = match.group().count("("), match.group().count(")")
        if opened > closed and match.group()[0] == "(":
            start, opened = start + 1, opened - 1
        if opened != closed or not 7 <= end - start <= 40 or not 7 <= count_digits(match.group()) <= 19:
            continue
        before, after = text[max(0, start - 2) : start], text[end : end + 2]
        if before[-1:] and (before[-1] in "/\\#&%~.,-@$€£^*" or (before[-1] in ":'" and before[:1].isdigit())):
            continue
        if after and (
            after[0].isalnum() or after[0] in "_@/\\%$€£^*=" or (after[0] in ".,:-'" and after[1:].isdigit())
        ):
            continue
        if not _DECIMAL.fullmatch(text[start:end].lstrip("(+")):
            yield start, end


def count_digits(text: str) -> int:
    return sum(char.isdecimal() for char in text)


def score(text: str, start: int, end: int) -> np.ndarray:
    """Sums [len(KINDS)]; higher is more personal."""
    return load_weights()["weights"][hash_features(text, start, end)].sum(axis=0)


def hash_features(text: str, start: int, end: int) -> list[int]:
    """Places in the table, each once."""
    names = [*_form(text, start, end), *_context(text, start, end)]
    return sorted({zlib.crc32(name.encode("utf-8", "surrogatepass")) % BUCKETS for name in names})


def _form(text: str, start: int, end: int) -> Iterator[str]:
    number = text[start:end].translate(_AS_ASCII)
    shape = re.sub(r"\d", "9", number)
    yield "bias"
    yield f"shape {shape}"
    yield f"groups {re.sub('9+', '9', shape)}"
    yield f"digits {count_digits(number)}"
    yield f"first {number[0]}"
    yield f"begins {number[:2]}"
    yield f"glued left {text[start - 1 : start].strip()[:1]}"
    yield f"glued right {text[end : end + 1].strip()}"


def _context(text: str, start: int, end: int) -> Iterator[str]:
    left = _tokens(text[max(0, start - _LEFT) : start])[-_LEFT_TOKENS:]
    right = _tokens(text[end : end + _RIGHT])[:_RIGHT_TOKENS]
    for side, tokens, nearest in (("l", left, left[::-1]), ("r", right, right)):
        for token in tokens:
            yield f"{side} {token}"
            if len(token) > 4:
                yield f"{side} begins {token[:4]}"
            if token[-1] >= _UNSPACED:
                yield from (f"{side} pair {one}{other}" for one, other in zip(token[-8:], token[-7:], strict=False))
        near = [*nearest[:2], "none", "none"]
        yield f"{side} nearest {near[0]}"
        yield f"{side} second {near[1]}"
        yield f"{side} both {near[0]} {near[1]}"


def _tokens(text: str) -> list[str]:
    """Lower-case words and single signs; what has been replaced is as good as the number that stood there."""
    return ["0" if token[0].isdigit() or TAG.fullmatch(token) else token.lower() for token in _TOKEN.findall(text)]
