"""What a recipe will train on, to look at: the mixture, what was dropped and why, and rows token by token.

`make_preview` gathers it from the prepared rows themselves, so what is shown is what is trained on. `print_preview` writes it to
a terminal; the HTML page is the report's.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alignment.data.prepare import Prepared, prepare
from alignment.recipe.schema import Recipe

IGNORE_INDEX = -100
_MAX_SHOWN_TOKENS = 2000
_TRAINED, _CONTEXT, _BORDER = "green", "dim", "bold magenta"

Tokens = tuple[tuple[str, bool], ...]  # text, whether it is trained on


@dataclass(frozen=True)
class PreviewRow:
    """A row of the training split. `documents` has one entry, several when the row is packed."""

    title: str
    documents: tuple[Tokens, ...]
    num_tokens: int  # also of what is not shown of a very long row


@dataclass(frozen=True)
class Preview:
    """Everything that the terminal and the HTML page show."""

    stage: str
    mixture: tuple[dict[str, Any], ...]  # manifest["mix"]: split, source, format, asked, available, obtained, ...
    encode: dict[str, dict[str, Any]]  # manifest["encode"]: by split rows, kept, dropped, truncated, tokens, ...
    findings: tuple[str, ...]  # sentences about the data
    rows: tuple[PreviewRow, ...]


def make_preview(
    recipe: Recipe, tokenizer: PreTrainedTokenizerBase | None, *, recipe_dir: Path, cache_dir: Path, rows: int
) -> Preview:
    """Prepares the recipe's rows and picks `rows` of them, evenly spaced. Raises what `prepare` raises."""
    prepared = prepare(recipe, tokenizer, recipe_dir=recipe_dir, cache_dir=cache_dir)
    return Preview(
        stage=prepared.manifest["stage"],
        mixture=tuple(prepared.manifest["mix"]),
        encode=prepared.manifest["encode"],
        findings=tuple(find_data_findings(prepared)),
        rows=tuple(_sample_rows(prepared, rows)),
    )


# ------------------------------------------------------------------------------------------------ findings


def find_data_findings(prepared: Prepared) -> Iterator[str]:
    """Sentences about what a person should look at before training; none when there is nothing."""
    manifest = prepared.manifest
    for split, report in manifest["encode"].items():
        for reason, count in report["dropped"].items():
            first = report.get("shown", {}).get(reason, [""])[0]
            yield f"{split}: {count} of {report['rows']} rows dropped: {reason}. First: {first}"
        for key, did in (("truncated", "cut at the end"), ("split", "split into pieces")):
            if report.get(key):
                yield f"{split}: {report[key]} of {report['rows']} rows {did}; the longest has {report['longest']} tokens."
    for found in manifest.get("doctor", ()):
        yield f"train: {found['rows']} of {found['of']} {found['text']}. First: {', '.join(found['examples'])}"
    overlap = manifest["overlap"] or {}
    if overlap.get("prompts"):
        yield f"eval: {overlap['prompts']} prompts are also trained on, with another answer."
    if overlap.get("short_texts"):
        yield f"eval: {overlap['short_texts']} short texts (headings and the like) are also trained on."
    for row in manifest["mix"]:
        if row["obtained"] > row["unique"]:
            yield f"{row['split']}: {row['source']} is repeated {row['obtained'] / row['unique']:.2g} times."
    yield from _find_duplicates(prepared.train)
    if manifest.get("packing") and prepared.train is not None:
        filled = sum(map(len, prepared.train["input_ids"])) / (len(prepared.train) * manifest["max_length"])
        yield f"train: packed rows are {filled:.1%} full."


def _find_duplicates(train: Dataset | None) -> Iterator[str]:
    """Of rows as they are trained on; packed rows and texts are not compared."""
    if train is None or "seq_lengths" in train.column_names or "text" in train.column_names:
        return
    names = [name for name in ("input_ids", "prompt_ids", "chosen_ids", "rejected_ids") if name in train.column_names]
    counts = Counter(zip(*(map(tuple, train[name]) for name in names), strict=True))
    if repeated := len(train) - len(counts):
        yield f"train: {repeated} of {len(train)} rows are exact repetitions of another."


# ------------------------------------------------------------------------------------------------ rows


def _sample_rows(prepared: Prepared, count: int) -> Iterator[PreviewRow]:
    split = "eval" if prepared.train is None else "train"
    rows = prepared.eval if prepared.train is None else prepared.train
    places = sorted({int(place) for place in np.linspace(0, len(rows) - 1, min(count, len(rows)))}) if count else []
    if "text" in rows.column_names:
        for place in places:
            text = rows[place]["text"]
            yield PreviewRow(f"{split} text {place}", (((text[: 4 * _MAX_SHOWN_TOKENS], False),),), 0)
        return
    tokenizer = AutoTokenizer.from_pretrained(prepared.folder / "tokenizer")
    for place in places:
        for title, ids, trained, lengths in _split_row(rows[place]):
            documents = _cut(ids[:_MAX_SHOWN_TOKENS], trained, lengths)
            shown = tuple(tuple(make_token_texts(tokenizer, *document)) for document in documents)
            yield PreviewRow(f"{split} row {place}{title}", shown, len(ids))


