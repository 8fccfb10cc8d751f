"""A few real rows of Hub datasets that are not on this disk, by the streaming of `data/stream.py`, in little time.

A rehearsal itself uses no network. The rows are fetched by an interpreter of its own, `python -m` this module, which has the user's
environment and is killed when the time is over; what it has not finished by then is generated as without a network.

    FOLDER/asked.json    seed, and the sources by number
    FOLDER/N.json        rows of a source, or why there are none
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from alignment.data.sources import find_source, first_line
from alignment.data.stream import stream_rows
from alignment.errors import AlignmentError
from alignment.recipe.data_spec import SourceSpec

LIMIT_SECONDS = 20.0  # for all sources together
ASKED = "asked.json"


@dataclass(frozen=True)
class HubRows:
    """The first rows of a stream, or the reason that there are none."""

    rows: tuple[Mapping[str, Any], ...] = ()
    missing: str | None = None


def fetch_rows(
    sources: Mapping[int, tuple[str, SourceSpec]], seed: int, num_rows: int, folder: Path, online: Mapping[str, str]
) -> dict[int, HubRows]:
    """First rows of each source, under the number that it has in `sources`.

    Args:
        sources: split and source.
        num_rows: of each source; fewer where it has no more.
        online: environment variables of a process that may use the network.
    """
    folder.mkdir(parents=True)
    asked = {number: _describe(split, spec, num_rows) for number, (split, spec) in sources.items()}
    (folder / ASKED).write_text(json.dumps({"seed": seed, "sources": asked}), encoding="utf-8")
    try:
        code = subprocess.run(
            [sys.executable, "-m", __name__, str(folder)], env=online, timeout=LIMIT_SECONDS
        ).returncode
        late = f"fetching ended with exit code {code}"
    except subprocess.TimeoutExpired:
        late = f"no rows within {LIMIT_SECONDS:g} s"
    return {number: _read(folder / f"{number}.json", late) for number in sources}


def _describe(split: str, spec: SourceSpec, num_rows: int) -> dict[str, Any]:
    """The source as a stream, whose split is a whole one and whose amount is ours."""
    fields = spec.model_dump(mode="json", exclude={"share", "repeat"})
    name = (spec.split or split).partition("[")[0]
    return fields | {"split": name, "stream": True, "rows": num_rows}


def _read(path: Path, late: str) -> HubRows:
    if not path.is_file():
        return HubRows(missing=late)
    facts = json.loads(path.read_text(encoding="utf-8"))
    return HubRows(tuple(facts["rows"]), facts["missing"])


def _find_unreachable() -> str | None:
    """Why the Hub cannot be reached at all, found in one try: its client would try again until the time is over."""
    import httpx2
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=LIMIT_SECONDS / 4)
    except httpx2.HTTPError as error:
        return f"{constants.ENDPOINT} cannot be reached ({first_line(error)})"
    return None


def _fetch(spec: SourceSpec, seed: int, folder: Path) -> dict[str, Any]:
    try:
        found = find_source(spec, folder, None)
        rows = [row for _, row in islice(stream_rows(found, seed), spec.rows)]
    except AlignmentError as error:
        return {"rows": [], "missing": str(error)}
    return {"rows": rows, "missing": None if rows else "it has no such rows"}


def main(argv: Sequence[str]) -> int:
    """Fetches what the folder asks for, source by source."""
    folder = Path(argv[0])
    asked = json.loads((folder / ASKED).read_text(encoding="utf-8"))
    unreachable = _find_unreachable()
    for number, fields in asked["sources"].items():
        spec = SourceSpec.model_validate(fields)
        facts = {"rows": [], "missing": unreachable} if unreachable else _fetch(spec, asked["seed"], folder)
        temporary = folder / f"{number}.tmp"
        temporary.write_text(json.dumps(facts, default=str), encoding="utf-8")
        os.replace(temporary, folder / f"{number}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
