"""Exact and near duplicates against exact similarities, and the row that is kept."""

import random

import numpy as np
import pytest
from dirty import change_words, document
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.curate.duplicates import Rank, Sketcher, choose_survivors, exact_key, group_near
from alignment.curate.words import fold
from alignment.recipe.curate_spec import NearDedupSpec

SPEC = NearDedupSpec()


def jaccard(one: str, other: str, n: int = 5) -> float:
    """The definition, with sets of joined words."""
    sets = []
    for text in (one, other):
        words = [word.decode() for word in fold(text)]
        sets.append({" ".join(words[place : place + n]) for place in range(len(words) - n + 1)})
    return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)


def groups_of(texts: list[str], spec: NearDedupSpec = SPEC) -> np.ndarray:
    sketcher = Sketcher(spec)
    for text in texts:
        sketcher.add(text)
    return group_near(*sketcher.result(), spec)


def test_planted_near_duplicates_are_found_and_strangers_are_never_joined() -> None:
    """400 documents of 180 words, each with a copy; every changed word breaks five of about 180 shingles."""
    rng = random.Random(5)
    originals = [document(rng, 15) for _ in range(400)]
    copies = [change_words(rng, text, number % 8) for number, text in enumerate(originals)]
    groups = groups_of(originals + copies)
    found: dict[str, list[bool]] = {"0.9": [], "0.8": [], "below": []}
    for number, (one, other) in enumerate(zip(originals, copies, strict=True)):
        similarity = jaccard(one, other)
        kind = "0.9" if similarity >= 0.9 else "0.8" if similarity >= 0.8 else "below"
        found[kind].append(bool(groups[number] == groups[400 + number]))
    assert min(map(len, found.values())) >= 10
    assert np.mean(found["0.9"]) == 1.0
    assert np.mean(found["0.8"]) >= 0.97
    assert len(set(groups[:400].tolist())) == 400


def test_the_share_that_is_found_follows_the_curve_of_the_bands() -> None:
    """1 - (1 - s^8)^14 at the similarities of the pairs, without the check afterwards, within 0.05 + sampling."""
    rng = random.Random(6)
    spec = NearDedupSpec(verify=0.0)
    originals = [document(rng, 15) for _ in range(300)]
    copies = [change_words(rng, text, 8) for text in originals]
    groups = groups_of(originals + copies, spec)
    similarities = np.array([jaccard(one, other) for one, other in zip(originals, copies, strict=True)])
    expected = (1 - (1 - similarities**8) ** 14).mean()
    assert abs((groups[:300] == groups[300:]).mean() - expected) < 0.08


def test_a_row_shorter_than_a_shingle_is_nobodys_near_duplicate() -> None:
    assert len(set(groups_of(["one two", "one two", "one two three four"]).tolist())) == 3


@pytest.mark.parametrize(
    ("one", "other", "normalized", "same"),
    [
        ("Hello,  World 12", "hello world 7", True, True),
        ("Hello", "hello", False, False),
        ("Ünïcode", "U\u0308ni\u0308code", True, True),
        ("hello world", "helloworld", True, False),
        ("?!", "...", True, False),
        ("中文", "中国", True, False),
    ],
)
def test_exact_keys_ignore_what_the_recipe_says(one: str, other: str, normalized: bool, same: bool) -> None:
    assert (exact_key([one], normalized) == exact_key([other], normalized)) is same


def test_two_texts_are_not_their_joined_text() -> None:
    assert exact_key(["a", "b"], True) != exact_key(["a b"], True)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(1, 4)), max_size=40))
@settings(deadline=None)
def test_the_survivor_is_the_first_by_the_rules_and_there_is_one_a_group(rows: list[tuple[int, int, int]]) -> None:
    groups, source, length = (np.array([row[index] for row in rows], dtype=np.int64) for index in range(3))
    survivors = choose_survivors(groups, Rank(source, length).order(("source", "longest", "first")))
    for number, (group, _, _) in enumerate(rows):
        members = [other for other, row in enumerate(rows) if row[0] == group]
        assert survivors[number] == min(members, key=lambda other: (rows[other][1], -rows[other][2], other))


def test_groups_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = random.Random(7)
    texts = [document(rng, 8) for _ in range(60)]
    texts += [change_words(rng, text, 2) for text in texts[:30]]
    order = rng.sample(range(len(texts)), len(texts))
    straight, mixed = groups_of(texts), groups_of([texts[place] for place in order])
    pairs = {(a, b) for a in range(90) for b in range(90) if straight[a] == straight[b]}
    assert pairs == {(order[a], order[b]) for a in range(90) for b in range(90) if mixed[a] == mixed[b]}
