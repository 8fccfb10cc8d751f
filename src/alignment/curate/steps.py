"""The steps of curation as datatrove pipeline steps: each keeps a row, changes its text, or removes it with a reason.

Steps that compare rows with each other come in two: one that writes what is compared (`Sign...`), and, once all rows of all shards
are compared (`joins.py`), one that removes what was not chosen (`DropChosen`).
"""

import json
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from alignment.curate import pii, quality
from alignment.curate.decontaminate import EvalIndex
from alignment.curate.documents import from_record, make_document, part_of, set_texts
from alignment.curate.duplicates import Sketcher, exact_key
from alignment.curate.language import detect
from alignment.curate.ledger import Ledger, Removal, read_records
from alignment.curate.shards import Shard, read_shard
from alignment.errors import DataError
from alignment.recipe.curate_spec import CurateDataSpec
from alignment.recipe.spec import Spec


class CurateStep(PipelineStep):
    """Base: counts what comes in and goes on, and writes what is removed."""

    type = "curate"

    def __init__(self, name: str, ledger: Ledger):
        self.name = name
        super().__init__()
        self.ledger = ledger

    def judge(self, doc: Document) -> Removal | None:
        """None to keep the row, perhaps with other text; or why it is removed."""
        raise NotImplementedError

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """The rows that are kept, one at a time."""
        for doc in data:
            self.ledger.enter(self.name)
            removal = self.judge(doc)
            if removal is not None:
                self.ledger.remove(self.name, doc, removal)
                continue
            self.ledger.leave(self.name, doc)
            yield doc


class Judge(CurateStep):
    """A step that is one function of the document and the step's section of the recipe."""

    def __init__(self, name: str, ledger: Ledger, function: Callable, spec: Spec, context: Any):
        super().__init__(name, ledger)
        self.function, self.spec, self.context = function, spec, context

    def judge(self, doc: Document) -> Removal | None:
        return self.function(doc, self.spec, self.ledger, self.context)


# ------------------------------------------------------------------------------------------------ ends of a pipeline


class ReadFiles(CurateStep):
    """The rows of the input files."""

    def __init__(self, ledger: Ledger, shards: list[Shard], data: CurateDataSpec):
        super().__init__("00-read", ledger)
        self.shards, self.spec = shards, data

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Reads every `world_size`-th shard; a shard that is done is passed over."""
        for shard in self.shards[rank::world_size]:
            if self.ledger.is_done(shard.name):
                continue
            self.ledger.open(shard.name)
            spec = self.spec.train[shard.source]
            documents = (make_document(raw, shard, spec) for raw in read_shard(shard))
            for doc in super().run(documents):
                self.ledger.tally("source_before", shard.label)
                yield doc
            self.ledger.close()

    def judge(self, doc: Document) -> Removal | None:
        if mistake := doc.metadata["mistake"]:
            if self.spec.on_bad_row == "error":
                raise DataError(
                    f"{doc.id}: found {mistake}; one JSON object of UTF-8 text a line was expected. Mend it, or set data.on_bad_row: drop."
                )
            return "bad_row", {"found": mistake}
        return None if doc.text.strip() else ("no_text", {})


class ReadRows(PipelineStep):
    """The rows that an earlier segment kept, with their place in the shard."""

    type, name = "curate", "read rows"

    def __init__(self, ledger: Ledger, shards: list[Shard], before: Path, data: CurateDataSpec):
        super().__init__()
        self.ledger, self.shards, self.before, self.spec = ledger, shards, before, data

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """As `ReadFiles.run`."""
        for shard in self.shards[rank::world_size]:
            if self.ledger.is_done(shard.name):
                continue
            self.ledger.open(shard.name)
            for place, record in enumerate(read_records(self.before, "rows", shard.name)):
                doc = from_record(record, self.spec.train[record["source"]])
                doc.metadata["place"] = place
                yield doc
            self.ledger.close()


class KeepRows(PipelineStep):
    """The end of a segment."""

    type, name = "curate", "keep rows"

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Writes what comes, and hands it on."""
        for doc in data:
            self.ledger.keep(doc)
            yield doc


# ------------------------------------------------------------------------------------------------ rows among rows


