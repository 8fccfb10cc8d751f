"""What a run had to do on its own account, in a file that outlives its processes: restarts, smaller batches.

RUN/incidents.json   {a key of memory.py and its size, ..., notes: [...]}
"""

import json
import os
from pathlib import Path
from typing import Any

INCIDENTS = "incidents.json"


def read_incidents(run_dir: Path) -> dict[str, Any]:
    """The file; {"notes": []} when nothing happened."""
    path = run_dir / INCIDENTS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"notes": []}


def read_sizes(run_dir: Path) -> dict[str, int]:
    """Keys of batches that this run's memory did not hold, with what was found to fit."""
    return {key: size for key, size in read_incidents(run_dir).items() if key != "notes"}


def add_incident(run_dir: Path, note: str, **facts: Any) -> None:
    """Adds a sentence, and facts that the next start reads, in one step."""
    found = read_incidents(run_dir)
    found |= facts | {"notes": [*found["notes"], note]}
    temporary = run_dir / f"{INCIDENTS}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, run_dir / INCIDENTS)
