"""Special tokens that a message spells, kept apart from those that the template writes.

They are wrapped in two private-use characters before rendering, as transformers 5.23 does for
`apply_chat_template(..., sanitize_control_tokens=True)`, and become literal pieces, encoded as ordinary text.
"""

import re
from collections.abc import Iterator

from alignment.data.text_encoder import Piece
from alignment.errors import DataError

MARK_START, MARK_END = "\U000f0000", "\U000f0001"
_MARKED = re.compile(f"{MARK_START}([^{MARK_END}]*){MARK_END}")


def split_marked(text: str, *, trained: bool) -> list[Piece]:
    """Pieces without marks; what stood between two marks is literal. Text without marks is one piece.

    Raises DataError when the template took a marked token apart.
    """
    parts = _MARKED.split(text) if MARK_START in text else [text]
    if any(MARK_START in part or MARK_END in part for part in parts):
        raise DataError(
            "row holds a special token as text, and the template cuts it in two; text without it was expected. Drop the row."
        )
    return [Piece(part, trained, literal=index % 2 == 1) for index, part in enumerate(parts) if part]


def mark(special_re: re.Pattern, messages, tools):
    """Messages and tools with marks around the special tokens that they spell; the same objects when there are none."""
    if not any(
        special_re.search(text) or MARK_START in text or MARK_END in text for text in _strings([messages, tools])
    ):
        return messages, tools
    return _mark_value(special_re, messages), _mark_value(special_re, tools)


def _mark_value(special_re: re.Pattern, value):
    if isinstance(value, str):
        if MARK_START in value or MARK_END in value:
            raise DataError(
                "row holds U+F0000 or U+F0001, which mark special tokens here; text without them was expected. Drop the row."
            )
        return special_re.sub(f"{MARK_START}\\g<0>{MARK_END}", value)
    if isinstance(value, dict):
        if found := next((key for key in value if special_re.search(key)), None):
            raise DataError(
                f"row holds the special token in the key {found!r}; keys without it were expected. Drop the row."
            )
        return {key: _mark_value(special_re, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mark_value(special_re, item) for item in value]
    return value


def _strings(value) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
