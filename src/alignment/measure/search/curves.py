"""Value against tokens for every method, with intervals over the prompts. Nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignment.measure.search.methods import METHODS, Candidate

RESAMPLES = 2000
COVERED = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over prompts with its standard error and the bounds of its 95 % interval."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A method with n completions a prompt."""

    method: str
    n: int
    value: Interval
    gain: Interval  # over the greedy completion, prompt by prompt
    tokens: float  # generated, a prompt


@dataclass(frozen=True)
class Searched:
    """One prompt with its greedy completion and the sampled ones."""

    greedy: Candidate
    sampled: tuple[Candidate, ...]


def find_methods(candidates: Sequence[Candidate]) -> list[str]:
    """The methods whose needs these candidates meet, in the order of the table."""
    return [
        name
        for name, method in METHODS.items()
        if method.needs is None or all(getattr(one, method.needs) is not None for one in candidates)
    ]


def choose_sizes(most: int) -> list[int]:
    """1, 2, 4, ... and the most there are."""
    return sorted({most, *(2**power for power in range(most.bit_length()))} - {0})


def make_curves(searched: Sequence[Searched], methods: Sequence[str], seed: int) -> list[Point]:
    """A point for each method and size."""
    greedy_Q = np.array([one.greedy.value for one in searched])
    tokens = float(np.mean([np.mean([candidate.tokens for candidate in one.sampled]) for one in searched]))
    points = []
    for name in methods:
        for n in choose_sizes(len(searched[0].sampled)):
            values_Q = np.array(
                [METHODS[name].function(one.sampled, n, seed + place) for place, one in enumerate(searched)]
            )
            points.append(Point(name, n, bootstrap(values_Q, seed), bootstrap(values_Q - greedy_Q, seed), n * tokens))
    return points


def bootstrap(values_Q: np.ndarray, seed: int) -> Interval:
    """Percentile interval of the mean, with the prompts drawn anew RESAMPLES times (Efron 1979)."""
    drawn = np.random.default_rng(seed)
    means = np.array([drawn.choice(values_Q, len(values_Q)).mean() for _ in range(RESAMPLES)])
    low, high = np.quantile(means, [(1 - COVERED) / 2, (1 + COVERED) / 2])
    return Interval(float(values_Q.mean()), float(means.std(ddof=1)), float(low), float(high))
