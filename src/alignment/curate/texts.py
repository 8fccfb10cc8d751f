"""Where the text of a row is, whichever format it has, and the row with other text in the same places."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignment.recipe.curate_spec import CurateSourceSpec

Path = tuple[str | int, ...]
# format: (column, role) in the order in which a person reads them
_COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "text": (("text", "text"),),
    "messages": (("messages", "turns"),),
    "sharegpt": (("system", "prompt"), ("conversations", "turns")),
    "alpaca": (("system", "prompt"), ("instruction", "prompt"), ("input", "prompt"), ("output", "answer")),
    "prompt_completion": (("prompt", "prompt"), ("completion", "answer")),
    "preference": (("prompt", "prompt"), ("chosen", "answer"), ("rejected", "answer")),
    "prompt": (("prompt", "prompt"),),
}


@dataclass(frozen=True, slots=True)
class Slot:
    """A stretch of text in a row. `role`: a document, what is asked, or what is answered last."""

    path: Path
    role: Literal["text", "prompt", "answer"]


def find_slots(row: Mapping[str, Any], spec: CurateSourceSpec) -> list[Slot]:
    """Every text of the row that its format reads; empty when there is none."""
    slots: list[Slot] = []
    for column, role in _COLUMNS[spec.format]:
        name = spec.columns.get(column, column)
        value = row.get(name)
        if isinstance(value, str):
            slots.append(Slot((name,), "answer" if role == "turns" else role))
        elif isinstance(value, Sequence | Mapping):
            slots += _turns([value] if isinstance(value, Mapping) else value, (name,), role)
    return slots


def texts_of(row: Mapping[str, Any], slots: Sequence[Slot]) -> list[str]:
    """The text in each slot."""
    texts = []
    for slot in slots:
        value: Any = row
        for part in slot.path:
            value = value[part]
        texts.append(value)
    return texts


def with_texts(row: dict[str, Any], slots: Sequence[Slot], texts: Sequence[str]) -> dict[str, Any]:
    """The row with other text in its slots; the same object where nothing changes."""
    changed = [
        (slot, text) for slot, text, old in zip(slots, texts, texts_of(row, slots), strict=True) if text is not old
    ]
    if not changed:
        return row
    row = copy.deepcopy(row)
    for slot, text in changed:
        holder: Any = row
        for part in slot.path[:-1]:
            holder = holder[part]
        holder[slot.path[-1]] = text
    return row


def _turns(messages: Sequence[Any], at: Path, role: str) -> list[Slot]:
    """Contents of messages; the last message of a conversation or answer is the answer, the rest is the prompt."""
    slots: list[Slot] = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            continue
        key = "value" if "from" in message and "content" not in message else "content"
        is_answer = role != "prompt" and index == len(messages) - 1
        content = message.get(key)
        where = (*at, index, key)
        if isinstance(content, str):
            slots.append(Slot(where, "answer" if is_answer else "prompt"))
        elif isinstance(content, Sequence):
            slots += [
                Slot((*where, place, "text"), "answer" if is_answer else "prompt")
                for place, part in enumerate(content)
                if isinstance(part, Mapping) and isinstance(part.get("text"), str)
            ]
    return slots
