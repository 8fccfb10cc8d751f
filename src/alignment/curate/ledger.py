"""What becomes of every row of a shard, on disk: kept rows, removed rows with their reason, and counts.

Steps of one pipeline share a ledger. A shard's files appear whole, its counts last; a shard whose counts are there is done.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from datatrove.data import Document

Removal = tuple[str, dict[str, Any]]  # reason, details


class Ledger:
    """The files of one segment of the work. `rows/`, `removed/` and `counts/` hold a file a shard."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.at_open: list[Callable[[str], None]] = []
        self.at_close: list[Callable[[str], None]] = []
        self._shard = ""
        self._files: dict[str, TextIO] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        self._tallies: dict[str, Counter] = {}

    def is_done(self, shard: str) -> bool:
        """Whether the shard's files are whole."""
        return (self.folder / "counts" / f"{shard}.json").is_file()

    def open(self, shard: str) -> None:
        """Begins a shard anew, whatever a killed process left of it."""
        self._shard, self._steps, self._tallies = shard, {}, defaultdict(Counter)
        for name in ("rows", "removed", "counts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._files = {name: self._temporary(name).open("w", encoding="utf-8") for name in ("rows", "removed")}
        for call in self.at_open:
            call(shard)

    def close(self) -> None:
        """Ends the shard: files get their names, counts last."""
        for call in self.at_close:
            call(self._shard)
        for name, file in self._files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            self._temporary(name).rename(self.folder / name / f"{self._shard}.jsonl")
        counts = {"steps": self._steps, "tallies": {name: dict(sorted(n.items())) for name, n in self._tallies.items()}}
        write_json(self.folder / "counts" / f"{self._shard}.json", counts)

    def enter(self, step: str) -> None:
        """A row comes to a step."""
        self._counts(step)["in"] += 1

    def leave(self, step: str, doc: Document) -> None:
        """A row goes on from a step."""
        counts = self._counts(step)
        counts["kept"] += 1
        counts["characters"] += len(doc.text)

    def remove(self, step: str, doc: Document, removal: Removal) -> None:
        """A row ends at a step."""
        reason, details = removal
        removed = self._counts(step)["removed"]
        removed[reason] = removed.get(reason, 0) + 1
        self._write("removed", doc, step=step, reason=reason, details=details)

    def keep(self, doc: Document) -> None:
        """A row has come to the end of the segment."""
        self._write("rows", doc)

    def tally(self, table: str, name: str, count: int = 1) -> None:
        """Counts something for the report."""
        self._tallies[table][name] += count

    def _counts(self, step: str) -> dict[str, Any]:
        if step not in self._steps:
            self._steps[step] = {"in": 0, "kept": 0, "removed": {}, "characters": 0}
        return self._steps[step]

    def _write(self, name: str, doc: Document, **more: Any) -> None:
        from alignment.curate.documents import to_record

        # Surrogates, which JSON may spell, are escaped: UTF-8 cannot hold them.
        text = json.dumps(to_record(doc) | more, ensure_ascii=False)
        if not _is_utf8(text):
            text = json.dumps(to_record(doc) | more)
        self._files[name].write(text + "\n")

    def _temporary(self, name: str) -> Path:
        return self.folder / name / f".{self._shard}.tmp"


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=True)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def read_records(folder: Path, name: str, shard: str) -> Iterator[dict[str, Any]]:
    """The records of one shard, `rows` or `removed`, in order."""
    with (folder / name / f"{shard}.jsonl").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
