"""Values that a key cannot have, and rules between keys that are broken.

pydantic decides which values are wrong; what is said about each comes from the schema and the node, because pydantic
speaks of every branch of a union in turn and knows no places.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from alignment.recipe.advise import advise
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.locate import Node, node_at
from alignment.recipe.mistakes import Mistake, Place
from alignment.recipe.shape import (
    Kind,
    dotted,
    expected,
    field_kinds,
    find_items,
    find_section,
    find_tags,
    find_values,
    is_optional,
)
from alignment.recipe.spec import BrokenRule

Path = tuple[str | int, ...]
_SAID_ELSEWHERE = {"extra_forbidden", "value_error"}


def judge(
    root: Node, schema: type[BaseModel], errors: Iterable[dict[str, Any]], meant: set[Path]
) -> tuple[list[Mistake], set[Path]]:
    """What pydantic's errors mean, and the paths of the keys that are wrong.

    Args:
        meant: keys that stand in a wrong place and are therefore not missing.
    """
    found: dict[Path, Mistake | None] = {}
    for error in errors:
        if error["type"] in _SAID_ELSEWHERE:
            continue
        path, node, alternatives, is_missing = _follow(root, schema, error)
        if path in found or _counts_valid_items_only(node, error):
            continue
        if is_missing:
            found[path] = None if path in meant else _missing(path, node, alternatives)
        else:
            found[path] = None if node.is_broken else _wrong(path, node, alternatives, error)
    # A list where text or a list may stand fails as text and at its items: only the items are wrong.
    below = {path[:length] for path in found for length in range(len(path))}
    return [mistake for path, mistake in found.items() if mistake and path not in below], set(found)


def _follow(root: Node, schema: type[BaseModel], error: dict[str, Any]) -> tuple[Path, Node, tuple[Kind, ...], bool]:
    """(path, node, what it may be, whether the key is missing) of an error; names of union branches are skipped."""
    path: Path = ()
    node, alternatives = root, (Kind(schema),)
    for part in error["loc"]:
        section = find_section(alternatives, node)
        if node.is_list and isinstance(part, int):
            node, alternatives = node.items[part], find_items(alternatives)
        elif node.is_mapping and part in node.children:
            alternatives = field_kinds(section, part) if section else find_values(alternatives)
            node = node.children[part]
        else:
            continue
        path = (*path, part)
    if error["type"] == "union_tag_not_found":
        return (*path, "model_type"), node, find_tags(alternatives), True
    if error["type"] == "union_tag_invalid":
        return (*path, "model_type"), node.children["model_type"], find_tags(alternatives), False
    if error["type"] == "missing":
        name = error["loc"][-1]
        return (*path, name), node, field_kinds(find_section(alternatives, node), name), True
    return path, node, alternatives, False


def _counts_valid_items_only(node: Node, error: dict[str, Any]) -> bool:
    """Whether a list is too short for pydantic because items of it are wrong, which is said of these."""
    return error["type"] == "too_short" and node.is_list and len(node.items) >= error["ctx"]["min_length"]


def _missing(path: Path, node: Node, alternatives: tuple[Kind, ...]) -> Mistake:
    what = expected(alternatives)
    section = next((kind.section for kind in alternatives if kind.section), None)
    if section:
        needed = [name for name in section.model_fields if not is_optional(section, name)]
        what += f" with {', '.join(needed)}" if needed else ""
    return Mistake(node.key or node.place, f"missing key '{dotted(path)}'", f"{what} is expected")


def _wrong(path: Path, node: Node, alternatives: tuple[Kind, ...], error: dict[str, Any]) -> Mistake:
    message = f"{dotted(path)}: found {node.kind()}; {expected(alternatives)} was expected"
    return Mistake(node.place, message, advise(path[-1], node, alternatives))


# ------------------------------------------------------------------------------------------------ rules between keys


def find_broken_rules(root: Node, schema: type[BaseModel], wrong: set[Path], meant: set[Path]) -> list[Mistake]:
    """The rules of every section, judged also where other keys are wrong.

    pydantic asks its validators of a section only once all keys of it are right. Here a rule is asked of whatever is
    right, and skipped when it reads a key that is not.
    """
    unusable = wrong | meant
    found = []
    for path, node, section in _sections(root, schema, ()):
        partial = _build_partial(node, section, path, unusable)
        for rule in getattr(section, "RULES", ()):
            try:
                rule(partial)
            except AttributeError:  # reads a key that is wrong or missing
                continue
            except BrokenRule as broken:
                found.append(Mistake(_rule_place(node, broken.at), f"{_prefix(path)}{broken}"))
    return found + _flow_sources(root, schema)


def _build_partial(node: Node, section: type[BaseModel], path: Path, unusable: set[Path]) -> BaseModel:
    """A section with the keys that are right; the others are absent, not default."""
    values, absent = {}, []
    for name in section.model_fields:
        child = node.children.get(name)
        here = (*path, name)
        inner = child and child.is_mapping and find_section(field_kinds(section, name), child)
        listed = find_section(find_items(field_kinds(section, name))) if child and child.items else None
        scalars = [(*here, n) for n, item in enumerate(child.items) if not item.is_mapping] if listed else []
        if inner:
            values[name] = _build_partial(child, inner, here, unusable)
        elif listed and unusable.isdisjoint(scalars):
            values[name] = [
                _build_partial(item, listed, (*here, n), unusable) if item.is_mapping else item.plain()
                for n, item in enumerate(child.items)
            ]
        elif any(bad[: len(here)] == here for bad in unusable) or (child is None and not is_optional(section, name)):
            absent.append(name)
        elif child is not None:
            values[name] = child.plain()
    partial = section.model_construct(**values)
    for name in absent:
        partial.__dict__.pop(name, None)
    return partial


def _sections(node: Node, section: type[BaseModel], path: Path) -> Iterator[tuple[Path, Node, type[BaseModel]]]:
    """Every section that the file has."""
    yield path, node, section
    for name, child in node.children.items():
        if name not in section.model_fields:
            continue
        alternatives = field_kinds(section, name)
        listed = [((*path, name, index), item) for index, item in enumerate(child.items or ())]
        for where, inner in listed or [((*path, name), child)]:
            found = inner.is_mapping and find_section(find_items(alternatives) if listed else alternatives, inner)
            if found:
                yield from _sections(inner, found, where)


def _rule_place(node: Node, at: Sequence[str]) -> Place:
    """The last of the named keys in the file, or the section."""
    paths = [[int(part) if part.isdigit() else part for part in name.split(".")] for name in at]
    found = [node_at(node, path) for path in paths]
    places = [one.key or one.place for one in found if one is not None]
    return max(
        places, key=lambda place: (place.origin.is_option, place.line, place.column), default=node.key or node.place
    )


def _prefix(path: Path) -> str:
    return f"{dotted(path)}: " if path else ""


def _flow_sources(root: Node, schema: type[BaseModel]) -> list[Mistake]:
    """Sources written as [{...}], in which a split such as train[:90%] would need quotes."""
    found = []
    for path, node, section in _sections(root, schema, ()):
        if issubclass(section, SourceSpec) and node.is_flow and not node.place.origin.is_option:
            message = f"{dotted(path)}: found {{...}}; a source in block style was expected"
            found.append(Mistake(node.place, message, "write '- path: ...' and each further key on its own line"))
    return found
