"""YAML to nodes that know their place in the file.

Read from ruamel.yaml's events, so nothing is ever constructed: a tag runs no code, and an anchor cannot multiply. What
a node's value should be is not decided here.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLStreamError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from alignment.recipe.mistakes import Mistake, Origin, Place
from alignment.recipe.scalars import read_scalar

_MAX_BYTES = 1_000_000
_MAX_DEPTH = 20
_LINE_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")  # as ruamel.yaml counts lines


@dataclass
class Node:
    """A mapping (`children`), a list (`items`) or a scalar (`value`)."""

    place: Place
    end: Place
    key: Place | None = None  # of its key, when it stands in a mapping
    children: "dict[str, Node] | None" = None
    items: "list[Node] | None" = None
    value: str | int | float | bool | None = None
    text: str = ""  # a scalar as written, without its quotes
    is_quoted: bool = False
    is_flow: bool = False  # written as [...] or {...}
    is_broken: bool = False  # already the subject of a mistake; its value means nothing

    @property
    def is_mapping(self) -> bool:
        return self.children is not None

    @property
    def is_list(self) -> bool:
        return self.items is not None

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if self.children is not None:
            return {name: child.plain() for name, child in self.children.items()}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.value

    def kind(self) -> str:
        """What stands here, to be read after the word `found`."""
        if self.children is not None:
            return "a mapping"
        if self.items is not None:
            return f"a list of {len(self.items)}" if self.items else "an empty list"
        if self.value is None:
            return "null"
        names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        shown = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        if self.value == "":
            return "'' (empty text)"
        return f"{shown!r} (text)" if isinstance(self.value, str) else f"{shown} ({names[type(self.value)]})"


def node_at(root: Node, path: Sequence[str | int]) -> Node | None:
    """The node of a path, or None."""
    node: Node | None = root
    for part in path:
        if node is not None and node.children is not None:
            node = node.children.get(str(part))
        elif node is not None and node.items is not None and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
        else:
            return None
    return node


class _Stop(Exception):
    """The rest of the file cannot be read."""


def read_nodes(path: Path) -> tuple[Node | None, list[Mistake]]:
    """The nodes of a file and the mistakes in its YAML; None when it cannot be read to its end."""
    path = Path(path)
    top = Place(Origin(str(path), ()), 0, 0)
    try:
        data = path.read_bytes()
    except OSError as error:
        return None, [Mistake(top, f"cannot be read: {error.strerror}", _advise_path(path))]
    if len(data) > _MAX_BYTES:
        return None, [Mistake(top, f"found {len(data)} bytes; at most {_MAX_BYTES} were expected", "is it a recipe?")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start)
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1)
        place = Place(top.origin, line, column)
        return None, [Mistake(place, f"byte 0x{data[error.start]:02x} is not UTF-8 text", "save the file as UTF-8")]
    return read_text(text, Origin(str(path), tuple(_LINE_BREAK.split(text))))


def read_text(text: str, origin: Origin, offset: int = 0) -> tuple[Node | None, list[Mistake]]:
    """The nodes of a text that begins at column `offset` of its origin."""
    reader = _Reader(origin, offset)
    try:
        return reader.read(text), reader.mistakes
    except _Stop:
        return None, reader.mistakes


def _advise_path(path: Path) -> str:
    if path.is_dir():
        return "a file was expected"
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    names = sorted(other.name for other in folder.glob("*.yaml"))
    near = difflib.get_close_matches(path.name, names, 1)
    if near:
        return f"did you mean {folder / near[0]}?"
    return f"files there: {', '.join(names)}" if names else f"the folder {folder} has no .yaml files"


class _Reader:
    """Builds nodes from events and collects mistakes on the way."""

    def __init__(self, origin: Origin, offset: int) -> None:
        self.origin = origin
        self.offset = offset
        self.mistakes: list[Mistake] = []
        self.events: Iterator[Event] = iter(())

    def read(self, text: str) -> Node | None:
        yaml = YAML(typ="safe", pure=True)
        self.events = yaml.parse(text)
        try:
            return self._document()
        except MarkedYAMLError as error:
            self._syntax(error)
        except (ReaderError, YAMLStreamError) as error:
            position = getattr(error, "position", 0)
            before = _LINE_BREAK.split(text[:position])
            place = Place(self.origin, len(before) - 1, len(before[-1]) + self.offset)
            self._refuse(place, f"character {text[position]!r} is not allowed in YAML", "remove it")
        raise _Stop

    def _document(self) -> Node | None:
        root = None
        documents = 0
        for event in self.events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(
                        self._start(event), "a second document ('---'); one recipe a file was expected", "split it"
                    )
                    raise _Stop
            elif isinstance(event, NodeEvent):
                root = self._node(event, 0)
        if root is None:
            advice = "write '' for no text" if self.origin.is_option else "is the file saved?"
            self._refuse(Place(self.origin, 0, self.offset), "found nothing; a value was expected", advice)
        return root

    def _node(self, event: Event, depth: int, key: Place | None = None) -> Node:
        place = self._start(event)
        if depth > _MAX_DEPTH:
            self._refuse(place, f"nested more than {_MAX_DEPTH} deep", "a recipe is nested at most 6 deep")
            raise _Stop
        if isinstance(event, AliasEvent):
            self._refuse(place, f"alias '*{event.anchor}'; recipes have no anchors and aliases", "write the value out")
            return Node(place, self._end(event), key, is_broken=True)
        is_broken = self._has_property(event, place)
        if isinstance(event, MappingStartEvent):
            node = self._mapping(event, depth)
        elif isinstance(event, SequenceStartEvent):
            node = self._list(event, depth)
        else:
            node = self._scalar(event, key)
        node.key = key
        node.is_broken |= is_broken
        return node

    def _has_property(self, event: Event, place: Place) -> bool:
        """Refuses a tag or an anchor in front of a node."""
        if event.anchor is not None:
            self._refuse(place, f"anchor '&{event.anchor}'; recipes have no anchors and aliases", "remove it")
        if event.tag is not None:
            self._refuse(place, f"tag '{event.tag}'; recipes have no tags", "write the value without it")
        return event.tag is not None

    def _mapping(self, event: Event, depth: int) -> Node:
        children: dict[str, Node] = {}
        keys: dict[str, Place] = {}
        for key in self.events:
            if isinstance(key, CollectionEndEvent):
                return Node(self._start(event), self._end(key), children=children, is_flow=bool(event.flow_style))
            place = self._start(key)
            name = self._key_name(key, depth)
            node = self._node(next(self.events), depth + 1, place)
            if name is None:
                continue
            if name in children:
                self._refuse(
                    place, f"key '{name}' is given twice; first on line {keys[name].line + 1}", "keep one of the two"
                )
                continue
            children[name], keys[name] = node, place
        raise _Stop

    def _key_name(self, event: Event, depth: int) -> str | None:
        place = self._start(event)
        if not isinstance(event, ScalarEvent):
            node = self._node(event, depth + 1)
            self._refuse(
                place, f"found {node.kind()} as a key; a name was expected", "put quotes around text with braces"
            )
            return None
        self._has_property(event, place)
        if event.value == "<<" and event.implicit[0]:
            self._refuse(place, "merge key '<<'; a recipe inherits nothing", "write the keys out")
            return None
        return event.value

    def _list(self, event: Event, depth: int) -> Node:
        items: list[Node] = []
        for item in self.events:
            if isinstance(item, CollectionEndEvent):
                return Node(self._start(event), self._end(item), items=items, is_flow=bool(event.flow_style))
            items.append(self._node(item, depth + 1))
        raise _Stop

    def _scalar(self, event: Event, key: Place | None) -> Node:
        node = Node(self._start(event), self._end(event), text=event.value, is_quoted=event.style is not None)
        if node.is_quoted:
            node.value = event.value
            return node
        if event.value == "":
            where = key or node.place
            self._refuse(where, "found nothing; a value was expected", "write {} for an empty section, '' for no text")
            node.is_broken = True
            return node
        node.value, message, advice = read_scalar(event.value)
        if message:
            self._refuse(node.place, message, advice)
            node.is_broken = True
        return node

    def _syntax(self, error: MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        place = Place(self.origin, mark.line, mark.column + (self.offset if mark.line == 0 else 0))
        problem = " ".join(str(error.problem or error.context).split())
        self._refuse(place, f"not valid YAML: {problem}", _explain(problem, error, self.origin))

    def _start(self, event: Event) -> Place:
        return self._place(event.start_mark)

    def _end(self, event: Event) -> Place:
        return self._place(event.end_mark)

    def _place(self, mark: Any) -> Place:
        return Place(self.origin, mark.line, mark.column + (self.offset if mark.line == 0 else 0))

    def _refuse(self, place: Place, message: str, advice: str) -> None:
        self.mistakes.append(Mistake(place, message, advice))


def _explain(problem: str, error: MarkedYAMLError, origin: Origin) -> str:
    """What to do about the parser's commonest complaints."""
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "cannot start any token" in problem:
        return "put quotes around text that begins with this character"
    if "mapping values are not allowed" in problem:
        return "put quotes around text with ': ' in it, and indent the keys of a section alike"
    if error.context and error.context_mark:
        opened = f"line {error.context_mark.line + 1}" if not origin.is_option else "the option"
        return f"{error.context}, which begins on {opened}"
    return ""
