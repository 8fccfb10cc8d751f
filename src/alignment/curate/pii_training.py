"""Makes `pii_weights.npz`: logistic regression on examples that are drawn from `pii_sentences.py`.

    python -m alignment.curate.pii_training

The examples to train on and those that choose the thresholds share no sentence and no form, but for the one of social security
numbers. The same seed gives the same bytes.
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignment.curate.pii import find, luhn
from alignment.curate.pii_context import BUCKETS, KINDS, WEIGHTS_PATH, hash_features, propose
from alignment.curate.pii_sentences import CITIES, HELD_OUT, MAILS, NAMES, ORGS, TRAIN, WORDS, Group

SEED = 0
TRAIN_EXAMPLES, HELD_OUT_EXAMPLES = 36_000, 10_000
PASSES, DECAY = 120, 1e-4  # steps of Nesterov's method; L2 penalty
STEP = 1.0
SCALE = 16  # a stored weight of 16 is 1 nat
ADDED_FALSELY = 0.005  # of the held-out numbers of other kinds, which are all hard ones
VETOED_FALSELY = 0.005  # of the held-out numbers of the kind


class Example(NamedTuple):
    """A number in its text."""

    text: str
    start: int
    end: int
    kind: str


def make_examples(groups: Sequence[Group], num_examples: int, rng: random.Random) -> list[Example]:
    """Drawn by the groups' shares; only those that are proposed as they stand, as no others are ever scored."""
    examples = []
    while len(examples) < num_examples:
        group = rng.choices(groups, [group.share for group in groups])[0]
        number = _draw_number(rng.choice(group.forms), group.kind, rng)
        before, after = (_fill(part, rng) for part in rng.choice(group.sentences).split("{x}"))
        before, after = _filler(rng, " ") + before, after + rng.choice(("", "", " ", ". ", "¶")) + _filler(rng, "")
        example = Example(
            (before + number + after).replace("¶", "\n"), len(before), len(before) + len(number), group.kind
        )
        if (example.start, example.end) in propose(example.text):
            examples.append(example)
    return examples


def train(seed: int = SEED) -> dict[str, np.ndarray]:
    """What `pii_context.load_weights` reads."""
    rng = random.Random(seed)
    examples, held_out = make_examples(TRAIN, TRAIN_EXAMPLES, rng), make_examples(HELD_OUT, HELD_OUT_EXAMPLES, rng)
    rows, owners = _featurize(examples)
    kinds = np.array([example.kind for example in examples])
    fitted = [_fit(rows, owners, (kinds == kind).astype(np.float64)) for kind in KINDS]
    weights = np.clip(np.rint(SCALE * np.stack(fitted, axis=1)), -127, 127).astype(np.int8)
    sums = score_all(weights, held_out)
    held_kinds = np.array([example.kind for example in held_out])
    is_decided = np.array([bool(find(example.text, KINDS, classifier=False)) for example in held_out])
    add = [_add_threshold(sums[(held_kinds != kind) & ~is_decided, place]) for place, kind in enumerate(KINDS)]
    veto = [_veto_threshold(sums[(held_kinds == kind) & is_decided, place]) for place, kind in enumerate(KINDS)]
    return {"weights": weights, "add": np.array(add, dtype=np.int16), "veto": np.array(veto, dtype=np.int16)}


def score_all(weights: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
    """Sums [examples, len(KINDS)]."""
    table = weights.astype(np.int32)
    return np.stack([table[hash_features(one.text, one.start, one.end)].sum(axis=0) for one in examples])


def write(arrays: dict[str, np.ndarray], path: Path) -> None:
    np.savez(path, **arrays)


# ------------------------------------------------------------------------------------------------ examples


def _draw_number(form: str, kind: str, rng: random.Random) -> str:
    digits = {"#": "0123456789", "N": "23456789"}
    while True:
        number = "".join(rng.choice(digits.get(char, char)) for char in form)
        if kind != "card":
            return number
        if luhn("".join(char for char in number if char.isdigit())):
            return number


def _fill(sentence: str, rng: random.Random) -> str:
    lists = {"name": NAMES, "org": ORGS, "city": CITIES, "mail": MAILS, "word": WORDS}
    for slot, choices in lists.items():
        while f"{{{slot}}}" in sentence:
            sentence = sentence.replace(f"{{{slot}}}", rng.choice(choices), 1)
    while "{n}" in sentence:
        sentence = sentence.replace("{n}", str(rng.randrange(1, 1000)), 1)
    return sentence


def _filler(rng: random.Random, end: str) -> str:
    """Words of no meaning, or none."""
    words = [rng.choice(WORDS) for _ in range(rng.choice((0, 0, 3, 8)))]
    return " ".join(words) + rng.choice((". ", "¶", ", ", end)) if words else ""


# ------------------------------------------------------------------------------------------------ regression


def _featurize(examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Places in the table of all examples, one after another, and the example of each."""
    places = [hash_features(one.text, one.start, one.end) for one in examples]
    return np.concatenate([np.array(some) for some in places]), np.repeat(np.arange(len(places)), [*map(len, places)])


def _fit(rows: np.ndarray, owners: np.ndarray, is_kind: np.ndarray) -> np.ndarray:
    """Weights [BUCKETS], in nats. Sums run in one order and without BLAS, so that every machine rounds alike."""
    weights = ahead = np.zeros(BUCKETS)
    for number in range(PASSES):
        margins = np.bincount(owners, ahead[rows], len(is_kind))
        errors = 1 / (1 + np.exp(-margins)) - is_kind
        slope = np.bincount(rows, errors[owners], BUCKETS) / len(is_kind) + DECAY * ahead
        before, weights = weights, ahead - STEP * slope
        ahead = weights + number / (number + 3) * (weights - before)
    return weights


def _add_threshold(others: np.ndarray) -> int:
    """The least sum that few numbers of other kinds reach which the patterns leave open; at least odds of e."""
    return max(int(np.sort(others)[-1 - int(ADDED_FALSELY * len(others))]) + 1, SCALE)


def _veto_threshold(own: np.ndarray) -> int:
    """The sum below which few numbers of the kind stand that the patterns find; at most odds of 1 to e."""
    return min(int(np.sort(own)[int(VETOED_FALSELY * len(own))]), -SCALE)


def main() -> int:
    write(train(), WEIGHTS_PATH)
    print(WEIGHTS_PATH)
    return 0


if __name__ == "__main__":
    sys.exit(main())
