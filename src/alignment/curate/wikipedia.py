"""The articles of a Wikipedia dump (pages-articles.xml) as text: what a reader reads, without templates, tables, references and files.

Wikitext is a language of its own; this keeps its prose and gives up what only Wikipedia's own software can expand.
"""

import html
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from alignment.errors import DataError

_ARTICLES = "0"  # of the namespaces; the others hold talk, users, files
# What is opened again before it is closed was never closed: without that, many such would take the square of their number.
_GONE = re.compile(
    r"<!--(?:(?!<!--).)*?-->"
    r"|<(ref|math|gallery|timeline|syntaxhighlight|score|imagemap|chem)\b[^<>]*?(?:/>|>(?:(?!<\1\b).)*?</\1\s*>)",
    re.DOTALL | re.IGNORECASE,
)
_INNERMOST = re.compile(r"\{\{[^{}]*\}\}|\{\|(?:[^{}|]|\|(?!\})|\{(?!\|))*?\|\}", re.DOTALL)
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_OTHER_SPACE = re.compile(
    r"[^\W\d_]+:\S"
)  # File:, Category:, fr: in whatever language; an article's colon has a space behind it
_OUTSIDE = re.compile(r"\[(?:https?:)?//[^\s\[\]]+(?:[ \t]+([^\[\]\n]*))?\]")
_MARKS = re.compile(r"'{2,5}|__[A-Z]+__|</?[a-zA-Z][^<>]*>")
_HEADING = re.compile(r"^=+\s*(.*?)\s*=+\s*$", re.MULTILINE)
_ITEM = re.compile(r"^[*#:;]+\s*", re.MULTILINE)
_MAX_DEPTH = 40  # of templates in templates


def read_articles(file: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
    """id, title, text and date of every article that is no redirect. Raises DataError for what is no such dump."""
    try:
        walk = ElementTree.iterparse(file, events=("start", "end"))
        _, root = next(walk)
        for event, element in walk:
            if event == "end" and element.tag.endswith("}page"):
                space = element.tag.removesuffix("page")
                if element.findtext(f"{space}ns") == _ARTICLES and element.find(f"{space}redirect") is None:
                    yield _read_page(element, space)
                root.clear()  # or every page would stay in memory
    except (ElementTree.ParseError, StopIteration, OSError, EOFError) as error:
        raise DataError(f"{path}: {error}; a dump of Wikipedia's articles was expected. Fetch it again.") from error


def _read_page(page: ElementTree.Element, space: str) -> dict[str, Any]:
    return {
        "id": page.findtext(f"{space}id"),
        "title": page.findtext(f"{space}title"),
        "text": wikitext_to_text(page.findtext(f"{space}revision/{space}text") or ""),
        "date": page.findtext(f"{space}revision/{space}timestamp"),
    }


def wikitext_to_text(source: str) -> str:
    """The prose of an article, a line for each paragraph, heading and list item."""
    text = _GONE.sub("", source)
    text = _repeat(_INNERMOST, "", text)
    text = _repeat(_LINK, _show_link, text)
    text = _OUTSIDE.sub(lambda match: match[1] or "", text)
    text = html.unescape(_MARKS.sub("", text))
    text = _ITEM.sub("", _HEADING.sub(r"\1", text))
    return "\n".join(line for line in (line.strip() for line in text.split("\n")) if line)


def _repeat(pattern: re.Pattern, replacement: Any, text: str) -> str:
    """From the innermost outwards."""
    for _ in range(_MAX_DEPTH):
        text, count = pattern.subn(replacement, text)
        if not count:
            break
    return text


def _show_link(match: re.Match) -> str:
    target, _, shown = match[1].partition("|")
    if _OTHER_SPACE.match(target):
        return ""
    return shown.rpartition("|")[2] or target.removeprefix(":")
