"""The picture of which run starts from which, drawn from left to right and, for narrow screens, from top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_BOX_WIDTH, _BOX_HEIGHT = 116, 50
_GAP, _CROSS_GAP = 34, 14


@dataclass(frozen=True)
class Box:
    """A node: its name, a line below it, and the page it links to (none when empty)."""

    name: str
    note: str = ""
    link: str = ""


def draw_lineage(boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]]) -> str:
    """Boxes by key, and edges from a key to the key of what was made from it. Edges must not form a cycle."""
    columns = _arrange(boxes, edges)
    label = escape("Lineage: " + "; ".join(f"{boxes[a].name} to {boxes[b].name}" for a, b in edges), quote=True)
    wide, narrow = (_picture(columns, boxes, edges, across, label) for across in (True, False))
    return f'<div class="wide scroll">{wide}</div><div class="narrow scroll">{narrow}</div>'


def _arrange(boxes: Mapping[str, Box], edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Keys by the length of the longest way to them."""
    depth = dict.fromkeys(boxes, 0)
    for _ in boxes:
        for start, end in edges:
            depth[end] = max(depth[end], min(depth[start] + 1, len(boxes) - 1))
    return [[key for key in boxes if depth[key] == level] for level in range(max(depth.values(), default=0) + 1)]


def _picture(
    columns: Sequence[Sequence[str]],
    boxes: Mapping[str, Box],
    edges: Sequence[tuple[str, str]],
    across: bool,
    label: str,
) -> str:
    most = max(map(len, columns))
    along_size, cross_size = (_BOX_WIDTH, _BOX_HEIGHT) if across else (_BOX_HEIGHT, _BOX_WIDTH)
    gap = _GAP if across else 26
    places = {}
    for level, keys in enumerate(columns):
        spare = (most - len(keys)) * (cross_size + _CROSS_GAP) / 2
        for row, key in enumerate(keys):
            along = 2 + level * (along_size + gap)
            cross = 2 + spare + row * (cross_size + _CROSS_GAP)
            places[key] = (along, cross) if across else (cross, along)
    width = max(x for x, _ in places.values()) + _BOX_WIDTH + 2
    height = max(y for _, y in places.values()) + _BOX_HEIGHT + 2
    arrows = "".join(_arrow(places[start], places[end], across) for start, end in edges)
    drawn = "".join(_draw_box(boxes[key], *places[key]) for key in places)
    return (
        f'<svg class="lineage" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{label}">{arrows}{drawn}</svg>'
    )


def _arrow(start: tuple[float, float], end: tuple[float, float], across: bool) -> str:
    if across:
        (x1, y1), (x2, y2) = (start[0] + _BOX_WIDTH, start[1] + _BOX_HEIGHT / 2), (end[0], end[1] + _BOX_HEIGHT / 2)
        middle, head = (
            f"C{x1 + 20:g} {y1:g} {x2 - 24:g} {y2:g} {x2 - 6:g} {y2:g}",
            f"M{x2 - 8:g} {y2 - 4:g}L{x2 - 1:g} {y2:g}l-7 4z",
        )
    else:
        (x1, y1), (x2, y2) = (start[0] + _BOX_WIDTH / 2, start[1] + _BOX_HEIGHT), (end[0] + _BOX_WIDTH / 2, end[1])
        middle, head = (
            f"C{x1:g} {y1 + 16:g} {x2:g} {y2 - 20:g} {x2:g} {y2 - 6:g}",
            f"M{x2 - 4:g} {y2 - 8:g}L{x2:g} {y2 - 1:g}l4 -7z",
        )
    return f'<path class="edge" d="M{x1:g} {y1:g}{middle}"/><path class="head" d="{head}"/>'


def _draw_box(box: Box, x: float, y: float) -> str:
    centre = x + _BOX_WIDTH / 2
    name_y = y + (21 if box.note else 30)
    text = f'<text class="name" x="{centre:g}" y="{name_y:g}">{escape(_fit(box.name, 15))}</text>'
    if box.note:
        text += f'<text class="note" x="{centre:g}" y="{y + 38:g}">{escape(_fit(box.note, 18))}</text>'
    kind = "box" if box.link else "box source"
    drawn = (
        f'<g class="{kind}"><title>{escape(f"{box.name} {box.note}".strip())}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="8"/>{text}</g>'
    )
    return f'<a href="{escape(box.link, quote=True)}">{drawn}</a>' if box.link else drawn


def _fit(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
