"""Rows with faults whose number is known, and recipes that take them out."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

WORDS = [f"{a}{b}{c}" for a in "bdfglmnprt" for b in "aeiou" for c in ("n", "r", "sa", "to", "lim")]


def sentence(rng: random.Random, length: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(length)).capitalize() + "."


def document(rng: random.Random, sentences: int = 6) -> str:
    return " ".join(sentence(rng) for _ in range(sentences))


def change_words(rng: random.Random, text: str, count: int) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), count):
        words[place] = rng.choice(("q", "z"))  # shorter than any word, so that the original is the longer one
    return " ".join(words)


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.open(encoding="utf-8")]


def dirty_rows(seed: int = 0, clean: int = 60) -> tuple[list[dict], dict[str, set[str]]]:
    """Rows, and the ids that must go, by reason."""
    rng = random.Random(seed)
    rows = [{"id": f"clean{n}", "text": document(rng), "n": n} for n in range(clean)]
    exact = [{"id": f"exact{n}", "text": rows[n]["text"].upper() + "  ", "n": -n} for n in range(7)]
    near = [{"id": f"near{n}", "text": change_words(rng, rows[10 + n]["text"], 1), "n": -n} for n in range(5)]
    blank = [{"id": "blank", "text": " \n", "n": 0}]
    leaked = [{"id": f"leak{n}", "text": f"{sentence(rng)} {ITEMS[n]['question']} {sentence(rng)}"} for n in range(2)]
    rows += exact + near + blank + leaked
    gone = {
        "exact_duplicate": {row["id"] for row in exact},
        "near_duplicate": {row["id"] for row in near},
        "no_text": {"blank"},
        "contaminated": {row["id"] for row in leaked},
    }
    return rows, gone


_RNG = random.Random(99)
ITEMS = [{"question": sentence(_RNG, 20), "answer": str(n)} for n in range(5)]
RECIPE = """stage: curate
seed: 1
data:
  train:
    - path: raw
      format: text
curate:
  executor:
    workers: {workers}
    tasks: {tasks}
  steps:
    - normalize: {{}}
    - exact_dedup: {{}}
    - near_dedup: {{}}
    - pii: {{}}
    - decontaminate:
        evals:
          - path: evals.jsonl
"""


def write_study(
    folder: Path, *, files: int = 4, workers: int | str = 1, tasks: int | str = "auto"
) -> dict[str, set[str]]:
    """raw/ in `files` files, evals.jsonl and r.yaml; returns what must go."""
    rows, gone = dirty_rows()
    size = -(-len(rows) // files)
    for number in range(files):
        write_rows(folder / f"raw/part-{number}.jsonl", rows[number * size : (number + 1) * size])
    write_rows(folder / "evals.jsonl", ITEMS)
    (folder / "r.yaml").write_text(RECIPE.format(workers=workers, tasks=tasks))
    return gone


def all_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a result that is promised to be the same, by its path."""
    files = [*folder.glob("final/*"), *folder.glob("removed/*/*"), folder / "receipt.json", folder / "report.html"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}
