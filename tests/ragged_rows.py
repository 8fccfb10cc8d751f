"""Rows of ragged lengths from a small vocabulary, for studies that are trained for a few steps."""

import json
import random
from pathlib import Path

WORDS = [
    "the",
    "a",
    "red",
    "blue",
    "small",
    "old",
    "bird",
    "river",
    "stone",
    "sings",
    "falls",
    "waits",
    "under",
    "over",
    "near",
]


def make_rows(kind: str, count: int, longest: int) -> list[dict]:
    """Rows whose texts have 3 to `longest` words; kind: text, chats, pairs or prompts."""
    draw = random.Random(kind)

    def words() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(3, longest)))

    makers = {
        "text": lambda: {"text": words()},
        "chats": lambda: {"messages": [{"role": role, "content": words()} for role in ("user", "assistant")]},
        "pairs": lambda: {"prompt": words(), "chosen": words(), "rejected": words()},
        "prompts": lambda: {"prompt": words()},
    }
    return [makers[kind]() for _ in range(count)]


def write_rows(folder: Path, kinds: tuple[str, ...], count: int, longest: int) -> None:
    """KIND.jsonl for each kind."""
    for kind in kinds:
        rows = make_rows(kind, count, longest)
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
