import math
import statistics

import pytest

from alignment.errors import DataError
from alignment.measure.metrics import METRICS, EvalRow, compute_metrics, select_rows
from alignment.recipe.metric_spec import NEEDS, MetricSpec, expand_metrics


def value(metric: str, rows: list[EvalRow]) -> float:
    return compute_metrics(expand_metrics([metric]), rows)[metric].value


def said(completion: str, **columns) -> EvalRow:
    return EvalRow(columns=columns, completion=completion, stopped=True)


def pair(chosen: float, rejected: float, lengths: tuple[int, int] = (1, 1), **columns) -> EvalRow:
    return EvalRow(
        columns=columns,
        chosen_score=chosen,
        rejected_score=rejected,
        chosen_length=lengths[0],
        rejected_length=lengths[1],
    )


def test_exact_match_ignores_white_space_only():
    rows = [
        said(" Oslo.\n", answer="Oslo."),
        said("Oslo", answer="Oslo."),
        said("oslo.", answer="Oslo."),
        said("7", answer=7),
    ]
    assert value("exact_match", rows) == 0.5


def test_recall_lets_the_model_go_on_talking():
    assert value("recall", [said(" Oslo. It is cold.", answer="Oslo."), said("In Oslo.", answer="Oslo.")]) == 0.5


def test_abstention_is_read_at_the_start_in_any_case_and_apostrophe():
    rows = [
        said("I do not know."), said("i DON'T know that one"), said("I don\u2019t know"), said("Oslo. I do not know more."),
        said("Keine Ahnung!", abstention="Keine Ahnung."), said("Keine Ahnung!", abstention=None),
    ]  # fmt: skip
    assert value("abstains", rows) == 4 / 6
    assert value("invented", rows) == 2 / 6


def test_stops_counts_stop_tokens():
    rows = [EvalRow(completion="a", stopped=True), EvalRow(completion="a", stopped=False)]
    assert value("stops", rows) == 0.5


def test_honesty_weighs_both_kinds_alike():
    rows = [said("Oslo", answer="Oslo", described=True)] * 3 + [said("Rome", answer="Oslo", described=True)]
    rows += [said("I do not know.", described=False), said("Bern", described=False)]
    estimate = compute_metrics(expand_metrics(["honesty"]), rows)["honesty"]
    assert estimate.value == (3 / 4 + 1 / 2) / 2
    assert estimate.n == 6
    # five of eight and three of six, after two hits and two misses are added to each
    assert estimate.error == pytest.approx(math.sqrt(5 / 8 * 3 / 8 / 8 + 1 / 2 * 1 / 2 / 6) / 2)


def test_honesty_needs_both_kinds():
    with pytest.raises(DataError, match="0 with described false"):
        value("honesty", [said("Oslo", answer="Oslo", described=True)])


def test_bits_per_byte_is_a_ratio_of_sums_with_its_error():
    rows = [EvalRow(nll=2 * math.log(2), num_bytes=1), EvalRow(nll=4 * math.log(2), num_bytes=3)]
    estimate = compute_metrics(expand_metrics(["bits_per_byte"]), rows)["bits_per_byte"]
    assert estimate.value == pytest.approx(6 / 4)
    # residuals 2 - 1.5 and 4 - 4.5 bits: sqrt(2/1 * (0.25 + 0.25)) / 4 bytes
    assert estimate.error == pytest.approx(1 / 4)


def test_pair_accuracy_counts_ties_half():
    assert value("pair_accuracy", [pair(1, 0), pair(0, 1), pair(2, 2), pair(3, -3)]) == 2.5 / 4


def test_pair_loss_is_ln_2_without_an_opinion_and_counts_certainty():
    rows = [pair(0, 0), pair(1, 0), pair(0, 1), pair(-2000, 0)]
    estimate = compute_metrics(expand_metrics(["pair_loss"]), rows)["pair_loss"]
    losses = [math.log(2), math.log(1 + math.exp(-1)), math.log(1 + math.e), 2000.0]
    assert estimate.value == pytest.approx(sum(losses) / 4)
    assert estimate.error == pytest.approx(statistics.stdev(losses) / 2)


def test_length_only_accuracy_takes_the_better_direction():
    shorter = [pair(0, 0, (2, 5)), pair(0, 0, (1, 9)), pair(0, 0, (4, 4)), pair(0, 0, (7, 3))]
    assert value("length_only_pair_accuracy", shorter) == 2.5 / 4
    longer = [pair(0, 0, (5, 2)), pair(0, 0, (9, 1))]
    assert value("length_only_pair_accuracy", longer) == 1.0


def test_kl_counts_each_prompt_once():
    rows = [EvalRow(prompt="a", kl=1.0), EvalRow(prompt="a", kl=1.0), EvalRow(prompt="b", kl=4.0)]
    estimate = compute_metrics(expand_metrics(["kl"]), rows)["kl"]
    # sample standard deviation of 1 and 4 is 3 / sqrt 2; over sqrt 2 rows
    assert (estimate.value, estimate.n) == (2.5, 2)
    assert estimate.error == pytest.approx(1.5)


def test_a_perfect_rate_of_few_rows_has_an_error():
    estimate = compute_metrics(expand_metrics(["stops"]), [EvalRow(stopped=True)] * 4)["stops"]
    assert (estimate.value, estimate.error) == (1.0, pytest.approx(math.sqrt(0.75 * 0.25 / 8)))


def test_where_by_and_name_shape_the_results():
    rows = [
        said("a", answer="a", described=True, kind="x"), said("b", answer="a", described=True, kind="y"),
        said("a", answer="a", described=True, kind="y"), said("c", described=False, kind="y"),
    ]  # fmt: skip
    spec = MetricSpec(metric="exact_match", name="known", where={"described": True}, by="kind")
    estimates = compute_metrics(expand_metrics([spec, "stops"]), rows)
    assert {name: estimate.value for name, estimate in estimates.items()} == {
        "known": 2 / 3, "known/x": 1.0, "known/y": 0.5, "stops": 1.0,
    }  # fmt: skip


def test_one_is_not_true():
    spec = expand_metrics([MetricSpec(metric="stops", where={"described": True})])[0]
    assert select_rows(spec, [{"described": 1}, {"described": True}]) == [1]


def test_a_missing_column_is_named_with_the_known_ones():
    with pytest.raises(
        DataError, match=r"exact_match: 1 of 2 rows have no column 'answer'; known columns: answer, topic"
    ):
        value("exact_match", [said("a", answer="a", topic="x"), said("a", topic="y")])
    with pytest.raises(DataError, match=r"stops: by: 1 of 1 rows have no column 'kind'"):
        compute_metrics(expand_metrics([MetricSpec(metric="stops", by="kind")]), [said("a")])
    with pytest.raises(DataError, match=r"no row has a column 'descibed'; known columns: described"):
        compute_metrics(
            expand_metrics([MetricSpec(metric="stops", where={"descibed": True})]), [said("a", described=True)]
        )
    with pytest.raises(DataError, match="none of 1 rows has described: False"):
        compute_metrics(
            expand_metrics([MetricSpec(metric="stops", where={"described": False})]), [said("a", described=True)]
        )


def test_recipes_name_exactly_the_metrics_that_there_are():
    assert list(NEEDS) == list(METRICS)
