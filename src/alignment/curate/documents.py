"""Rows as datatrove documents, and back: the text that filters read, and the row that it came from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document

from alignment.curate.shards import RawRow, Shard
from alignment.curate.texts import find_slots, texts_of, with_texts
from alignment.recipe.curate_spec import CurateSourceSpec


def make_document(raw: RawRow, shard: Shard, spec: CurateSourceSpec) -> Document:
    """The document of a row; one without text has none, and `mistake` says why."""
    row = raw.row if raw.row is not None else {}
    given = row.get("id")
    has_id = isinstance(given, str | int) and not isinstance(given, bool)
    record = {
        "id": given if has_id else f"{_name(shard)}:{raw.line}",
        "line": raw.line, "source": shard.source, "language": None, "score": None, "row": row,
    }  # fmt: skip
    return from_record(record, spec, mistake=raw.mistake)


def _name(shard: Shard) -> str:
    """The file as the recipe writes it: the path itself, or the file's name inside that folder."""
    return shard.label if shard.path.name == Path(shard.label).name else f"{shard.label}/{shard.path.name}"


def from_record(record: dict[str, Any], spec: CurateSourceSpec, mistake: str = "") -> Document:
    """The document of a record of `rows/`."""
    slots = find_slots(record["row"], spec)
    texts = texts_of(record["row"], slots)
    return Document(
        "\n".join(texts), str(record["id"]), metadata=record | {"slots": slots, "texts": texts, "mistake": mistake}
    )


def to_record(doc: Document) -> dict[str, Any]:
    """The record of a document, with what was done to its text."""
    data = doc.metadata
    row = with_texts(data["row"], data["slots"], data["texts"])
    return {name: data[name] for name in ("id", "line", "source", "language", "score")} | {"row": row}


def set_texts(doc: Document, texts: Sequence[str]) -> None:
    """Puts other text into the document's slots."""
    doc.metadata["texts"] = list(texts)
    doc.text = "\n".join(texts)


def part_of(doc: Document, on: str) -> list[str]:
    """The texts that are compared: all, or what stands before the answer (all, where nothing does)."""
    texts, slots = doc.metadata["texts"], doc.metadata["slots"]
    prompts = [text for text, slot in zip(texts, slots, strict=True) if slot.role == "prompt"]
    return prompts if on == "prompt" and prompts else texts


def output_line(record: dict[str, Any], **more: Any) -> str:
    """A line of `final/` or `removed/`: the id, then every original field."""
    row = {"id": record["id"], **record["row"]} | more
    text = json.dumps(row, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(row)
    return text + "\n"
