"""`--set a.b=value`: values from the command line, put into the nodes of a file.

They are read by the rules of the file and judged with it; a mistake in one names the option.
"""

from collections.abc import Sequence

from alignment.recipe.locate import Node, read_text
from alignment.recipe.mistakes import Mistake, Origin, Place


def apply_overrides(root: Node, overrides: Sequence[str]) -> list[Mistake]:
    """Puts each value where its path says; sections that the file lacks are added.

    Returns the options that cannot be read or placed. Whether a key exists is found out with the file's own keys.
    """
    mistakes: list[Mistake] = []
    seen: set[str] = set()
    for override in overrides:
        place = Place(Origin(f"--set {override}", (override,), is_option=True), 0, 0)
        path, equals, text = override.partition("=")
        if not equals or not all(path.split(".")):
            mistakes.append(Mistake(place, "no key and value", "write --set section.key=value"))
        elif path in seen:
            mistakes.append(Mistake(place, f"'{path}' is given twice", "keep one of the two"))
        else:
            seen.add(path)
            node, found = read_text(text, place.origin, offset=len(path) + 1)
            mistakes += found or _put(root, path.split("."), node, place)
    return mistakes


def _put(root: Node, parts: list[str], node: Node, place: Place) -> list[Mistake]:
    node.key = place
    current = root
    for depth, part in enumerate(parts):
        is_last = depth == len(parts) - 1
        above = ".".join(parts[:depth])
        if current.is_list:
            if not part.isdecimal() or int(part) >= len(current.items):
                return [Mistake(place, f"{above}: no item '{part}'", _advise_items(current))]
            if is_last:
                current.items[int(part)] = node
                return []
            current = current.items[int(part)]
        elif current.is_mapping:
            if is_last:
                current.children[part] = node
            elif part not in current.children:
                current.children[part] = Node(place, place, key=place, children={})
            current = current.children[part]
        else:
            return [Mistake(place, f"{above}: found {current.kind()}, which has no keys", f"set {above} itself")]
    return []


def _advise_items(node: Node) -> str:
    return f"items are counted from 0 to {len(node.items) - 1}" if node.items else "the list is empty"
