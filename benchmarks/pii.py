"""Structured personal data beside presidio: recall on its own synthetic set, false alarms on lines that hold none, and speed.

    python -m benchmarks.pii DATA --presidio PYTHON

DATA holds pii/presidio-synth-v2; PYTHON is a Python with presidio-analyzer, which needs libraries of other versions than ours.
"""

import argparse
import json
import subprocess
import time
from collections import Counter
from pathlib import Path

from alignment.curate.pii import find
from tests.acceptance.test_curate_data import HARD_NEGATIVES, TYPES

KINDS = ("email", "phone", "ip", "card", "iban", "ssn", "secret")
PEER = Path(__file__).parent / "peers" / "run_presidio.py"
Span = tuple[int, int]


def ask_presidio(python: str, texts: list[str], least: float) -> tuple[list[list[Span]], float]:
    """Its spans of at least a score, and its CPU seconds."""
    asked = json.dumps({"texts": texts, "entities": list(TYPES)})
    done = subprocess.run([python, str(PEER)], input=asked, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return [[(start, end) for _, start, end, score in spans if score >= least] for spans in found["spans"]], found[
        "seconds"
    ]


def ask_ours(texts: list[str]) -> tuple[list[list[Span]], float]:
    """Our spans and CPU seconds."""
    begun = time.process_time()
    found = [find(text, KINDS) for text in texts]
    return [[(one.start, one.end) for one in hits] for hits in found], time.process_time() - begun


def measure_recall(rows: list[dict], found: list[list[Span]]) -> tuple[Counter, Counter]:
    """Of each kind the labelled spans of which more than 0.8 is covered, and all."""
    hit, total = Counter(), Counter()
    for row, spans in zip(rows, found, strict=True):
        for label in row["spans"]:
            if kind := TYPES.get(label["entity_type"]):
                start, end = label["start_position"], label["end_position"]
                covered = max((min(end, right) - max(start, left) for left, right in spans), default=0)
                total[kind] += 1
                hit[kind] += covered > 0.8 * (end - start)
    return hit, total


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", type=Path)
    parser.add_argument("--presidio", required=True, help="a Python that has presidio-analyzer")
    arguments = parser.parse_args()
    rows = json.loads((arguments.data / "pii/presidio-synth-v2/synth_dataset_v2.json").read_text(encoding="utf-8"))
    texts = [row["full_text"] for row in rows]
    size = sum(len(text.encode()) for text in texts) / 1e6
    sides = {
        "ours": ask_ours,
        "presidio, any score": lambda some: ask_presidio(arguments.presidio, some, 0.0),
        "presidio, score 0.4 or more": lambda some: ask_presidio(arguments.presidio, some, 0.4),
    }
    kinds = sorted(set(TYPES.values()))
    print(f"| {len(rows)} texts | recall | {' | '.join(kinds)} | false alarms in {len(HARD_NEGATIVES)} lines | MB/s |")
    print("|---" * (4 + len(kinds)) + "|")
    for name, ask in sides.items():
        found, seconds = ask(texts)
        hit, total = measure_recall(rows, found)
        false = sum(bool(spans) for spans in ask(HARD_NEGATIVES)[0])
        cells = [f"{hit[kind] / total[kind]:.3f}" for kind in kinds]
        print(f"| {name} | {hit.total() / total.total():.3f} | {' | '.join(cells)} | {false} | {size / seconds:.2f} |")


if __name__ == "__main__":
    main()
