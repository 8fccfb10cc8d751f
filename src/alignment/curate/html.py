"""HTML to text, with Python's own parser: what a page says, block by block, without scripts, menus and forms.

It keeps every block of the page's body; which of them are no text is for the quality filters. A page whose encoding is named wrongly
is decoded as it says, with marks for what cannot be.
"""

import codecs
import re
from html.parser import HTMLParser

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


class _Reader(HTMLParser):
    """Collects the text of blocks. `skipped` names the open element whose content is left out, `depth` how often it is open."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped, self.depth, self.verbatim = "", 0, 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
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

    def handle_endtag(self, tag: str) -> None:
        if self.skipped:
            self.depth -= tag == self.skipped
            self.skipped = self.skipped if self.depth else ""
        elif tag in _BLOCKS:
            self.parts.append("\n")
            self.verbatim = max(0, self.verbatim - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.parts.append(data if self.verbatim else data.replace("\n", " ").replace("\r", " "))


def html_to_text(page: str) -> str:
    """The text of a page, a line for each block."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
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
