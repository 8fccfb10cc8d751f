"""Pages: escaping, tables, token views, and colours that can be read."""

import re
import subprocess
import sys
from pathlib import Path

from page_rules import STYLE, Markup, check_page

from alignment.report.page import Bar, Card, Link, Long, Section, card_grid, facts_table, page, table, token_view

EVIL = "<script>alert(1)</script>\"'&"


def test_whatever_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    parts = [
        Section(EVIL, table((EVIL, "b"), [(EVIL, Long(EVIL)), (Link(EVIL, 'x" onclick="y'), 1)], caption=EVIL)),
        Section("cards", card_grid([Card(EVIL, EVIL, EVIL, EVIL)])),
        Section("facts", facts_table({EVIL: EVIL})),
        Section("tokens", token_view([(EVIL, True), (EVIL, False)])),
    ]
    path = tmp_path / "page.html"
    path.write_text(page(EVIL, parts, kicker=EVIL, lead=EVIL, footer=EVIL))
    markup = check_page(path)
    # Page 5, heading 1, table 5, card 4, facts 2, tokens 2.
    assert [text.strip() for text in markup.texts].count(EVIL) == 19


def test_a_section_without_content_is_left_out() -> None:
    assert "Empty" not in page("t", [Section("Empty", table(("a",), []))])


def test_numbers_stand_on_the_right_and_the_first_cell_heads_its_row() -> None:
    markup = Markup(table(("name", "rows"), [("a", 12000), ("b", None)]))
    assert markup.all("th") == [{"scope": "col"}, {"scope": "col", "class": "num"}, {"scope": "row"}, {"scope": "row"}]
    assert "12,000" in markup.texts


def test_a_table_scrolls_in_a_box_that_the_keyboard_reaches() -> None:
    assert Markup(table(("a",), [("b",)])).all("div") == [{"class": "box-scroll", "tabindex": "0"}]


def test_a_bar_is_filled_by_its_value_and_never_beyond_its_box() -> None:
    spans = Markup(table(("a", "b", "c"), [(Bar(0.25), Bar(-1.0), Bar(2.0))])).all("span")
    assert [span["style"] for span in spans] == ["--v:25.0%", "--v:0.0%", "--v:100.0%"]


def test_trained_tokens_have_their_own_element_and_line_breaks_show() -> None:
    assert token_view([("a\n", False), ("<b>", True)]) == "<i>a⏎\n</i><b>&lt;b&gt;</b>"
    # Not by colour alone.
    assert "text-decoration:underline" in re.search(r"\.tokens b\{([^}]*)", STYLE.read_text())[1]


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    digits = colour.lstrip("#")
    digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_every_text_can_be_read_in_light_and_in_dark() -> None:
    assert contrast("#000", "#fff") == 21
    light, dark = (
        dict(re.findall(r"--([\w-]+):(#\w+)", part))
        for part in STYLE.read_text().split("*{box-sizing")[0].split("@media")
    )
    pairs = [(text, ground) for text in ("text", "muted", "accent") for ground in ("bg", "card", "soft")]
    pairs += [("trained", "trained-bg"), ("text", "bar")] + [(f"c{number}", "card") for number in range(6)]
    for colours in (light, dark):
        for text, ground in pairs:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)


def test_no_page_imports_torch() -> None:
    modules = "card, curves, preview_page, receipt, run_report, study_report"
    code = f"from alignment.report import {modules}; import sys; assert not {{'torch', 'transformers', 'datasets'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
