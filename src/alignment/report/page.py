"""Self-contained HTML pages and their parts: cards, tables, token views.

A page loads nothing: its style is inside, its pictures are inline SVG, it has no script. It reads at 400 px, in the dark and on
paper. What comes from outside is escaped here, so callers pass plain text; only `Section.html` and what these functions
return is markup.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from alignment.report.numbers import format_number

LONG_HEADING = 14  # characters of a row's heading that may break into lines on a narrow screen
_NEW_LINE = "⏎\n"


@dataclass(frozen=True)
class Section:
    """A part of a page: its heading as text, its content as markup."""

    title: str
    html: str


def page(title: str, sections: Iterable[Section], *, kicker: str = "", lead: str = "", footer: str = "") -> str:
    """A whole HTML document. Sections without content are left out."""
    body = "".join(f"<section><h2>{escape(part.title)}</h2>{part.html}</section>" for part in sections if part.html)
    above = f'<p class="kicker">{escape(kicker)}</p>' if kicker else ""
    below = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    end = f"<footer>{escape(footer)}</footer>" if footer else ""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # An empty icon: browsers would otherwise ask for /favicon.ico.
        f'<link rel="icon" href="data:,"><style>{_style()}</style></head><body>'
        f"<header>{above}<h1>{escape(title)}</h1>{below}</header><main>{body}</main>{end}</body></html>\n"
    )


@cache
def _style() -> str:
    return files("alignment.report").joinpath("style.css").read_text(encoding="utf-8").replace("\n", "")


@dataclass(frozen=True)
class Card:
    """A number to see first: its name, its value, and lines below it."""

    name: str
    value: str
    detail: str = ""
    before: str = ""


def card_grid(cards: Sequence[Card]) -> str:
    """The cards side by side; nothing for none."""
    if not cards:
        return ""
    return '<div class="cards">' + "".join(map(_draw_card, cards)) + "</div>"


def _draw_card(card: Card) -> str:
    detail = f" <small>{escape(card.detail)}</small>" if card.detail else ""
    before = f'<dd class="was">{escape(card.before)}</dd>' if card.before else ""
    words = ' class="words"' if len(card.value) > 12 else ""
    return f'<dl class="card"><dt>{escape(card.name)}</dt><dd{words}>{escape(card.value)}{detail}</dd>{before}</dl>'


@dataclass(frozen=True)
class Bar:
    """A table cell: a value between 0 and 1 as a bar behind its number."""

    value: float


@dataclass(frozen=True)
class Link:
    """A table cell: text that leads to another page of the study."""

    text: str
    target: str


@dataclass(frozen=True)
class Long:
    """A table cell: text that may break into lines."""

    text: str


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "") -> str:
    """A table that scrolls inside its box. Numbers stand on the right; the first cell of a row is its heading."""
    if not rows:
        return ""
    right = [all(_is_number(row[place]) for row in rows) for place in range(len(columns))]
    head = "".join(f'<th scope="col"{_align(right[place])}>{escape(name)}</th>' for place, name in enumerate(columns))
    body = "".join(
        "<tr>" + "".join(_cell(cell, right[place], first=place == 0) for place, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    header = f"<thead><tr>{head}</tr></thead>" if any(columns) else ""
    # tabindex: a box that scrolls must be reachable by keyboard.
    return f'<div class="box-scroll" tabindex="0"><table>{title}{header}<tbody>{body}</tbody></table></div>'


def _is_number(cell: Any) -> bool:
    return cell is None or isinstance(cell, int | float | Bar)


def _align(right: bool) -> str:
    return ' class="num"' if right else ""


def _cell(cell: Any, right: bool, *, first: bool) -> str:
    if isinstance(cell, Long):
        return f'<td class="wrap">{escape(cell.text)}</td>'
    if isinstance(cell, Bar):
        share = max(0.0, min(1.0, cell.value))
        content = f'<span class="bar" style="--v:{share:.1%}">{format_number(float(cell.value))}</span>'
    elif isinstance(cell, Link):
        content = f'<a href="{escape(cell.target, quote=True)}">{escape(cell.text)}</a>'
    else:
        content = "" if cell is None else escape(format_number(cell))
    if not first:
        return f"<td{_align(right)}>{content}</td>"
    if isinstance(cell, str) and len(cell) > LONG_HEADING:
        return f'<th scope="row" class="long">{content.replace("_", "_<wbr>")}</th>'
    return f'<th scope="row"{_align(right)}>{content}</th>'


def facts_table(facts: Mapping[str, str]) -> str:
    """Names and values without a heading row; empty values are left out."""
    return table(("", ""), [(name, Long(value)) for name, value in facts.items() if value])


def bullet_list(items: Sequence[str]) -> str:
    """A list of sentences; nothing for none."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def folded(title: str, text: str) -> str:
    """Preformatted text behind a line that opens it."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def token_view(tokens: Iterable[tuple[str, bool]]) -> str:
    """Tokens one after the other with a border after each; the trained ones coloured and underlined."""
    return "".join(_token(text, trained) for text, trained in tokens)


def _token(text: str, trained: bool) -> str:
    tag = "b" if trained else "i"
    return f"<{tag}>{escape(text.replace(chr(10), _NEW_LINE), quote=False)}</{tag}>"


TOKEN_KEY = (
    '<p class="key tokens"><b>coloured and underlined</b> is trained on; <i>grey</i> is only read. '
    "A thin line ends each token, ⏎ is a line break.</p>"
)
