"""Shares, temperatures and totals: quotas against a slow oracle, evenness, and sources that do not disturb each other."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.draw import draw_sources
from alignment.data.mixer import mix
from alignment.data.quotas import Sharing, find_quotas
from alignment.data.sources import Source
from alignment.errors import DataError
from alignment.recipe.data_spec import TrainSourceSpec


def source(path: str, size: int, **keys) -> Source:
    spec = TrainSourceSpec(path=path, format="text", **keys)
    return Source(spec, None, [{"text": f"{path} {number}"} for number in range(size)])


def rows_of(mixture, number: int) -> list[int]:
    return mixture.row_index[mixture.source_index == number].tolist()


# ------------------------------------------------------------------------------------------------ quotas


def slow_quotas(shares: list[Fraction], total: int) -> list[int]:
    """Hands out one row after the other to the source that is furthest below its share, never past rounding up."""
    quotas = [int(share * total) for share in shares]
    while sum(quotas) < total:
        behind = [share * total - quota for share, quota in zip(shares, quotas, strict=True)]
        quotas[behind.index(max(behind))] += 1
    return quotas


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(20, 5000))
@settings(deadline=None)
def test_quotas_add_up_to_the_total_and_are_those_of_a_slow_oracle(parts: list[int], total: int) -> None:
    shares = [Fraction(part, sum(parts)) for part in parts]
    sharing = Sharing("rows", None, total, 1.0)
    sizes = [10_000] * len(parts)
    if any(share * total < 1 for share in shares):
        return
    quotas = find_quotas(["s"] * len(parts), [str(share) for share in shares], sizes, [0] * len(parts), sharing)
    assert sum(quotas) == total
    assert quotas == slow_quotas(shares, total)


def test_a_third_of_a_hundred_is_never_a_row_off() -> None:
    """0.1 + 0.2 in floats would give 29 or 31 of 100."""
    sources = [source("a", 100, share=0.1), source("b", 100, share=0.2), source("c", 100, share=0.7)]
    mixture = mix(sources, 0, "train", Sharing("rows", None, 100))
    assert [len(rows_of(mixture, number)) for number in range(3)] == [10, 20, 70]


def test_without_a_total_the_scarcest_source_is_used_once() -> None:
    """20 rows are 0.2 of 100, so the other gives 80 of its 1000."""
    mixture = mix([source("a", 1000, share=0.8), source("b", 20, share=0.2)], 0, "train", Sharing("rows"))
    assert [row.obtained for row in mixture.report] == [80, 20]
    assert [row.unique for row in mixture.report] == [80, 20]


def test_a_share_beside_whole_sources_is_a_share_of_the_sum() -> None:
    """90 fixed rows are 0.75 of 120, so a quarter is 30."""
    mixture = mix([source("a", 90), source("b", 50, share=0.25)], 0, "train", Sharing("rows"))
    assert [row.obtained for row in mixture.report] == [90, 30]
    assert [row.asked for row in mixture.report] == ["all", "25 % of rows"]


@pytest.mark.parametrize(
    ("temperature", "sizes", "expected"),
    [(1.0, [900, 100], [900, 100]), (2.0, [900, 100], [300, 100]), (1e9, [900, 100], [100, 100])],
)
def test_a_temperature_flattens_the_sizes(temperature: float, sizes: list[int], expected: list[int]) -> None:
    """At 2 the parts are 30 to 10 (square roots), and the smaller source is used once."""
    sources = [source(str(number), size) for number, size in enumerate(sizes)]
    mixture = mix(sources, 0, "train", Sharing("rows", temperature))
    assert [row.obtained for row in mixture.report] == expected


def test_a_source_that_is_too_small_for_its_share_is_refused_until_it_may_repeat() -> None:
    sources = [source("a", 100, share=0.5), source("b", 10, share=0.5)]
    with pytest.raises(DataError, match=r"b: a share of 0.5 is 20 rows; at most 10 are there"):
        mix(sources, 0, "train", Sharing("rows", None, 40))
    mixture = mix(sources, 0, "train", Sharing("rows", None, 40, 2.0))
    assert Counter(rows_of(mixture, 1)) == dict.fromkeys(range(10), 2)


def test_a_share_that_is_no_row_is_refused() -> None:
    with pytest.raises(DataError, match="none of the rows"):
        mix([source("a", 100, share=0.999), source("b", 10, share=0.001)], 0, "train", Sharing("rows", None, 10))


# ------------------------------------------------------------------------------------------------ tokens


@given(st.lists(st.integers(1, 40), min_size=30, max_size=80), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_token_quotas_are_met_to_within_one_row(lengths: list[int], tenths: int, seed: int) -> None:
    """The slow way: go through the source's own order until one more row would lead further away."""
    share = tenths / 10
    sources = [source("a", len(lengths), share=share), source("b", 400, share=round(1 - share, 1))]
    tokens = [np.array(lengths), np.full(400, 7)]
    drawn = draw_sources(sources, seed, Sharing("tokens"), tokens)
    total = min(Fraction(sum(lengths)) / Fraction(str(share)), Fraction(2800) / Fraction(str(round(1 - share, 1))))
    order = draw_sources([source("a", len(lengths))], seed, Sharing(), None)[0]
    wanted, taken, count = float(total * Fraction(str(share))), 0, 0
    while count < len(order) and abs(taken + lengths[order[count]] - wanted) < abs(taken - wanted):
        taken += lengths[order[count]]
        count += 1
    assert abs(len(drawn[0]) - count) <= 1  # the whole number of tokens may be rounded either way
    assert abs(tokens[0][drawn[0]].sum() - wanted) <= max(lengths)
    assert drawn[0].tolist() == order[: len(drawn[0])].tolist()


