"""Curation from raw rows to clean ones beside datatrove's defaults: CPU seconds of one process, and the memory of ours.

    python -m benchmarks.curation FOLDER --datatrove PYTHON [--runs 3] [--documents 600]

FOLDER holds running text (.txt), of which lines are joined to paragraphs; PYTHON is a Python with datatrove[processing] and spaCy. Ours also normalises,
finds exact duplicates and detects languages.
Each run is a process of its own, whose start does not count.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.data import megabytes, read_documents

PEER = Path(__file__).parent / "peers" / "run_datatrove.py"
FILES = 2
RECIPE = """stage: curate
data:
  train:
    - path: raw
      format: text
curate:
  executor:
    workers: 1
  steps:
    - normalize: {}
    - exact_dedup: {}
    - language: {}
    - gopher_repetition: {}
    - gopher_quality: {}
    - c4:
        terminal_punctuation: false
        curly_bracket: false
    - fineweb: {}
    - near_dedup: {}
    - pii: {}
"""
CHILD = """import json, resource, sys, time
import alignment.curate.run
from alignment.cli import main
begun = time.process_time()
code = main(["curate", "r.yaml", "--out", "out"])
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": time.process_time() - begun, "memory": memory}), file=sys.stderr)
sys.exit(code)
"""


def make_documents(folder: Path, count: int) -> list[str]:
    """Documents of up to 5,000 characters in paragraphs of one line."""
    return [re.sub(r"(?<!\n)\n(?!\n)", " ", text.replace("\r", "")) for text in read_documents(folder)][:count]


def write_raw(folder: Path, documents: list[str]) -> None:
    """raw/ in two files, and our recipe."""
    (folder / "raw").mkdir()
    for number in range(FILES):
        rows = ({"text": text, "id": f"{number}-{place}"} for place, text in enumerate(documents[number::FILES]))
        (folder / f"raw/{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "r.yaml").write_text(RECIPE)


def run_ours(folder: Path) -> dict:
    """CPU seconds without the start of the process, rows, and peak memory in bytes."""
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=folder, capture_output=True, text=True, check=True)
    kept = json.loads((folder / "out/receipt.json").read_text())["rows_kept"]
    return json.loads(done.stderr.splitlines()[-1]) | {"kept": kept}


def run_peer(folder: Path, python: str) -> dict:
    """The same of datatrove, without its memory."""
    done = subprocess.run([python, str(PEER), str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Prints both sides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datatrove", required=True, help="a Python that has datatrove[processing] and spaCy")
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    documents = make_documents(arguments.folder, arguments.documents)
    size = megabytes(documents)
    found: dict[str, list[dict]] = {"ours": [], "datatrove": []}
    for run in range(arguments.runs):
        for name in ("ours", "datatrove")[:: 1 if run % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as folder:
                write_raw(Path(folder), documents)
                begun = time.perf_counter()
                found[name].append(
                    run_ours(Path(folder)) if name == "ours" else run_peer(Path(folder), arguments.datatrove)
                )
                print(f"{name}: {found[name][-1]}, {time.perf_counter() - begun:.1f} s", file=sys.stderr, flush=True)
    rates = {name: size / statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    print(
        f"{len(documents)} documents, {size:.1f} MB: ours {rates['ours']:.2f} MB/s, datatrove {rates['datatrove']:.2f}, ratio"
    )
    print(
        f"{rates['ours'] / rates['datatrove']:.1f}; kept {found['ours'][0]['kept']} and {found['datatrove'][0]['kept']};"
    )
    signatures = statistics.median(run["signatures_mb_per_s"] for run in found["datatrove"])
    print(f"its signatures {signatures:.2f} MB/s;")
    print(f"memory of ours {max(run['memory'] for run in found['ours']) / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
