"""Methods against every subset counted by hand, on candidates whose scores are written down."""

import math
from itertools import combinations

import numpy as np
import pytest

from alignment.measure.rows import EvalRow
from alignment.measure.scorers import read_answer
from alignment.measure.search.curves import Searched, bootstrap, choose_sizes, find_methods, make_curves
from alignment.measure.search.methods import METHODS, Candidate

# Five completions: two right ones, of which one is scored highest; three that agree on a wrong answer.
FIVE = (
    Candidate("4", 1.0, 3, score=2.0, logp=-0.5),
    Candidate("4", 1.0, 5, score=-1.0, logp=-0.1),
    Candidate("5", 0.0, 4, score=0.0, logp=-0.3),
    Candidate("5", 0.0, 4, score=0.5, logp=-0.2),
    Candidate("5", 0.0, 4, score=-3.0, logp=-0.9),
)


def by_hand(candidates, n, choose) -> float:
    subsets = list(combinations(candidates, n))
    return sum(choose(subset) for subset in subsets) / len(subsets)


def pick(key):
    def choose(subset):
        top = max(map(key, subset))
        best = [one.value for one in subset if key(one) == top]
        return sum(best) / len(best)

    return choose


def vote(weight):
    def choose(subset):
        voters = [one for one in subset if one.answer is not None]
        if not voters:
            return sum(one.value for one in subset) / len(subset)
        sums: dict[str, float] = {}
        for one in voters:
            sums[one.answer] = sums.get(one.answer, 0.0) + weight(one)
        winners = [answer for answer, total in sums.items() if math.isclose(total, max(sums.values()))]
        values = [np.mean([one.value for one in voters if one.answer == winner]) for winner in winners]
        return float(np.mean(values))

    return choose


CHOOSERS = {
    "best_of_n": pick(lambda one: one.score),
    "likeliest": pick(lambda one: one.logp),
    "coverage": pick(lambda one: one.value),
    "majority": vote(lambda one: 1.0),
    "weighted": vote(lambda one: 1 / (1 + math.exp(-one.score))),
}


def test_every_method_of_the_table_is_tested() -> None:
    assert set(CHOOSERS) == set(METHODS)


@pytest.mark.parametrize("n", range(1, 6))
@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_the_mean_over_all_subsets(name: str, n: int) -> None:
    assert METHODS[name].function(FIVE, n, 0) == pytest.approx(by_hand(FIVE, n, CHOOSERS[name]), abs=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_equal_scores_are_shared_out_whatever_the_order(name: str) -> None:
    tied = [Candidate(str(value), value, 1, score=0.0, logp=0.0) for value in (1.0, 0.0, 0.0, 1.0)]
    for n in (1, 2, 3, 4):
        expected = by_hand(tied, n, CHOOSERS[name])
        assert METHODS[name].function(tied, n, 0) == pytest.approx(expected)
        assert METHODS[name].function(tied[::-1], n, 0) == pytest.approx(expected)


@pytest.mark.parametrize("name", METHODS)
def test_one_completion_is_worth_the_mean_of_all(name: str) -> None:
    assert METHODS[name].function(FIVE, 1, 0) == pytest.approx(0.4)


def test_coverage_is_the_closed_form_of_pass_at_k() -> None:
    many = [Candidate("x", float(place < 7), 1) for place in range(40)]
    for n in (1, 8, 40):
        assert METHODS["coverage"].function(many, n, 0) == pytest.approx(1 - math.comb(33, n) / math.comb(40, n))


def test_who_has_no_answer_has_no_vote() -> None:
    mute = [Candidate(None, 0.0, 1), Candidate(None, 0.0, 1), Candidate("4", 1.0, 1)]
    assert METHODS["majority"].function(mute, 3, 0) == 1.0
    assert METHODS["majority"].function(mute, 2, 0) == pytest.approx(2 / 3)
    assert METHODS["majority"].function(mute[:2], 2, 0) == 0.0


@pytest.mark.parametrize("name", ["majority", "weighted"])
def test_drawn_subsets_come_near_all_of_them(name: str, monkeypatch) -> None:
    random = np.random.default_rng(0)
    many = [
        Candidate(answer, float(answer == "a"), 1, score=float(score))
        for answer, score in zip(random.choice(["a", "b", "c"], 14, p=[0.4, 0.35, 0.25]), random.normal(size=14), strict=True)
    ]  # fmt: skip
    drawn = METHODS[name].function(many, 5, 0)  # 512 of 2,002
    assert drawn == METHODS[name].function(many, 5, 0)
    monkeypatch.setattr("alignment.measure.search.methods.MAX_SUBSETS", 3000)
    assert drawn == pytest.approx(METHODS[name].function(many, 5, 0), abs=0.07)  # 3 standard errors of a rate


@pytest.mark.parametrize("n", [0, 6])
def test_more_completions_than_there_are_cannot_be_asked_for(n: int) -> None:
    for method in METHODS.values():
        with pytest.raises(ValueError, match="1 to 5 were expected"):
            method.function(FIVE, n, 0)


def test_extreme_scores_are_weights_too() -> None:
    far = [Candidate("a", 1.0, 1, score=-1e4), Candidate("b", 0.0, 1, score=1e4)]
    assert METHODS["weighted"].function(far, 2, 0) == 0.0


def test_methods_without_their_scores_are_left_out() -> None:
    assert find_methods(FIVE) == list(METHODS)
    assert find_methods([Candidate("a", 1.0, 1)]) == ["majority", "coverage"]


def test_sizes_are_powers_of_two_and_the_most() -> None:
    assert choose_sizes(1) == [1]
    assert choose_sizes(6) == [1, 2, 4, 6]
    assert choose_sizes(16) == [1, 2, 4, 8, 16]


def test_a_curve_counts_every_token_and_gains_prompt_by_prompt() -> None:
    searched = [
        Searched(Candidate("5", 0.0, 4), FIVE),
        Searched(Candidate("4", 1.0, 4), FIVE),
    ]
    points = {point.n: point for point in make_curves(searched, ["best_of_n"], seed=0)}
    assert set(points) == {1, 2, 4, 5}
    assert points[1].tokens == pytest.approx(4.0)
    assert points[5].tokens == pytest.approx(20.0)
    assert points[5].value.value == 1.0
    assert points[5].value.error == 0.0  # the two prompts do not differ
    assert points[5].gain.value == pytest.approx(0.5)
    assert points[5].gain.low <= 0.5 <= points[5].gain.high


def test_an_interval_has_the_error_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    interval = bootstrap(values, seed=0)
    assert interval.error == pytest.approx(values.std() / 20, rel=0.1)
    assert interval.low == pytest.approx(values.mean() - 1.96 * values.std() / 20, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + 1.96 * values.std() / 20, abs=0.03)


def test_votes_are_for_what_the_scorer_reads() -> None:
    def read(name: str, text: str) -> str | None:
        return read_answer(name, EvalRow(completion=text))

    assert read("last_number", "2 and 2 make 4.") == read("last_number", "It is 4.0")
    assert read("last_number", "no idea") is None
    assert read("exact_match", " Paris ") == "Paris"
