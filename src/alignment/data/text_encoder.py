"""Text with borders to ids, so that no token crosses a border and every prompt reads as it is served.

`encode` takes the text in pieces. The first choice is one encoding of the whole text, which is what serving produces
for that history. It stands when every border falls between two tokens and each prompt, encoded alone, is a prefix of
it. Otherwise (a newline of the prompt would merge with one that the answer begins with) the pieces are encoded one
after the other, each in the context of what stands before it.

It knows nothing of messages or templates.
"""

import re
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from alignment.data.fast_tokens import Engine
from alignment.errors import DataError

# Text put before a piece that continues a text, so that SentencePiece adds no space to it. Tried in this order.
_ANCHORS = ("\n", "a", ".")
_MAX_CACHED_TAILS = 10_000


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text. `trained`: a model generates it. `literal`: special tokens in it are ordinary text."""

    text: str
    trained: bool = False
    literal: bool = False


class TextEncoder:
    """Encodes pieces with a fast tokenizer. Never adds a token that the text does not spell."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, engine: Engine | None = None):
        """Raises DataError for a tokenizer without offsets.

        Args:
            engine: gives the tokenizer's ids of texts that spell no special token, and there are no other added ones.
        """
        if not tokenizer.is_fast:
            raise DataError(
                f"tokenizer: {type(tokenizer).__name__} cannot say which characters a token stands for; a fast tokenizer"
                " (tokenizer.json) was expected. Convert it, or use a model that has one."
            )
        self.tokenizer = tokenizer
        self.added_ids = frozenset(tokenizer.added_tokens_decoder)
        added = tokenizer.added_tokens_decoder.values()
        # A token that takes spaces beside it, or stands between words only, parts a text in another way than its own spelling does.
        self.engine = None if any(token.lstrip or token.rstrip or token.single_word for token in added) else engine
        special = {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        self.special_ids = special
        longest_first = sorted(special, key=len, reverse=True)
        self.special_re = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._tails: dict[str, list[int]] = {}
        self.adds_space = self._ids("x") != self._ids("\nx")[len(self._ids("\n")) :]
        self.adds_space_after_special = self._adds_space_after_special()

    def encode(self, pieces: list[Piece]) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of the joined pieces, and for each piece its (first token, end) in them.

        Raises DataError when a piece cannot be kept apart from its neighbours or a literal piece spells a token.
        """
        if not any(piece.literal for piece in pieces):
            whole = (self._encode_sections(pieces) if self.engine else None) or self._encode_whole(pieces)
            if whole is not None:
                return whole
        ids: list[int] = []
        ranges = []
        before: str | None = None
        for piece in pieces:
            start = len(ids)
            ids += (
                self._ids(piece.text) if before is None and not piece.literal else self._continue(before or "", piece)
            )
            ranges.append((start, len(ids)))
            # Special tokens spelled by a literal piece must not be parsed as such when it becomes context.
            before = "" if piece.literal else (before or "") + piece.text
        return ids, ranges

    def decode(self, ids: list[int], start: int, end: int) -> str:
        """Text of ids[start:end] as it stands after ids[:start]."""
        if self.adds_space_after_special:
            sections = groupby(range(start, end), key=lambda index: ids[index] in self.added_ids)
            texts = [self._decode_after(ids, [*section]) for _, section in sections]
            return "".join(texts)
        return self._decode_after(ids, [*range(start, end)])

    def _decode_after(self, ids: list[int], section: list[int]) -> str:
        """Text of ids[section] as it stands there: SentencePiece decoders drop the space that begins a text."""
        if not section:
            return ""
        start, run = section[0], [ids[index] for index in section]
        if start == 0 or (self.adds_space_after_special and ids[start - 1] in self.added_ids):
            return self._decode(run)
        anchor = [ids[start - 1]]
        return self._decode(anchor + run)[len(self._decode(anchor)) :]

    # ---- one encoding of the whole text

    def _encode_sections(self, pieces: list[Piece]) -> tuple[list[int], list[tuple[int, int]]] | None:
        """What `_encode_whole` gives, from the sections between special tokens, which do not see each other.

        None where the end of a piece, encoded up to there, is no beginning of its section's ids; `_encode_whole` then decides.
        """
        ids: list[int] = []
        ranges = []
        # Of the section that the piece before left unfinished: its text, and where its ids begin.
        open_text, open_at = "", 0
        for piece in pieces:
            start, position = len(ids), 0
            for found in (*self.special_re.finditer(piece.text), None):
                section = piece.text[position : found.start() if found else None]
                if section and open_text:
                    section = open_text + section
                    encoded = self.engine([section])[0]
                    if self.special_re.search(section) or encoded[: len(ids) - open_at] != ids[open_at:]:
                        return None
                    ids[open_at:] = encoded
                elif section:
                    open_at = len(ids)
                    ids += self.engine([section])[0]
                if found:
                    ids.append(self.special_ids[found.group()])
                    open_text, position = "", found.end()
                elif section:
                    open_text = section
            ranges.append((start, len(ids)))
        return ids, ranges

    def _encode_whole(self, pieces: list[Piece]) -> tuple[list[int], list[tuple[int, int]]] | None:
        text = "".join(piece.text for piece in pieces)
        ids, offsets = self._encode(text)
        ranges = []
        token = end_char = 0
        for piece in pieces:
            start, start_char = token, end_char
            end_char += len(piece.text)
            while token < len(ids) and offsets[token][1] <= end_char:
                token += 1
            if token < len(ids) and offsets[token][0] < end_char:
                return None
            if piece.trained and not self._prompt_is_served(text[:start_char], ids[:start], offsets):
                return None
            ranges.append((start, token))
        return ids, ranges

    def _prompt_is_served(self, prompt: str, ids: list[int], offsets: list[tuple[int, int]]) -> bool:
        """Whether `ids`, cut from the whole text, are what `prompt` alone is encoded to.

        An added token parts the text before anything else happens to it, so only what follows the last one can differ.
        """
        last = len(ids) - 1
        while last >= 0 and ids[last] not in self.added_ids:
            last -= 1
        tail = prompt if last < 0 else prompt[offsets[last][0] :]
        if tail not in self._tails:
            if len(self._tails) >= _MAX_CACHED_TAILS:
                self._tails.clear()
            self._tails[tail] = self._ids(tail)
        return self._tails[tail] == ids[max(last, 0) :]

    # ---- piece after piece

    def _continue(self, before: str, piece: Piece) -> list[int]:
        """Ids of `piece` where it stands after the text `before`."""
        specials = list(self.special_re.finditer(before))
        tail = before[specials[-1].start() :] if specials else before
        for anchor in (tail, *_ANCHORS) if tail and not piece.literal else _ANCHORS:
            ids = self._after(anchor, piece)
            if ids is not None:
                break
        else:
            if self.adds_space:
                raise DataError(
                    f"row: {piece.text[:40]!r} cannot be encoded apart from the text before it; a border between two tokens"
                    " was expected. Drop the row, or use a template whose turns begin after a special token."
                )
            ids = self._ids(piece.text, literal=piece.literal)
        if piece.literal and self.special_ids.get(piece.text) in ids:
            raise DataError(
                f"row holds the special token {piece.text!r} as text, and the tokenizer cannot write it in other tokens;"
                " text without it was expected. Remove it from the row, or drop such rows."
            )
        return ids

    def _after(self, anchor: str, piece: Piece) -> list[int] | None:
        anchor_ids = self._ids(anchor)
        ids, offsets = self._encode(anchor + piece.text, literal=piece.literal)
        num = len(anchor_ids)
        if ids[:num] != anchor_ids:
            return None
        if piece.trained and num < len(ids) and num and not offsets[num - 1][1] <= len(anchor) <= offsets[num][0]:
            return None
        if piece.trained and num and num == len(ids) and piece.text:
            return None
        return ids[num:]

    # ---- the tokenizer

    def _encode(self, text: str, *, literal: bool = False) -> tuple[list[int], list[tuple[int, int]]]:
        out = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False,
            return_token_type_ids=False, split_special_tokens=literal, verbose=False,
        )  # fmt: skip
        return out["input_ids"], out["offset_mapping"]

    def _ids(self, text: str, *, literal: bool = False) -> list[int]:
        return self._encode(text, literal=literal)[0]

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _adds_space_after_special(self) -> bool:
        if not self.adds_space or not self.special_ids:
            return False
        special = next(iter(self.special_ids))
        return self._ids(special + "x")[1:] == self._ids("x")