def _split_row(row: dict[str, Any]) -> Iterator[tuple[str, list[int], list[bool], list[int]]]:
    """Title, ids, which are trained on, and document lengths: one for a row of tokens, two for a pair."""
    if row.get("input_ids"):
        lengths = row.get("seq_lengths") or [len(row["input_ids"])]
        yield "", row["input_ids"], [label != IGNORE_INDEX for label in row["labels"]], lengths
    if "asked_json" in row:
        yield " (prompt)", row["prompt_ids"], [False] * len(row["prompt_ids"]), [len(row["prompt_ids"])]
    for name in ("chosen", "rejected"):
        if completion := row.get(f"{name}_ids"):
            ids = row["prompt_ids"] + completion
            yield f": {name}", ids, [False] * len(row["prompt_ids"]) + [True] * len(completion), [len(ids)]


def _cut(ids: list[int], trained: list[bool], lengths: Sequence[int]) -> Iterator[tuple[list[int], list[bool]]]:
    start = 0
    for length in lengths:
        if start < len(ids):
            yield ids[start : start + length], trained[start : start + length]
        start += length


def make_token_texts(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], trained: Sequence[bool]
) -> Iterator[tuple[str, bool]]:
    """Text and colour of each token; tokens that are parts of one character come together.

    Each is decoded after the token before it, because alone a token may lose the space that it begins with.
    """
    waiting: list[int] = []
    before: list[int] = []
    for place, (id_, is_trained) in enumerate(zip(ids, trained, strict=True)):
        waiting.append(id_)
        text = _decode(tokenizer, before + waiting)[len(_decode(tokenizer, before)) :]
        last = place + 1 == len(ids) or trained[place + 1] != is_trained
        if text.endswith("�") and not last:
            continue
        yield text, is_trained
        waiting, before = [], [id_]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) if ids else ""


# ------------------------------------------------------------------------------------------------ the terminal


def print_preview(preview: Preview, console: Console | None = None) -> None:
    """Writes the tables, the findings and the rows, trained tokens in green."""
    console = console or Console()
    _print_tables(preview.mixture, preview.encode, console)
    for finding in preview.findings:
        console.print(Text(f"• {finding}"))
    if preview.rows:
        legend = Text("\nTrained on", style=_TRAINED)
        console.print(legend.append(", only read", style=_CONTEXT).append(", ┃ between documents", style=_BORDER))
    for row in preview.rows:
        size = f" ({row.num_tokens} tokens)" if row.num_tokens else ""
        console.print(Text(f"\n{row.title}{size}", style="bold"))
        console.print(_colour(row))


def print_reports(prepared: Prepared, console: Console | None = None) -> None:
    """Writes the mixture table, what became of the rows, and the findings."""
    console = console or Console()
    _print_tables(prepared.manifest["mix"], prepared.manifest["encode"], console)
    for finding in find_data_findings(prepared):
        console.print(Text(f"• {finding}"))


def _print_tables(mixture: Sequence[dict], encode: dict[str, dict], console: Console) -> None:
    table = _make_table("Mixture", ("source", "asked"), ("obtained", "kept", "tokens", "trained"))
    for row in mixture:
        obtained = f"{_cell(row['obtained'])} of {_cell(row['available'])}"
        cells = (obtained, *(_cell(row[name]) for name in ("kept", "tokens", "trained_tokens")))
        table.add_row(row["split"], f"{row['source']}, {row['format']}", row["asked"], *cells)
    console.print(table)
    _print_lengths(mixture, console)
    numbers = ("rows", "kept", "truncated", "split in pieces", "longest")
    table = _make_table("Encoding", (), numbers, ("dropped",))
    for split, report in encode.items():
        cells = (report.get(key) for key in ("rows", "kept", "truncated", "split", "longest"))
        table.add_row(split, *map(_cell, cells), _say_dropped(report))
    console.print(table)


def _print_lengths(mixture: Sequence[dict], console: Console) -> None:
    """Of each source the length of its rows, how many are different, and what was lost."""
    numbers = ("min", "p50", "p95", "max")
    table = _make_table(
        "Rows of each source, lengths in tokens", ("source",), (*numbers, "unique", "cut"), ("dropped",)
    )
    for row in mixture:
        if row.get("lengths"):
            cells = (*(row["lengths"][name] for name in numbers), row["unique"], row["truncated"])
            table.add_row(row["split"], row["source"], *map(_cell, cells), _say_dropped(row))
    if table.rows:
        console.print(table)


def _make_table(title: str, texts: Sequence[str], numbers: Sequence[str], last: Sequence[str] = ()) -> Table:
    """A table of splits whose texts are broken where the terminal is narrow, and whose numbers are not."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("split", no_wrap=True)
    for name in texts:
        table.add_column(name, overflow="fold", min_width=9)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for name in last:
        table.add_column(name, overflow="fold", min_width=9)
    return table


def _say_dropped(report: dict) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in report["dropped"].items()) or "0"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _colour(row: PreviewRow) -> Text:
    text = Text()
    for number, document in enumerate(row.documents):
        if number:
            text.append("\n┃ ", style=_BORDER)
        for part, trained in document:
            text.append(part, style=_TRAINED if trained else _CONTEXT)
    return text
