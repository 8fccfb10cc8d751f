"""What to do about a value that a key cannot have."""

import difflib

from alignment.recipe.locate import Node
from alignment.recipe.scalars import read_number
from alignment.recipe.shape import Kind, find_items, find_section

_YES = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def advise(key: str | int, node: Node, alternatives: tuple[Kind, ...]) -> str:
    """A line to write instead, as far as it can be told; "" otherwise."""
    label = "" if isinstance(key, int) else f"{key}: "
    types = {kind.type for kind in alternatives}
    choices = [choice for kind in alternatives for choice in kind.choices]
    items = find_items(alternatives)
    if node.is_mapping or node.is_list:
        return _advise_collection(node, alternatives, items)
    if isinstance(node.value, str):
        return _advise_text(label, node.value, types, choices, items)
    if str in types and node.value is not None:
        return f"put quotes around text: {label}'{node.text}'"
    if int in types and isinstance(node.value, float) and node.value.is_integer():
        return f"write {int(node.value)}"
    if node.value is None:
        return "remove the line"
    return ""


def _advise_text(label: str, value: str, types: set, choices: list[str], items: tuple[Kind, ...]) -> str:
    if bool in types and value.lower() in ({"true", "false"} | set(_YES)):
        return f"write {_YES.get(value.lower(), value.lower())}"
    near = difflib.get_close_matches(value, choices, 1)
    if near:
        return f"did you mean '{near[0]}'?"
    if types & {int, float}:
        if read_number(value) is not None:
            return f"remove the quotes: {label}{value}"
        bare = value.replace(",", "").replace(" ", "")
        return f"write {bare}" if read_number(bare) is not None else ""
    if items and not items[0].section:
        return f"write a list: [{value}]"
    return ""


def _advise_collection(node: Node, alternatives: tuple[Kind, ...], items: tuple[Kind, ...]) -> str:
    if node.is_mapping and items and any(item.section for item in items):
        return "begin each item with '- '"
    if node.is_list and find_section(alternatives):
        return "remove the '- ' in front of its keys"
    return ""
