"""The picture of which run starts from which, drawn from left to right and, for narrow screens, from top to bottom."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

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


def _make_lanes(
    columns: Sequence[Sequence[str]], edges: Sequence[tuple[str, str]]
) -> tuple[list[list[str]], dict[tuple[str, str], list[str]]]:
    """The columns with a lane of its own for every edge that passes one, and the lanes of each edge, in order.

    A lane lies on the side of its column where the edge ends, so that no edge runs behind a box.
    """
    level = {key: place for place, keys in enumerate(columns) for key in keys}
    before: list[list[str]] = [[] for _ in columns]
    after: list[list[str]] = [[] for _ in columns]
    lanes: dict[tuple[str, str], list[str]] = {}
    for start, end in edges:
        ends = columns[level[end]]
        side = before if 2 * ends.index(end) < len(ends) - 1 else after
        lanes[start, end] = [f"{start} > {end} > {place}" for place in range(level[start] + 1, level[end])]
        for place, lane in enumerate(lanes[start, end], level[start] + 1):
            side[place].append(lane)
    return [[*before[place], *keys, *after[place]] for place, keys in enumerate(columns)], lanes


def _picture(
    columns: Sequence[Sequence[str]],
    boxes: Mapping[str, Box],
    edges: Sequence[tuple[str, str]],
    across: bool,
    label: str,
) -> str:
    columns, lanes = _make_lanes(columns, edges)
    along_size, cross_size = (_BOX_WIDTH, _BOX_HEIGHT) if across else (_BOX_HEIGHT, _BOX_WIDTH)
    gap = _GAP if across else 26
    sizes = {key: cross_size if key in boxes else 0 for keys in columns for key in keys}  # a lane is a line
    extents = [sum(sizes[key] for key in keys) + (len(keys) - 1) * _CROSS_GAP for keys in columns]
    widest = max(extents)
    begins: dict[str, tuple[float, float]] = {}
    middles: dict[str, float] = {}
    for level, keys in enumerate(columns):
        cross = 2 + (widest - extents[level]) / 2
        for key in keys:
            begins[key] = (2 + level * (along_size + gap), cross)
            middles[key] = cross + sizes[key] / 2
            cross += sizes[key] + _CROSS_GAP
    length, breadth = len(columns) * (along_size + gap) - gap + 4, widest + 4
    width, height = (length, breadth) if across else (breadth, length)
    arrows = ""
    for start, end in edges:
        way = [
            (begins[start][0] + along_size, middles[start]),
            *((begins[lane][0] + step, middles[lane]) for lane in lanes[start, end] for step in (0, along_size)),
            (begins[end][0], middles[end]),
        ]
        arrows += _arrow(way, across)
    drawn = "".join(
        _draw_box(boxes[key], *(place if across else place[::-1])) for key, place in begins.items() if key in boxes
    )
    return (
        f'<svg class="lineage" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{label}">{arrows}{drawn}</svg>'
    )


def _arrow(way: Sequence[tuple[float, float]], across: bool) -> str:
    """A curve from each first point of `way` to the next and a line along each lane; points are (along, cross)."""

    def at(along: float, cross: float) -> str:
        return f"{along:g} {cross:g}" if across else f"{cross:g} {along:g}"

    leave, arrive = (20, 24) if across else (16, 20)
    path = f"M{at(*way[0])}"
    for place, ((along1, cross1), (along2, cross2)) in enumerate(pairwise(way)):
        if place % 2:  # along a lane
            path += f"L{at(along2, cross2)}"
            continue
        stop = along2 - (6 if place == len(way) - 2 else 0)
        path += f"C{at(along1 + leave, cross1)} {at(along2 - arrive, cross2)} {at(stop, cross2)}"
    along, cross = way[-1]
    head = f"M{at(along - 8, cross - 4)}L{at(along - 1, cross)}L{at(along - 8, cross + 4)}z"
    return f'<path class="edge" d="{path}"/><path class="head" d="{head}"/>'


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
