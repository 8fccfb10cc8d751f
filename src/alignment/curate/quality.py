"""Quality filters: datatrove's own, with words of the text's language, and its repetition filter made three times as fast.

Thresholds are the papers' for English. Other languages keep what holds for them: stop words where we know them, no mean word
length where words are not parted by spaces, and sentence ends of every script.
"""

from functools import cache

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.filters.gopher_repetition_filter import find_duplicates

from alignment.curate.hashing import ngram_hashes
from alignment.curate.words import Words
from alignment.recipe.curate_spec import C4Spec, FinewebSpec, GopherQualitySpec, GopherRepetitionSpec

_SPACELESS = ("zh", "ja", "th", "lo", "km", "my")
_UNPUNCTUATED = ("th", "lo", "km", "my")  # sentences end in a space
_MAX_WORD_LENGTH = 14  # mean; compounds of Finnish or German pass, a base64 block does not
# Frequent words of languages that part words by spaces; of others the rule is not asked.
STOP_WORDS: dict[str, str] = {
    "de": "der die und in den von zu das mit sich", "fr": "le la les de et à en un une que",
    "es": "el la de que y en un los se del", "it": "di e il la che in un per è del", "pt": "de a o que e do da em um para",
    "nl": "de het een en van in is dat op te", "sv": "och i att det som en på är av för", "da": "og i at det er en til af på for",
    "no": "og i det er som en på til av for", "fi": "ja on ei että se oli hän mutta ovat kun",
    "pl": "i w na z się do nie to że jest", "cs": "a se v na je že s z do o", "ru": "и в не на что с по как это к",
    "uk": "і в на що не з до та у за", "tr": "ve bir bu da için ile de çok olarak daha", "ro": "de și în a la cu pe care nu o",
    "hu": "a az és hogy nem is egy ez van meg", "el": "και το να η του της με για που από",
    "id": "yang dan di ini itu dengan untuk dari dalam tidak", "vi": "và của là có các được trong cho một không",
    "ar": "في من على أن إلى هذا التي مع عن ما", "hi": "के में की है और से का को यह पर", "bg": "на и в да се за от не е с",
}  # fmt: skip


@cache
def gopher_quality(spec: GopherQualitySpec, language: str) -> GopherQualityFilter:
    """The filter for a language; an unknown one is treated as English."""
    english = language in ("", "en")
    min_alpha = spec.min_alpha_words if spec.min_alpha_words is not None else 0.8 if english else 0.7
    stop_words = None if english else STOP_WORDS.get(language, "").split()
    return GopherQualityFilter(
        min_doc_words=spec.min_words,
        max_doc_words=spec.max_words,
        min_avg_word_length=None if language in _SPACELESS else 3 if english else 2,
        max_avg_word_length=10 if english else _MAX_WORD_LENGTH,
        max_non_alpha_words_ratio=min_alpha,
        min_stop_words=spec.min_stop_words if english or stop_words else 0,
        stop_words=stop_words,
        language=Words(),
    )


@cache
def gopher_repetition(spec: GopherRepetitionSpec, language: str) -> "FastRepetition":
    """The filter; the same for every language."""
    return FastRepetition(language=Words())


@cache
def c4(spec: C4Spec, language: str) -> C4QualityFilter:
    """The filter for a language; lines need an ASCII end mark in English only."""
    return C4QualityFilter(
        filter_no_terminal_punct=spec.terminal_punctuation and language in ("", "en"),
        min_num_sentences=spec.min_sentences or -1,
        min_words_per_line=-1 if language in _SPACELESS else 3,
        filter_curly_bracket=spec.curly_bracket,
        language=Words(),
    )


@cache
def fineweb(spec: FinewebSpec, language: str) -> FineWebQualityFilter:
    """The filter for a language; a line of a script without spaces says as much in half the characters."""
    return FineWebQualityFilter(
        short_line_length=15 if language in _SPACELESS else 30,
        line_punct_thr=0.0 if language in _UNPUNCTUATED else 0.12,
        language=Words(),
    )


class FastRepetition(GopherRepetitionFilter):
    """The same decisions from arrays of word numbers instead of joined strings (datatrove 0.10.1; a test compares them)."""

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the text is kept, or False and which limit it breaks."""
        text = doc.text
        if not text:
            return False, "empty"
        if reason := self._repeated_lines(text):
            return False, reason
        words = self.language.word_tokenize(text)
        if not words:
            return True
        numbers: dict[str, int] = {}
        ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in words), np.uint64, len(words))
        ends = np.concatenate([[0], np.cumsum(np.fromiter(map(len, words), np.int64, len(words)))])
        reason = self._top_ngrams(ids, ends, len(text)) or self._repeated_ngrams(ids, ends, len(text))
        return (False, reason) if reason else True

    def _repeated_lines(self, text: str) -> str:
        paragraphs = self.paragraph_exp.split(text.strip())
        lines = self._line_splitter.split(text)
        limits = (("para", paragraphs, self.dup_para_frac, self.dup_para_char_frac),)
        limits += (("line", lines, self.dup_line_frac, self.dup_line_char_frac),)
        for name, parts, most, most_characters in limits:
            repeated, characters = find_duplicates(parts)
            if most and repeated / len(parts) > most:
                return f"dup_{name}_frac"
            if most_characters and characters / len(text) > most_characters:
                return f"dup_{name}_char_frac"
        return ""

    def _top_ngrams(self, ids: np.ndarray, ends: np.ndarray, size: int) -> str:
        for n, most in self.top_n_grams:
            grams = _combine(ids, n)
            if not len(grams):
                continue
            _, first, counts = np.unique(grams, return_index=True, return_counts=True)
            count = counts.max()
            at = first[counts == count].min()  # of equally frequent ones the first in the text
            if (ends[at + n] - ends[at] + n - 1) * count / size > most:
                return f"top_{n}_gram"
        return ""

    def _repeated_ngrams(self, ids: np.ndarray, ends: np.ndarray, size: int) -> str:
        for n, most in self.dup_n_grams:
            grams = _combine(ids, n)
            _, first = np.unique(grams, return_index=True)
            again = np.ones(len(grams), dtype=bool)
            again[first] = False
            if not again.any():
                return ""  # then no longer one is repeated
            places = np.flatnonzero(again)
            if (ends[places + n] - ends[places]).sum() / size <= most:
                continue  # counting without overlaps can only give less
            if _count_repeated(grams.tolist(), ends, n) / size > most:
                return f"duplicated_{n}_n_grams"
        return ""


def _combine(ids: np.ndarray, n: int) -> np.ndarray:
    """One number for each n consecutive words."""
    return ngram_hashes((ids + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93), n)


def _count_repeated(grams: list[int], ends: np.ndarray, n: int) -> int:
    """Characters of n-grams that were seen before, none counted twice."""
    seen: set[int] = set()
    characters = place = 0
    while place < len(grams):
        if grams[place] in seen:
            characters += int(ends[place + n] - ends[place])
            place += n
        else:
            seen.add(grams[place])
            place += 1
    return characters
