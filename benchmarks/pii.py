"""Structured personal data beside presidio: recall on its own synthetic set, false alarms on lines that hold none, and speed; ours
with and without its classifier, and what that changes in web text.

    python -m benchmarks.pii DATA --presidio PYTHON

DATA holds pii/presidio-synth-v2 and text-web; PYTHON is a Python with presidio-analyzer, which needs libraries of other versions than
ours. Without it presidio is left out.
"""

import argparse
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from alignment.curate.pii import Found, find
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


def ask_ours(texts: list[str], *, classifier: bool) -> tuple[list[list[Span]], float]:
    """Our spans and CPU seconds."""
    begun = time.process_time()
    found = [find(text, KINDS, classifier=classifier) for text in texts]
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


def load_web(folder: Path) -> list[str]:
    """Texts of JSON lines, and plain text in stretches of 5,000 characters."""
    texts = []
    for path in sorted(folder.rglob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        texts += [row["text"] for row in rows if isinstance(row.get("text"), str)]
    for path in sorted(folder.rglob("*.txt")):
        text = path.read_text(encoding="utf-8")
        texts += [text[start : start + 5000] for start in range(0, len(text), 5000)]
    return texts


def changes(texts: list[str], off: list[list[Found]], on: list[list[Found]]) -> Iterator[str]:
    """Each hit that the classifier adds or takes back, with what stands around it."""
    for text, before, after in zip(texts, off, on, strict=True):
        for mark, some in (("+", set(after) - set(before)), ("-", set(before) - set(after))):
            for one in sorted(some, key=lambda one: one.start):
                yield f"{mark} {one.type}: {text[max(0, one.start - 40) : one.end + 20]!r}"


def print_web(folder: Path) -> None:
    """Hits of numbers in web text, and every one that the classifier changes."""
    texts = load_web(folder)
    size = sum(len(text.encode()) for text in texts) / 1e6
    found = {}
    for name, classifier in (("off", False), ("on", True)):
        begun = time.process_time()
        found[name] = [find(text, KINDS, classifier=classifier) for text in texts]
        seconds = time.process_time() - begun
        counts = Counter(one.type for hits in found[name] for one in hits)
        print(
            f"web text, {size:.2f} MB, classifier {name}: {counts.total() / size:.1f} hits a MB, {dict(counts)}, {size / seconds:.2f} MB/s"
        )
    print(*changes(texts, found["off"], found["on"]), sep="\n")


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", type=Path)
    parser.add_argument("--presidio", help="a Python that has presidio-analyzer")
    arguments = parser.parse_args()
    rows = json.loads((arguments.data / "pii/presidio-synth-v2/synth_dataset_v2.json").read_text(encoding="utf-8"))
    texts = [row["full_text"] for row in rows]
    size = sum(len(text.encode()) for text in texts) / 1e6
    sides = {
        "ours, classifier off": partial(ask_ours, classifier=False),
        "ours, classifier on": partial(ask_ours, classifier=True),
    }
    if arguments.presidio:
        sides["presidio, any score"] = lambda some: ask_presidio(arguments.presidio, some, 0.0)
        sides["presidio, score 0.4 or more"] = lambda some: ask_presidio(arguments.presidio, some, 0.4)
    kinds = sorted(set(TYPES.values()))
    print(f"| {len(rows)} texts | recall | {' | '.join(kinds)} | false alarms in {len(HARD_NEGATIVES)} lines | MB/s |")
    print("|---" * (4 + len(kinds)) + "|")
    for name, ask in sides.items():
        found, seconds = ask(texts)
        hit, total = measure_recall(rows, found)
        false = sum(bool(spans) for spans in ask(HARD_NEGATIVES)[0])
        cells = [f"{hit[kind] / total[kind]:.3f}" for kind in kinds]
        print(f"| {name} | {hit.total() / total.total():.3f} | {' | '.join(cells)} | {false} | {size / seconds:.2f} |")
    print_web(arguments.data / "text-web")


if __name__ == "__main__":
    main()
