"""What a run had to do on its own account, in a file that outlives its processes: restarts, smaller micro-batches.

RUN/incidents.json   {per_device_train_batch_size?, notes: [...]}
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


def add_incident(run_dir: Path, note: str, **facts: Any) -> None:
    """Adds a sentence, and facts that the next start reads, in one step."""
    found = read_incidents(run_dir)
    found |= facts | {"notes": [*found["notes"], note]}
    temporary = run_dir / f"{INCIDENTS}.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, run_dir / INCIDENTS)
