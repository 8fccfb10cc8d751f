"""Near duplicates beside datasketch: CPU seconds of signatures, and recall and precision of both on planted copies.

    python -m benchmarks.near FOLDER --datasketch PYTHON [--runs 3]

FOLDER holds running text (.txt); PYTHON is a Python with datasketch. Of every document there is a copy in which some words are changed; its Jaccard
similarity over 5-grams of words is counted exactly. Both sides get 14 bands of 8 hashes.
"""

import argparse
import json
import random
import statistics
import subprocess
import time
from pathlib import Path

from datatrove.utils.text import simplify_text

from alignment.curate.duplicates import Sketcher, group_near
from alignment.curate.words import fold
from alignment.recipe.curate_spec import NearDedupSpec
from benchmarks.data import megabytes, read_documents

PEER = Path(__file__).parent / "peers" / "run_datasketch.py"
MIN_WORDS = 100
BUCKETS = ((0.9, 1.01), (0.8, 0.9), (0.7, 0.8))


def plant(documents: list[str]) -> tuple[list[str], list[tuple[int, int, float]]]:
    """The documents with their copies, and of each pair its places and exact similarity."""
    rng = random.Random(0)
    texts, pairs = list(documents), []
    for place, text in enumerate(documents):
        words = text.split()
        for at in rng.sample(range(len(words)), rng.randint(1, max(2, len(words) // 25))):
            words[at] = f"changed{rng.randrange(1000)}"
        texts.append(" ".join(words))
        one, other = (shingles(text) for text in (text, texts[-1]))
        pairs.append((place, len(texts) - 1, len(one & other) / len(one | other)))
    return texts, pairs


def shingles(text: str) -> set[tuple[bytes, ...]]:
    words = fold(text)
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def sign_ours(texts: list[str]) -> dict:
    """Groups and CPU seconds."""
    begun = time.process_time()
    sketcher = Sketcher(NearDedupSpec())
    for text in texts:
        sketcher.add(text)
    sketches = sketcher.result()
    signatures = time.process_time() - begun
    groups = group_near(*sketches, NearDedupSpec()).tolist()
    return {"signatures": signatures, "seconds": time.process_time() - begun, "groups": groups}


def ask_datasketch(python: str, folded: list[str]) -> dict:
    """The same from the peer, which is given folded words and does not pay for folding them."""
    asked = json.dumps({"texts": folded, "ngram": 5, "bands": 14, "rows": 8})
    return json.loads(
        subprocess.run([python, str(PEER)], input=asked, capture_output=True, text=True, check=True).stdout
    )


def time_simplify(texts: list[str]) -> float:
    """CPU seconds of what datatrove's users fold text with, which gives the same words."""
    begun = time.process_time()
    for text in texts:
        simplify_text(text)
    return time.process_time() - begun


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--datasketch", required=True, help="a Python that has datasketch")
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    documents = [text for text in read_documents(arguments.folder) if len(text.split()) > MIN_WORDS]
    texts, pairs = plant(documents[: arguments.documents])
    folded = [b" ".join(fold(text)).decode() for text in texts]
    found: dict[str, list[dict]] = {"ours": [], "datasketch": []}
    folding = statistics.median(time_simplify(texts) for _ in range(arguments.runs))
    for run in range(arguments.runs):
        for name in ("ours", "datasketch")[:: 1 if run % 2 == 0 else -1]:
            found[name].append(sign_ours(texts) if name == "ours" else ask_datasketch(arguments.datasketch, folded))
    size = megabytes(texts)
    print(
        f"{len(texts)} texts, {size:.1f} MB\n\n| side | recall at 0.9-1 | 0.8-0.9 | 0.7-0.8 | joined strangers | signatures, MB/s | all, MB/s |"
    )
    print("|---" * 7 + "|")
    for name, runs in found.items():
        groups = runs[0]["groups"]
        inside = [[pair for pair in pairs if least <= pair[2] < most] for least, most in BUCKETS]
        cells = [f"{sum(groups[one] == groups[other] for one, other, _ in some)} of {len(some)}" for some in inside]
        strangers = len(pairs) - len(set(groups[: len(pairs)]))
        seconds = [statistics.median(run[key] for run in runs) for key in ("signatures", "seconds")]
        for more, label in ((0.0, name), (folding, f"{name} and datatrove's simplify_text"))[: 1 + (name != "ours")]:
            rates = [f"{size / (more + one):.2f}" for one in seconds]
            print(f"| {label} | {' | '.join(cells)} | {strangers} | {' | '.join(rates)} |")


if __name__ == "__main__":
    main()
