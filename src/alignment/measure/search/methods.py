"""Ways to choose among N completions of one prompt, and what each is worth with n of them: one function a method, and the table.

A method returns the value to be expected of n completions drawn without replacement from the N there are. So all N are used for
every n, not one subset of them: the estimate is unbiased and varies less. Where a best one is picked it is exact; where votes are
counted it is exact up to MAX_SUBSETS subsets and the mean over that many drawn ones beyond. Ties are shared out evenly, so that
nothing hangs on the order of the completions.

Nothing here imports torch or knows a model. Shapes: N completions, n of them, D subsets, A answers.

Sources: Chen et al. 2021 (arXiv:2107.03374) for `coverage`, Wang et al. 2023 (arXiv:2203.11171) for `majority`, Li et al. 2023
(arXiv:2206.02336) for `weighted`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

MAX_SUBSETS = 512


@dataclass(frozen=True)
class Candidate:
    """One completion of a prompt."""

    answer: str | None  # what it votes for; None where it says nothing that could be counted
    value: float  # of the metric that judges
    tokens: int  # generated
    score: float | None = None  # of the reward model
    logp: float | None = None  # mean log-probability of its tokens, nats


def best_of_n(candidates: Sequence[Candidate], n: int, seed: int = 0) -> float:
    """The one that the reward model scores highest."""
    return _expect_best([one.score for one in candidates], candidates, n)


def likeliest(candidates: Sequence[Candidate], n: int, seed: int = 0) -> float:
    """The one with the highest mean log-probability of a token under the policy itself: no reward model is asked."""
    return _expect_best([one.logp for one in candidates], candidates, n)


def majority(candidates: Sequence[Candidate], n: int, seed: int = 0) -> float:
    """The answer that most of them give."""
    return _expect_vote([1.0] * len(candidates), candidates, n, seed)


def weighted(candidates: Sequence[Candidate], n: int, seed: int = 0) -> float:
    """The answer with the greatest sum of the sigmoid of the scores: a Bradley-Terry score is a logit, and may be negative."""
    return _expect_vote([_sigmoid(one.score) for one in candidates], candidates, n, seed)


def coverage(candidates: Sequence[Candidate], n: int, seed: int = 0) -> float:
    """The best one, picked by who knows the answer (pass@n): what no method can exceed."""
    return _expect_best([one.value for one in candidates], candidates, n)


@dataclass(frozen=True)
class Method:
    """How a method counts, and the field of the candidates that it reads beside `answer` and `value`."""

    function: Callable[[Sequence[Candidate], int, int], float]
    needs: str | None = None


METHODS: dict[str, Method] = {
    "best_of_n": Method(best_of_n, needs="score"),
    "weighted": Method(weighted, needs="score"),
    "majority": Method(majority),
    "likeliest": Method(likeliest, needs="logp"),
    "coverage": Method(coverage),
}


# ------------------------------------------------------------------------------------------------ what is expected


def _expect_best(keys: Sequence[float], candidates: Sequence[Candidate], n: int) -> float:
    """Value of the one with the greatest key among n of N, over all subsets at once.

    The greatest lies in a group of equal keys in C(after + size, n) - C(after, n) of the C(N, n) subsets, where `after` have smaller
    keys; which of the group it is, is even.
    """
    _check_size(candidates, n)
    groups: dict[float, list[float]] = {}
    for key, one in zip(keys, candidates, strict=True):
        groups.setdefault(key, []).append(one.value)
    expected, after = 0.0, 0
    for key in sorted(groups):
        subsets = math.comb(after + len(groups[key]), n) - math.comb(after, n)
        expected += subsets / math.comb(len(candidates), n) * (sum(groups[key]) / len(groups[key]))
        after += len(groups[key])
    return expected


def _expect_vote(weights: Sequence[float], candidates: Sequence[Candidate], n: int, seed: int) -> float:
    """Value of the answer with the greatest sum of weights among n of N. Who has no answer has no vote, unless none has."""
    _check_size(candidates, n)
    values_N = np.array([one.value for one in candidates])
    answers = sorted({one.answer for one in candidates if one.answer is not None})
    gives_NA = np.array([[one.answer == answer for answer in answers] for one in candidates], dtype=float)
    drawn_DN = _draw_subsets(len(candidates), n, seed)
    plain_D = drawn_DN @ values_N / n
    if not answers:
        return float(plain_D.mean())
    counts_DA = drawn_DN @ gives_NA
    sums_DA = np.where(counts_DA > 0, drawn_DN @ (np.array(weights)[:, None] * gives_NA), -np.inf)
    # Equal answers may have unequal values only where the metric reads more than the answer.
    means_DA = drawn_DN @ (values_N[:, None] * gives_NA) / np.maximum(counts_DA, 1)
    wins_DA = (counts_DA > 0) & np.isclose(sums_DA, sums_DA.max(axis=1, keepdims=True), rtol=1e-12, atol=0)
    voted_D = (wins_DA * means_DA).sum(axis=1) / np.maximum(wins_DA.sum(axis=1), 1)
    return float(np.where(counts_DA.sum(axis=1) > 0, voted_D, plain_D).mean())


def _draw_subsets(size: int, n: int, seed: int) -> np.ndarray:
    """Subsets of n as rows of zeros and ones [D, N]: all of them, or MAX_SUBSETS drawn ones."""
    if math.comb(size, n) <= MAX_SUBSETS:
        chosen = np.array(list(combinations(range(size), n)))
    else:
        order = np.random.default_rng([seed, n]).random((MAX_SUBSETS, size)).argsort(axis=1)
        chosen = order[:, :n]
    drawn = np.zeros((len(chosen), size))
    np.put_along_axis(drawn, chosen, 1.0, axis=1)
    return drawn


def _check_size(candidates: Sequence[Candidate], n: int) -> None:
    if not 1 <= n <= len(candidates):
        raise ValueError(f"{n} of {len(candidates)} completions; 1 to {len(candidates)} were expected.")


def _sigmoid(score: float) -> float:
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
