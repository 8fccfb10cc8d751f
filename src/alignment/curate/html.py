"""HTML to text: what a page says, block by block, without scripts, menus and forms.

It keeps every block of the page's body; which of them are no text is for the quality filters. A page whose encoding is named wrongly
is decoded as it says, with marks for what cannot be. Python's own html.parser (3.11) raises AssertionError on declarations that crawls
have, and takes the square of the number of tags that are never closed.
"""

import codecs
import html
import re

_SKIPPED = frozenset((
    "script", "style", "noscript", "template", "head", "title", "svg", "math", "iframe", "object", "nav", "header", "footer", "aside",
    "form", "button", "select",
))  # fmt: skip
_BLOCKS = frozenset((
    "p", "div", "section", "article", "main", "h1", "h2", "h3", "h4", "h5", "h6", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr",
    "blockquote", "pre", "figure", "figcaption", "hr", "br", "address", "details", "summary", "body", "html",
))  # fmt: skip
_CELLS = frozenset(("td", "th"))
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})""", re.IGNORECASE)
_HEAD_BYTES = 4096  # the standard looks at 1024
_LATIN_1 = ("iso-8859-1", "latin-1", "latin1", "us-ascii", "ascii", "windows-1252")
_SPACE = re.compile(r"[^\S\n]+")
# Quoted values may hold any sign; where a quote is never closed, the tag is text.
_TAG = re.compile(
    r"<(?:(!--)|[!?][^<>]*>|(/?)([a-zA-Z][a-zA-Z0-9:-]*)(?:[\s/](?:[^<>\"']|\"[^\"]{0,2000}\"|'[^']{0,2000}')*)?>)"
)
_RAW_END = {name: re.compile(rf"</{name}\b[^<>]*>", re.IGNORECASE) for name in ("script", "style")}


class _Reader:
    """Collects the text of blocks. `skipped` names the open element whose content is left out, `depth` how often it is open."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.skipped, self.depth, self.verbatim = "", 0, 0

    def read(self, page: str) -> None:
        place, has_comments = 0, True
        while (match := _TAG.search(page, place)) is not None:
            self.say(page[place : match.start()])
            place = match.end()
            comment, closing, tag = match.groups()
            tag = (tag or "").lower()
            if comment and has_comments:
                end = page.find("-->", place)
                has_comments = end >= 0
                place = end + 3 if has_comments else place
            elif tag in _RAW_END and not closing:
                end = _RAW_END[tag].search(page, place)
                place = end.end() if end is not None else len(page)
            elif closing:
                self.close(tag)
            else:
                self.open(tag)
        self.say(page[place:])

    def open(self, tag: str) -> None:
        if self.skipped == "head" and tag == "body":  # the head was never closed
            self.skipped = ""
        if self.skipped:
            self.depth += tag == self.skipped
        elif tag in _SKIPPED:
            self.skipped, self.depth = tag, 1
        elif tag in _BLOCKS:
            self.parts.append("\n")
            self.verbatim += tag == "pre"
        elif tag in _CELLS:
            self.parts.append(" ")

    def close(self, tag: str) -> None:
        if self.skipped:
            self.depth -= tag == self.skipped
            self.skipped = self.skipped if self.depth else ""
        elif tag in _BLOCKS:
            self.parts.append("\n")
            self.verbatim = max(0, self.verbatim - (tag == "pre"))

    def say(self, text: str) -> None:
        if text and not self.skipped:
            text = text if self.verbatim else text.replace("\n", " ").replace("\r", " ")
            self.parts.append(html.unescape(text))


def html_to_text(page: str) -> str:
    """The text of a page, a line for each block."""
    reader = _Reader()
    reader.read(page)
    lines = (_SPACE.sub(" ", line).strip() for line in "".join(reader.parts).split("\n"))
    return "\n".join(line for line in lines if line)


def decode_page(raw: bytes, content_type: str = "") -> str:
    """The characters of a page: by its byte order mark, the header, its own `meta`, UTF-8, in this order."""
    if raw.startswith(codecs.BOM_UTF8):
        return raw.decode("utf-8-sig", "replace")
    named = re.search(r"charset=[\"']?([\w.:-]+)", content_type, re.IGNORECASE)
    meta = _CHARSET.search(raw[:_HEAD_BYTES])
    for name in (named[1] if named else "", meta[1].decode("ascii") if meta else ""):
        # Pages that say Latin-1 are Windows-1252, as every browser reads them.
        name = "cp1252" if name.lower() in _LATIN_1 else name
        try:
            if name:
                return raw.decode(name, "replace")
        except LookupError:  # nobody knows it
            continue
    return raw.decode("utf-8", "replace")
