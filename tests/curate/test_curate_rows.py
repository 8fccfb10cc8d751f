"""Chat and preference rows, archives and parquet: text is found in its place, and put back there."""

import bz2
import gzip
import io
import json
import time
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet
import pytest
from dirty import ITEMS, document, read_rows, sentence, write_rows

from alignment.cli import main
from alignment.curate.decontaminate import EvalIndex
from alignment.curate.html import decode_page, html_to_text
from alignment.curate.texts import find_slots, texts_of, with_texts
from alignment.curate.wikipedia import wikitext_to_text
from alignment.recipe.curate_spec import CurateSourceSpec, DecontaminateSpec, EvalSetSpec

RECIPE = """stage: curate
data:
  train:
    - path: {path}
      format: {format}
curate:
  steps:
{steps}"""


def curate(folder: Path, rows: list[dict] | None, format: str, steps: list[str], path: str = "rows.jsonl") -> Path:
    if rows is not None:
        write_rows(folder / "rows.jsonl", rows)
    write_rows(folder / "evals.jsonl", ITEMS)
    text = RECIPE.format(path=path, format=format, steps="".join(f"    - {step}\n" for step in steps))
    (folder / "r.yaml").write_text(text)
    assert main(["curate", str(folder / "r.yaml"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


ROWS = {
    "text": ({"text": "a", "url": "b"}, ["a"]),
    "messages": ({"messages": [turn("user", "a"), turn("assistant", "b")]}, ["a", "b"]),
    "sharegpt": ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, ["a", "b"]),
    "alpaca": ({"instruction": "a", "input": "b", "output": "c"}, ["a", "b", "c"]),
    "prompt_completion": ({"prompt": [turn("user", "a")], "completion": "b"}, ["a", "b"]),
    "preference": ({"prompt": "a", "chosen": [turn("assistant", "b")], "rejected": "c"}, ["a", "b", "c"]),
}


@pytest.mark.parametrize("format", ROWS)
def test_every_text_of_a_row_is_found_and_put_back(format: str) -> None:
    row, expected = ROWS[format]
    spec = CurateSourceSpec(path="x", format=format)
    slots = find_slots(row, spec)
    assert texts_of(row, slots) == expected
    before = json.dumps(row)
    changed = with_texts(row, slots, [text.upper() for text in expected])
    assert texts_of(changed, slots) == [text.upper() for text in expected]
    assert json.dumps(row) == before


def test_conversations_are_cleaned_turn_by_turn(tmp_path: Path) -> None:
    import random

    rng = random.Random(1)
    question, answer = sentence(rng), sentence(rng)
    rows = [
        {"messages": [turn("user", question), turn("assistant", "Ask jane@example.org.")], "tag": [1, {"a": None}]},
        {"messages": [turn("user", question), turn("assistant", answer)]},
        {"messages": [turn("user", ITEMS[0]["question"]), turn("assistant", answer)]},
        {"messages": [turn("user", sentence(rng)), turn("assistant", ITEMS[1]["question"])]},
    ]
    steps = [
        "exact_dedup:\n        on: prompt",
        "pii: {}",
        "decontaminate:\n        evals:\n          - path: evals.jsonl",
    ]
    out = curate(tmp_path, rows, "messages", steps)
    assert read_rows(out / "final") == [
        {
            "id": "rows.jsonl:1",
            "messages": [turn("user", question), turn("assistant", "Ask <EMAIL>.")],
            "tag": [1, {"a": None}],
        }
    ]
    assert [row["id"] for row in read_rows(out / "removed/exact_duplicate")] == ["rows.jsonl:2"]
    leaked = read_rows(out / "removed/contaminated")
    assert [row["id"] for row in leaked] == ["rows.jsonl:3", "rows.jsonl:4"]
    assert leaked[1]["curate"]["item"] == "evals.jsonl:2 question"


def test_preferences_are_deduplicated_whole_or_by_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": "why is it so", "chosen": "yes", "rejected": r} for r in ("no", "maybe", "no")]
    assert len(read_rows(curate(tmp_path, rows, "preference", ["exact_dedup: {}"]) / "final")) == 2
    (tmp_path / "b").mkdir()
    out = curate(tmp_path / "b", rows, "preference", ["exact_dedup:\n        on: prompt"])
    assert len(read_rows(out / "final")) == 1


def test_an_archive_of_extracted_text_is_read(tmp_path: Path) -> None:
    from warcio.warcwriter import WARCWriter

    with (tmp_path / "crawl.warc.wet.gz").open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number in range(3):
            record = writer.create_warc_record(
                f"http://example.org/{number}", "conversion", payload=io.BytesIO(f"page {number} é".encode()),
                warc_content_type="text/plain",
            )  # fmt: skip
            writer.write_record(record)
    kept = read_rows(curate(tmp_path, None, "text", ["normalize: {}"], "crawl.warc.wet.gz") / "final")
    assert [(row["text"], row["url"]) for row in kept] == [(f"page {n} é", f"http://example.org/{n}") for n in range(3)]
    assert kept[0]["id"].startswith("<urn:uuid:")


PAGE = """<html><head><title>no</title><meta charset="iso-8859-1"><style>p {no}</style></head><body>
<nav><ul><li>Home</li><li>no</li></ul></nav><h1>Rivers &amp; seas</h1><p>Most rivers
  run <b>down</b>hill to the caf\xe9.</p><script>if (a < b) { no("<p>no</p>") }</script>
<ul><li>one</li><li>two</li></ul><pre>a
 b</pre><table><tr><td>x</td><td>y</td></tr></table><footer>no</footer></body></html>"""
TEXT_OF_PAGE = "Rivers & seas\nMost rivers run downhill to the café.\none\ntwo\na\nb\nx y"


def test_pages_of_a_crawl_are_read_as_their_text(tmp_path: Path) -> None:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    pages = [
        ("200 OK", "text/html; charset=latin1", PAGE.encode("latin-1")),
        ("200 OK", "text/html", PAGE.encode("latin-1")),
        ("200 OK", "text/plain", "plain é".encode()),
        ("404 Not Found", "text/html", b"<p>not here</p>"),
        ("200 OK", "image/png", b"\x89PNG"),
    ]
    with (tmp_path / "crawl.warc.gz").open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, (status, kind, body) in enumerate(pages):
            http = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
            url = f"http://example.org/{number}"
            writer.write_record(writer.create_warc_record(url, "response", payload=io.BytesIO(body), http_headers=http))
    kept = read_rows(curate(tmp_path, None, "text", ["normalize: {}"], "crawl.warc.gz") / "final")
    assert [row["text"] for row in kept] == [TEXT_OF_PAGE, TEXT_OF_PAGE, "plain é"]
    assert kept[1]["url"] == "http://example.org/1"


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>one<p>two", "one\ntwo"),
        ("<head><title>no<body>yes", "yes"),
        ("a<br>b &lt;c&gt;", "a\nb <c>"),
        ("<form><form>no</form>no</form>yes", "yes"),
        ("</nav>yes", "yes"),
        ("<!--[if IE]><p>no</p><![endif]--><![if !IE]>yes<![endif]>", "yes"),
        ('<a title="a > b" href=x/y>link</a>', "link"),
        ("<SCRIPT>no</Script >yes<script>no", "yes"),
        ("1 < 2", "1 < 2"),
        ("<p", "<p"),
        ("", ""),
    ],
)
def test_html_that_nobody_closed_is_read(page: str, text: str) -> None:
    assert html_to_text(page) == text


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        (b"\x93a\x94", "text/html; charset=ISO-8859-1", "“a”"),
        ("é".encode(), "text/html", "é"),
        ("é".encode("utf-16"), "text/html; charset=utf-16", "é"),
        (b"\xef\xbb\xbfa", "text/html; charset=latin1", "a"),
        (b"\xe9", "text/html; charset=nothing-known", "\ufffd"),
        (b"YQ==", "text/html; charset=base64", "YQ=="),
    ],
)
def test_a_page_is_decoded_by_what_it_says(raw: bytes, kind: str, text: str) -> None:
    assert decode_page(raw, kind) == text


