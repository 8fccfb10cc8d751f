"""Words of any script, quickly: for the filters, and folded for comparing texts.

Filters take a datatrove WordTokenizer by object, never by language code: datatrove 0.10.1 gives 26 two-letter codes a wrong one
(`zh` whitespace, `hi` a Kurdish model), and its English one, spaCy's, does 0.6 MB/s where this does 27.
"""

import re
import unicodedata

import regex
from datatrove.utils.text import PUNCTUATION_TRANS
from datatrove.utils.word_tokenizers import WordTokenizer

# Scripts without spaces between words are cut into stretches about as long as their words.
_HAN = r"\p{Han}\p{Hiragana}\p{Katakana}"
_THAI = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_ASCII_WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
_WORD = regex.compile(
    rf"[{_HAN}]{{1,2}}|[{_THAI}]{{1,4}}|(?:(?![{_HAN}{_THAI}])[\p{{L}}\p{{M}}\p{{N}}_])+"
    rf"(?:['’](?:(?![{_HAN}{_THAI}])[\p{{L}}\p{{M}}\p{{N}}_])+)*|[^\p{{L}}\p{{M}}\p{{N}}_\s]"
)
SPACELESS = regex.compile(rf"[{_HAN}{_THAI}]")
_SENTENCE = regex.compile(r"(?<=[.!?。！？।؟…])['\"”’」』)]*\s*")
_ASCII_NUMBER = re.compile(rb"[0-9]+(?:[.,][0-9]+)?")
_NUMBER = re.compile(r"\d+(?:[.,،٫⎖⎗⎘]\d+)?")
_MARKS = regex.compile(r"\p{Mn}+")
_OTHER = re.compile(r"[^\x00-\x7f]+")
_FOLDED: dict[str, str | None] = {}  # of stretches outside ASCII; None: not to letters and spaces alone
_MAX_FOLDED = 100_000
_ASCII_FOLD = bytes(ord(chr(code).lower().translate(PUNCTUATION_TRANS)) if code < 128 else code for code in range(256))


class Words(WordTokenizer):
    """A word tokenizer for every language."""

    def word_tokenize(self, text: str) -> list[str]:
        """Words and single punctuation marks."""
        return _ASCII_WORD.findall(text) if text.isascii() else _WORD.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences, by the marks that end them."""
        return [part for part in _SENTENCE.split(text) if part.strip()]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Unused by the filters here; the whole text is one span."""
        return [(0, len(text))]


def fold(text: str) -> list[bytes]:
    """Words without case, punctuation, accents and the value of numbers, as UTF-8.

    Where words are parted by spaces they are those of datatrove's `simplify_text(text).split()` (0.10.1; a test holds them
    equal); other scripts are cut into single characters, of which datatrove would make one word a sentence.
    """
    if not text.isascii():
        text = _ascii_or_same(text)
    if text.isascii():
        return _ASCII_NUMBER.sub(b"0", text.encode("ascii")).translate(_ASCII_FOLD).split()
    text = _fold_any(text)
    if SPACELESS.search(text):
        text = SPACELESS.sub(r" \g<0> ", text)
    return [word.encode("utf-8", "surrogatepass") for word in text.split()]


def _fold_any(text: str) -> str:
    text = _NUMBER.sub("0", text.lower()).translate(PUNCTUATION_TRANS)
    return _MARKS.sub("", unicodedata.normalize("NFD", text))


def _ascii_or_same(text: str) -> str:
    """The text with its accents and typographic marks folded, where nothing else in it is outside ASCII: four times as fast.

    A stretch folds as it does inside the text as long as letters and spaces are all that comes out, and no mark of its own goes:
    digits beside it would join, and nothing else depends on neighbours.
    """
    for stretch in set(_OTHER.findall(text)):
        if stretch not in _FOLDED:
            if len(_FOLDED) >= _MAX_FOLDED:
                _FOLDED.clear()
            _FOLDED[stretch] = _fold_stretch(stretch)
        if _FOLDED[stretch] is None:
            return text
    return _OTHER.sub(lambda match: _FOLDED[match[0]], text)


def _fold_stretch(stretch: str) -> str | None:
    found = _fold_any(stretch)
    is_plain = found.isascii() and all(char.isalpha() or char == " " for char in found)
    return found if is_plain and not _MARKS.search(stretch) else None