class Sign(PipelineStep):
    """Writes what the rows of a shard are compared by: `sign/<shard>.npz`."""

    type, name = "curate", "sign"

    def __init__(self, ledger: Ledger, kind: str, spec: Spec):
        super().__init__()
        self.ledger, self.kind, self.spec = ledger, kind, spec
        ledger.at_open.append(self._begin)
        ledger.at_close.append(self._save)

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Hands every row on."""
        for doc in data:
            self._lengths.append(len(doc.text))
            self._sources.append(doc.metadata["source"])
            if self.kind == "exact_dedup":
                self._keys.append(exact_key(part_of(doc, self.spec.on), self.spec.normalized))
            elif self.kind == "near_dedup":
                self._sketcher.add("\n".join(part_of(doc, self.spec.on)))
            else:
                self._keys.append(
                    str(doc.metadata["language"] if self.spec.by == "language" else doc.metadata["source"])
                )
                self._ids.append(exact_key([f"{doc.metadata['source']} {doc.id}"], normalized=False))
            yield doc

    def _begin(self, shard: str) -> None:
        self._keys, self._ids, self._lengths, self._sources = [], [], [], []
        self._sketcher = Sketcher(self.spec) if self.kind == "near_dedup" else None

    def _save(self, shard: str) -> None:
        arrays = {"length": np.array(self._lengths, dtype=np.int64), "source": np.array(self._sources, dtype=np.int32)}
        if self.kind == "near_dedup":
            arrays["sketch"], arrays["valid"] = self._sketcher.result()
        elif self.kind == "exact_dedup":
            arrays["key"] = np.frombuffer(b"".join(self._keys), dtype=np.uint64).reshape(-1, 2)
        else:
            arrays["group"] = np.array(self._keys, dtype=str) if self._keys else np.zeros(0, dtype="U1")
            arrays["key"] = np.frombuffer(b"".join(self._ids), dtype=np.uint64).reshape(-1, 2)
        folder = self.ledger.folder / "sign"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f".{shard}.tmp").open("wb") as file:
            np.savez(file, **arrays)
        (folder / f".{shard}.tmp").rename(folder / f"{shard}.npz")


class DropChosen(CurateStep):
    """Removes the rows that a join did not choose."""

    def __init__(self, name: str, ledger: Ledger, before: Path):
        super().__init__(name, ledger)
        self.before = before
        ledger.at_open.append(self._begin)

    def _begin(self, shard: str) -> None:
        self._removed = json.loads((self.before / "join" / f"{shard}.json").read_text(encoding="utf-8"))

    def judge(self, doc: Document) -> Removal | None:
        found = self._removed.get(str(doc.metadata["place"]))
        return None if found is None else (found["reason"], found["details"])


# ------------------------------------------------------------------------------------------------ rows alone


def normalize(doc: Document, spec, ledger: Ledger, context: Any) -> Removal | None:
    """Mends the text; a row of which nothing is left is removed."""
    texts = doc.metadata["texts"]
    if spec.ftfy:
        import ftfy

        texts = [ftfy.fix_text(text) for text in texts]
    if spec.unicode != "none":
        texts = [text if text.isascii() else unicodedata.normalize(spec.unicode, text) for text in texts]
    texts = [_without_controls(text) for text in texts]
    set_texts(doc, texts)
    return None if doc.text.strip() else ("no_text", {})


def _without_controls(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\x00", "")
    return text if text.isprintable() else "".join(char for char in text if char in "\n\t" or ord(char) > 31)


def language(doc: Document, spec, ledger: Ledger, context: Any) -> Removal | None:
    """Finds the language; removes others than the asked ones and what is uncertain."""
    code, score = detect(doc.text, spec.chars)
    doc.metadata["language"], doc.metadata["score"] = code, round(score, 3)
    ledger.tally("language_before", code or "none")
    if not code or score < spec.min_score:
        if spec.uncertain == "keep":  # for the filters a row of no known language, which they take for English
            doc.metadata["language"] = ""
            return None
        return "uncertain_language", {"language": code, "score": round(score, 3)}
    if spec.languages and code not in spec.languages:
        return "other_language", {"language": code, "score": round(score, 3)}
    return None


def filter_quality(doc: Document, spec, ledger: Ledger, context: str) -> Removal | None:
    """One of the quality filters, in the text's language; only documents have their text changed by it."""
    before = doc.text
    verdict = _QUALITY[context](spec, doc.metadata["language"] or "").filter(doc)
    if doc.text != before:
        if len(doc.metadata["texts"]) == 1:
            set_texts(doc, [doc.text])
        else:
            doc.text = before
    kept, reason = verdict if isinstance(verdict, tuple) else (verdict, context)
    if kept and not doc.text.strip():  # C4 has taken every line out
        return "no_text", {}
    return None if kept else (reason, {})


_QUALITY: dict[str, Callable] = {
    "gopher_repetition": quality.gopher_repetition,
    "gopher_quality": quality.gopher_quality,
    "c4": quality.c4,
    "fineweb": quality.fineweb,
}


def remove_pii(doc: Document, spec, ledger: Ledger, context: bytes) -> Removal | None:
    """Replaces personal data turn by turn, or removes the row."""
    key = context if spec.action == "surrogate" else None
    removed = [pii.remove(text, spec.types, classifier=spec.classifier, key=key) for text in doc.metadata["texts"]]
    found_types = [name for _, names in removed for name in names]
    for name in found_types:
        ledger.tally("pii", name)
    if found_types and spec.action == "drop":
        return "pii", {"types": sorted(set(found_types))}
    if found_types:
        set_texts(doc, [text for text, _ in removed])
    return None


def decontaminate(doc: Document, spec, ledger: Ledger, context: EvalIndex) -> Removal | None:
    """Removes a row that holds an evaluation item in one of its turns."""
    for text in doc.metadata["texts"]:
        if hit := context.search(text):
            ledger.tally("contaminated_by", hit.item.split(":")[0])
            return "contaminated", {"item": hit.item, "words": hit.words}
    return None


ALONE: dict[str, Callable] = {
    "normalize": normalize,
    "language": language,
    **dict.fromkeys(_QUALITY, filter_quality),
    "pii": remove_pii,
    "decontaminate": decontaminate,
}
AMONG = ("exact_dedup", "near_dedup", "balance")
