"""The rules that every page keeps, checked on its markup."""

import re
from html.parser import HTMLParser
from pathlib import Path

MAX_BYTES = 300_000
VOID = {"meta", "link", "br", "wbr"}
STYLE = Path(__file__).parents[2] / "src/alignment/report/style.css"


class Markup(HTMLParser):
    """Collects tags and attributes, and refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(path: Path) -> Markup:
    """Loads nothing, runs nothing, is small enough, and has what screen readers and narrow screens need."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MAX_BYTES
    markup = Markup(text.removeprefix("<!doctype html>\n"))
    names = {tag for tag, _ in markup.tags}
    assert not names & {"script", "img", "iframe", "object", "embed", "form", "base"}
    for tag, attributes in markup.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action")], tag
        target = attributes.get("href", "")
        assert not re.match(r"(?i)[a-z]+:|//", target) or target == "data:,", target
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme:dark" in style
    assert markup.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width,initial-scale=1"} in markup.all("meta")
    assert len(markup.all("h1")) == 1
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in markup.all("svg"))
    return markup
