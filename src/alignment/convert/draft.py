"""A recipe of ours in the making: keys taken out of another project's file one by one, and what became of each.

Every key of the source is accounted for: carried, without effect on training, or a difference. Writing the recipe's text is here;
what a key means is for the module of each project. Nothing is ever left out in silence.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.recipe.locate import Node

SECTIONS = ("stage", "seed", "model", "tokenizer", "lora", "chat", "data", "train", "dpo", "reward", "eval")
_COMMENT_COLUMN = 36
_PLAIN = re.compile(r"[A-Za-z_./$<|][\w./${}<>|\[\]:% +-]*")
_WORDS = ("true", "false", "null", "yes", "no", "on", "off")
_MAX_SHOWN = 80


@dataclass
class Draft:
    """What was made so far of one file.

    Attributes:
        values: section to key to value; the keys of our schema.
        comments: `section.key` to what stands behind it.
        differs: sentences about what would train differently.
        assumed: sentences about what the file does not say.
        unread: keys of the source that have no effect on training.
        files: name to text of files that the recipe needs beside it.
    """

    root: Node
    name: str  # of the file that is being made, without suffix
    values: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key of the source, which then counts as carried; `default` where it is absent or null."""
        self._seen.add(key)
        node = self.root.children.get(key)
        value = node.plain() if node is not None else None
        return default if value is None else value

    def set(self, path: str, value: Any, comment: str = "") -> None:
        """Gives a key of ours a value. `path` is `stage`, `seed` or `section.key`."""
        section, _, key = path.partition(".")
        if key:
            self.values.setdefault(section, {})[key] = value
        else:
            self.values[section] = value
        if comment:
            self.comments[path] = comment

    def carry(self, ours: str, *names: str, default: Any = None, comment: str = "") -> Any:
        """Takes the first of `names` that the source has and gives it to `ours`; returns the value."""
        found = [(name, self.take(name)) for name in names]
        value = next((value for _, value in found if value is not None), default)
        if value is not None:
            given = next((name for name, value in found if value is not None), None)
            said = "its default" if given is None else "" if given == ours.rpartition(".")[2] else f"its {given}"
            self.set(ours, value, comment or said)
        return value

    def differ(self, key: str, why: str) -> None:
        """Notes that `key` is not carried and that training differs by it."""
        self._seen.add(key)
        self.differs.append(f"{self._place(key)}{why}")

    def leave(self, *keys: str) -> None:
        """Notes keys that have no effect on what is trained."""
        for key in keys:
            if key not in self._seen and key in self.root.children:
                self.unread.append(self._place(key).rstrip(". ").rstrip())
            self._seen.add(key)

    def finish(self) -> None:
        """Keys that nobody took are differences: they may change training. So are adapters where a stage has none."""
        if self.values["stage"] == "pretrain" and self.values.pop("lora", None):
            self.differs.append("Adapters: the stage pretrain trains all weights here.")
        for key in self.root.children:
            if key not in self._seen and self.root.children[key].plain() not in (None, False, "", [], {}):
                self.differ(key, "Not known here; look up what it does.")

    def _place(self, key: str) -> str:
        node = self.root.children.get(key)
        if node is None or node.key is None:
            return f"{key}: " if node is None else f"{key}. "
        return f"line {node.key.line + 1}: {key}: {_show(node.plain())}. "

    def text(self, origin: str) -> str:
        """The recipe as YAML, with what was not carried over in comments at its end."""
        lines = [f"# {origin}"]
        for section in SECTIONS:
            if section in self.values:
                lines += self._write_section(section)
        for title, sentences in (
            ("Not carried over, and training differs by it:", self.differs),
            ("Not said by the file, and taken to be so:", self.assumed),
            ("Not carried over, without effect on training:", self.unread),
        ):
            if sentences:
                lines += ["", f"# {title}", *(f"#   {sentence}" for sentence in sentences)]
        return "\n".join(lines) + "\n"

    def _write_section(self, section: str) -> list[str]:
        value = self.values[section]
        if not isinstance(value, Mapping):
            return [_with_comment(f"{section}: {write_scalar(value)}", self.comments.get(section, ""))]
        lines = [f"{section}:"]
        for key, item in value.items():
            comment = self.comments.get(f"{section}.{key}", "")
            lines += _write_item(key, item, "  ", comment)
        return lines


def _write_item(key: str, value: Any, indent: str, comment: str) -> list[str]:
    if isinstance(value, Mapping):
        head = _with_comment(f"{indent}{key}:", comment)
        return [head, *(line for name, item in value.items() for line in _write_item(name, item, indent + "  ", ""))]
    if isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(item, Mapping) for item in value):
        lines = [_with_comment(f"{indent}{key}:", comment)]
        for item in value:
            inner = [line for name, part in item.items() for line in _write_item(name, part, indent + "    ", "")]
            lines += [f"{indent}  - {inner[0].lstrip()}", *inner[1:]]
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_with_comment(f"{indent}{key}: [{', '.join(map(write_scalar, value))}]", comment)]
    return [_with_comment(f"{indent}{key}: {write_scalar(value)}", comment)]


def _with_comment(line: str, comment: str) -> str:
    return f"{line.ljust(_COMMENT_COLUMN)}  # {comment}" if comment else line


def write_scalar(value: Any) -> str:
    """A scalar as our recipes write it: 2.0e-5, 0.1, true, and text in quotes only where YAML needs them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _write_float(value)
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # no scalar is expected there: `alignment check` says so
    if "\n" in value:
        return json.dumps(value, ensure_ascii=False)
    plain = _PLAIN.fullmatch(value) and ": " not in value and value.lower() not in _WORDS
    return value if plain else "'" + value.replace("'", "''") + "'"


def _write_float(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.10g}" if value != int(value) else f"{value:.1f}"
    digits, _, power = f"{value:.9e}".partition("e")
    whole = digits.rstrip("0")
    return f"{whole + '0' if whole.endswith('.') else whole}e{int(power)}"


def _show(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