ARTICLE = """{{Infobox river|name=Spree|map={{Location map|Berlin}}}}
[[File:Spree.jpg|thumb|The [[Spree]] in [[Berlin]]]]
The '''Spree''' is a [[river|long river]] in [[Germany]].<ref name="a">{{cite web|url=x}}</ref> It is 400&nbsp;km<sup>2</sup> long.<ref name="b" />
{| class="wikitable"
! km || place
|-
| 1 || {{flag|DE}}
|}
== Course ==
* It meets the [[Havel]] ([https://example.org the map], [[Star Wars: Episode I]]).
<!-- nothing
here -->[[Category:Rivers]]
[[fr:Spree]]"""
DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo/>
<page><title>Spree</title><ns>0</ns><id>7</id><revision><id>1</id><timestamp>2026-01-01T00:00:00Z</timestamp><text>%s</text></revision></page>
<page><title>Sprea</title><ns>0</ns><id>8</id><redirect title="Spree"/><revision><text>#REDIRECT [[Spree]]</text></revision></page>
<page><title>Talk:Spree</title><ns>1</ns><id>9</id><revision><text>talk</text></revision></page>
</mediawiki>"""


def test_the_articles_of_a_wikipedia_dump_are_read_as_their_prose(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dump = (DUMP % escape(ARTICLE)).encode()
    (tmp_path / "pages-articles.xml.bz2").write_bytes(bz2.compress(dump))
    [kept] = read_rows(curate(tmp_path, None, "text", ["exact_dedup: {}"], "pages-articles.xml.bz2") / "final")
    assert kept == {
        "id": "7",
        "title": "Spree",
        "text": "The Spree is a long river in Germany. It is 400\u00a0km2 long.\nCourse\nIt meets the Havel (the map, Star Wars: Episode I).",
        "date": "2026-01-01T00:00:00Z",
    }
    (tmp_path / "cut.xml").write_bytes(dump[:700])
    (tmp_path / "r.yaml").write_text((tmp_path / "r.yaml").read_text().replace("pages-articles.xml.bz2", "cut.xml"))
    assert main(["curate", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "cut")]) == 3
    assert "a dump of Wikipedia's articles was expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    "opened",
    [
        "<ref>",
        "<!--",
        "{{",
        "{|",
        "[[",
        "<",
        "''",
        "[//a ",
        "<a ",
        "<p",
        "<![",
        "<?",
        '<a "',
        "<script>",
        "<title>",
        "&",
        "<a /",
    ],
)
def test_an_article_that_closes_nothing_is_read_in_time(opened: str) -> None:
    begun = time.process_time()
    wikitext_to_text(opened * 20_000)
    html_to_text(opened * 20_000)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("kind", ["parquet", "jsonl.gz", "txt"])
def test_other_files_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pa.table({"text": ["one", "two"], "n": [1, 2]}), path)
    elif kind == "txt":
        path.write_text("one\n\ntwo\n")
    else:
        path.write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    kept = read_rows(curate(tmp_path, None, "text", ["normalize: {}"], path.name) / "final")
    assert [row["text"] for row in kept] == ["one", "two"]


def test_a_balance_takes_its_quotas_and_a_smaller_one_takes_part_of_a_larger(tmp_path: Path) -> None:
    import random

    rng = random.Random(2)
    for name, count in (("a", 30), ("b", 20)):
        write_rows(tmp_path / f"{name}.jsonl", [{"id": f"{name}{n}", "text": document(rng)} for n in range(count)])
    text = (
        "stage: curate\ndata:\n  train:\n    - path: a.jsonl\n      format: text\n    - path: b.jsonl\n      format: text\n"
        "curate:\n  steps:\n    - balance:\n        by: source\n        max_rows: {}\n        targets:\n"
        "          a.jsonl: 0.25\n          b.jsonl: 0.75\n"
    )
    ids = {}
    for total in (12, 20):
        (tmp_path / "r.yaml").write_text(text.format(total))
        assert main(["curate", str(tmp_path / "r.yaml"), "--out", str(tmp_path / f"out{total}")]) == 0
        ids[total] = {row["id"] for row in read_rows(tmp_path / f"out{total}/final")}
        assert [sum(one.startswith(name) for one in ids[total]) for name in "ab"] == [total // 4, total * 3 // 4]
    assert ids[12] < ids[20]


# ------------------------------------------------------------------------------------------------ evaluation items


@pytest.fixture
def index(tmp_path: Path) -> EvalIndex:
    items = [
        {
            "question": "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
            "n": 1,
        },
        {"question": "What is the boiling point of water?"},
        {"question": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18"},
        {"question": "Too short."},
    ]
    write_rows(tmp_path / "evals.jsonl", items)
    return EvalIndex(DecontaminateSpec(evals=[EvalSetSpec(path="evals.jsonl")]), tmp_path)


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("Q: Natalia sold clips to 48 of her friends in April, and then she sold half as many. A: 72", 1),
        ("NATALIA  sold clips -- to 7 of her\nfriends in april and then she sold half!", 1),
        ("so: what is the boiling point of water? it is 100", 2),
        ("what is the boiling point of oil, and of water?", None),
        ("9 8 7 6 5 4 3 2 1 2 3 4 5 6 7 8 9 1 2 3 4 5 6", None),
        ("too short.", None),
        ("", None),
    ],
)
def test_an_item_is_found_in_other_words_numbers_and_halves_and_tables_are_not(
    index: EvalIndex, text: str, item: int | None
) -> None:
    hit = index.search(text)
    assert (None if hit is None else hit.item) == (None if item is None else f"evals.jsonl:{item} question")


def test_the_shipped_chat_recipe_cleans_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random

    rng = random.Random(4)
    recipe = Path(__file__).parents[2] / "recipes/curation/chat.yaml"
    rows = [{"messages": [turn("user", sentence(rng)), turn("assistant", document(rng, 3))]} for _ in range(20)]
    rows += [{"messages": [rows[0]["messages"][0], turn("assistant", "again")]}]
    rows += [{"messages": [turn("user", sentence(rng)), turn("assistant", f"{ITEMS[3]['question']} a.b@c.org")]}]
    rows += [{"messages": [turn("user", sentence(rng)), turn("assistant", "write to a.b@c.org")]}]
    write_rows(tmp_path / "raw/rows.jsonl", rows)
    write_rows(tmp_path / "evals.jsonl", ITEMS)
    monkeypatch.setenv("RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("EVALS", str(tmp_path / "evals.jsonl"))
    assert main(["curate", str(recipe), "--out", str(tmp_path / "out")]) == 0
    kept = read_rows(tmp_path / "out/final")
    assert len(kept) == 21
    assert kept[-1]["messages"][1]["content"].startswith("write to <EMAIL-")
    assert {folder.name for folder in (tmp_path / "out/removed").iterdir()} == {"exact_duplicate", "contaminated"}
    text = (tmp_path / "out/receipt.json").read_text() + (tmp_path / "out/report.html").read_text()
    assert "a.b@c.org" not in text
