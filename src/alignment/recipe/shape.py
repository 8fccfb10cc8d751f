"""The schema seen as a tree: which section or item type a key holds, and in words what it expects."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from alignment.recipe.locate import Node


@dataclass(frozen=True)
class Kind:
    """One of the types that a key may have, without its wrappers."""

    type: Any  # a scalar type, a section's class, or a generic tuple, dict or Literal
    limits: tuple[Any, ...] = ()  # of annotated_types, as pydantic keeps them

    @property
    def section(self) -> type[BaseModel] | None:
        return self.type if isinstance(self.type, type) and issubclass(self.type, BaseModel) else None

    @property
    def items(self) -> "tuple[Kind, ...]":
        """What a list holds; empty when this is no list."""
        return kinds(get_args(self.type)[0]) if get_origin(self.type) is tuple else ()

    @property
    def values(self) -> "tuple[Kind, ...]":
        """What a free mapping holds; empty when this is none."""
        return kinds(get_args(self.type)[1]) if get_origin(self.type) is dict else ()

    @property
    def choices(self) -> tuple[str, ...]:
        """The names that a Literal knows."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()


def kinds(annotation: Any, limits: tuple[Any, ...] = ()) -> tuple[Kind, ...]:
    """The alternatives of an annotation; None, which every optional key has, is left out."""
    origin = get_origin(annotation)
    if origin is Annotated:
        bare, *metadata = get_args(annotation)
        found = [item for entry in metadata for item in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
        return kinds(bare, (*limits, *found))
    if origin in (Union, types.UnionType):
        return tuple(kind for branch in get_args(annotation) for kind in kinds(branch, limits))
    return () if annotation is type(None) else (Kind(annotation, limits),)


@cache
def field_kinds(section: type[BaseModel], name: str) -> tuple[Kind, ...]:
    """The alternatives of a key of a section."""
    field = section.model_fields[name]
    return kinds(field.annotation, tuple(field.metadata))


def is_optional(section: type[BaseModel], name: str) -> bool:
    """Whether a key may be left out."""
    return not section.model_fields[name].is_required()


def find_section(alternatives: tuple[Kind, ...], node: Node | None = None) -> type[BaseModel] | None:
    """The section's class that a mapping node is written for; None: it is no section, or it does not say which one."""
    sections = [kind.section for kind in alternatives if kind.section]
    if len(sections) <= 1:
        return sections[0] if sections else None
    tag = node.children.get("model_type") if node is not None and node.children else None
    return next((section for section in sections if tag and tag.value in model_types(section)), None)


def model_types(section: type[BaseModel]) -> tuple[str, ...]:
    """The values of `model_type` that a model configuration is for."""
    return field_kinds(section, "model_type")[0].choices if "model_type" in section.model_fields else ()


def find_tags(alternatives: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """What `model_type` may be, where it decides between sections; empty where nothing has to be decided."""
    names = tuple(name for kind in alternatives if kind.section for name in model_types(kind.section))
    return (Kind(Literal[names]),) if names else ()


def find_items(alternatives: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """What the items of a list may be; empty when a list is not among the alternatives."""
    return next((kind.items for kind in alternatives if kind.items), ())


def find_values(alternatives: tuple[Kind, ...]) -> tuple[Kind, ...]:
    """What the values of a free mapping may be."""
    return next((kind.values for kind in alternatives if kind.values), ())


@cache
def all_keys(section: type[BaseModel]) -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """Each key below a section, with the sections in which it stands, as paths; `[]` is an item of a list."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for path, name, _ in walk_fields(section):
        places = found.setdefault(name, [])
        if path not in places:
            places.append(path)
    return {name: tuple(places) for name, places in found.items()}


def walk_fields(
    section: type[BaseModel], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str, type[BaseModel]]]:
    """(path of the section, key, class of the section) of every key, sections' own keys included."""
    for name in section.model_fields:
        yield path, name, section
        alternatives = field_kinds(section, name)
        for inner in [kind.section for kind in alternatives if kind.section]:
            yield from walk_fields(inner, (*path, name))
        for inner in [kind.section for kind in find_items(alternatives) if kind.section]:
            yield from walk_fields(inner, (*path, name, "[]"))


def dotted(path: tuple[str | int, ...]) -> str:
    """`data.train.0.path`, as `--set` writes it."""
    return ".".join(str(part) for part in path)


# ------------------------------------------------------------------------------------------------ in words


def expected(alternatives: tuple[Kind, ...]) -> str:
    """What a key expects, to be read before `was expected`."""
    return " or ".join(dict.fromkeys(_words(kind) for kind in alternatives))


def _words(kind: Kind) -> str:
    if kind.section:
        return "a mapping"
    if kind.choices:
        return kind.choices[0] if len(kind.choices) == 1 else f"one of {', '.join(kind.choices)}"
    if kind.items:
        least = next((limit.min_length for limit in kind.limits if isinstance(limit, annotated_types.MinLen)), 0)
        return f"a list of {'at least one item' if least else _plural(kind.items)}"
    if kind.values:
        return f"a mapping from names to {_plural(kind.values)}"
    names = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
    return names[kind.type] + _limits(kind.limits)


def _plural(items: tuple[Kind, ...]) -> str:
    names = {str: "texts", bool: "true or false", int: "whole numbers", float: "numbers"}
    words = ("mappings" if item.section else ", ".join(item.choices) or names[item.type] for item in items)
    return " or ".join(dict.fromkeys(words))


def _limits(limits: tuple[Any, ...]) -> str:
    low = high = ""
    for limit in limits:
        if isinstance(limit, annotated_types.Gt):
            low = f"above {limit.gt}"
        elif isinstance(limit, annotated_types.Ge):
            low = f"of at least {limit.ge}"
        elif isinstance(limit, annotated_types.Lt):
            high = f"below {limit.lt}"
        elif isinstance(limit, annotated_types.Le):
            high = f"at most {limit.le}"
    return "".join([f" {low}" if low else "", " and" if low and high else "", f" {high}" if high else ""])