# ------------------------------------------------------------------------------------------------ order


def test_any_stretch_holds_every_source_in_its_share() -> None:
    sources = [source("a", 700, share=0.7), source("b", 200, share=0.2), source("c", 100, share=0.1)]
    mixture = mix(sources, 3, "train", Sharing("rows"))
    for start in range(0, 900, 37):
        stretch = mixture.source_index[start : start + 100]
        counts = np.bincount(stretch, minlength=3)
        assert np.abs(counts - [70, 20, 10]).max() <= 2


@given(st.integers(0, 1000), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_adding_a_source_leaves_the_rows_and_order_of_the_others(seed: int, size: int) -> None:
    both = mix([source("a", 60, rows=40), source("b", 30, repeat=2.5)], seed, "train")
    more = mix([source("new", size), source("a", 60, rows=40), source("b", 30, repeat=2.5)], seed, "train")
    assert rows_of(both, 0) == rows_of(more, 1)
    assert rows_of(both, 1) == rows_of(more, 2)


def test_each_pass_over_a_source_has_an_order_of_its_own_and_every_row_once() -> None:
    rows = rows_of(mix([source("a", 40, repeat=2.5)], 1, "train"), 0)
    first, second, half = rows[:40], rows[40:80], rows[80:]
    assert sorted(first) == sorted(second) == list(range(40))
    assert first != second
    assert len(half) == len(set(half)) == 20


def test_a_longer_mixture_begins_with_the_rows_of_a_shorter_one() -> None:
    short = mix([source("a", 100, rows=30)], 5, "train")
    long = mix([source("a", 100, rows=90)], 5, "train")
    assert rows_of(long, 0)[:30] == rows_of(short, 0)


def test_two_entries_of_the_same_files_get_different_rows() -> None:
    mixture = mix([source("a", 100, rows=30), source("a", 100, rows=70)], 0, "train")
    assert sorted(rows_of(mixture, 0) + rows_of(mixture, 1)) == list(range(100))


def test_the_plan_is_small_and_quick() -> None:
    import time

    sources = [source("a", 1, repeat=1), source("b", 1)]
    object.__setattr__(sources[0], "rows", range(700_000))
    object.__setattr__(sources[1], "rows", range(300_000))
    begun = time.process_time()
    mixture = mix(sources, 0, "train")
    assert time.process_time() - begun < 2  # 0.1 s on an idle core
    assert (mixture.source_index.nbytes + mixture.row_index.nbytes) / len(mixture) == 12
