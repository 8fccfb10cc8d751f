import io
import json
import math
from pathlib import Path

import pytest
from datasets import Dataset
from rich.console import Console

from alignment.data.prepare import Prepared
from alignment.measure.suite import Measured
from alignment.recipe.data_spec import EvalDataSpec, SourceSpec
from alignment.recipe.model_spec import LoadedModelSpec
from alignment.recipe.schema import EvaluateRecipe
from alignment.recipe.stage_spec import EvaluateSpec
from alignment.train.stages.evaluate import Evaluation, compare, evaluate, make_table


def measured(**values: tuple[float, float]) -> Measured:
    return Measured(
        values={name: value for name, (value, _) in values.items()},
        errors={name: error for name, (_, error) in values.items()},
        counts=dict.fromkeys(values, 100),
        samples=[],
    )


OURS = measured(exact_match=(0.92, 0.03), stops=(0.99, 0.01), kl=(2.0, 0.1))
THEIRS = measured(exact_match=(0.8, 0.04), stops=(0.97, 0.01))


def test_differences_have_combined_errors():
    exact, stops = compare(OURS, THEIRS)
    assert (exact.name, exact.difference, exact.error) == ("exact_match", pytest.approx(0.12), pytest.approx(0.05))
    assert exact.differs
    assert stops.error == pytest.approx(0.01 * math.sqrt(2))
    assert not stops.differs


def test_equal_values_without_error_do_not_differ():
    [same] = compare(measured(kl=(0.0, 0.0)), measured(kl=(0.0, 0.0)))
    assert not same.differs


def test_the_table_says_no_difference_below_two_errors():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(make_table(Evaluation(OURS, THEIRS, compare(OURS, THEIRS))))
    lines = {line.split()[0]: line.split() for line in console.export_text().splitlines() if line.strip()}
    assert lines["exact_match"] == ["exact_match", "0.9200", "0.0300", "100", "0.8000", "+0.1200", "±", "0.0500"]
    assert lines["stops"][-2:] == ["no", "difference"]
    assert lines["kl"] == ["kl", "2.0000", "0.1000", "100"]


def test_results_are_flat():
    flat = Evaluation(OURS, THEIRS, compare(OURS, THEIRS)).flat()
    assert flat["exact_match"] == 0.92
    assert flat["error/exact_match"] == 0.03
    assert flat["against/exact_match"] == 0.8
    assert flat["difference/exact_match"] == pytest.approx(0.12)
    assert "against/kl" not in flat
    assert all(isinstance(value, float) for value in flat.values())


def make_recipe(*metrics: str, format: str = "prompt_completion", **further: str) -> EvaluateRecipe:
    return EvaluateRecipe(
        stage="evaluate",
        model=LoadedModelSpec(path="here"),
        data=EvalDataSpec(eval=[SourceSpec(path="rows.jsonl", format=format)]),
        evaluate=EvaluateSpec(metrics=list(metrics), max_new_tokens=4, num_samples=1, **further),
    )


def make_prepared(*rows: dict) -> Prepared:
    rows = [{"columns_json": json.dumps({})} | row for row in rows]
    return Prepared(
        folder=Path(), key="", manifest={"pad_id": 0, "stop_ids": [1]}, train=None, eval=Dataset.from_list(rows)
    )


def test_both_models_are_measured_on_the_same_rows(make_causal, tokenizer):
    prepared = make_prepared({"prompt_ids": [5, 6]}, {"prompt_ids": [7]})
    evaluation = evaluate(
        make_recipe("stops", "kl", against="there"), prepared, make_causal(seed=0), tokenizer, make_causal(seed=1)
    )
    assert set(evaluation.measured.values) == {"stops", "kl"}
    assert set(evaluation.against.values) == {"stops"}
    assert [one.name for one in evaluation.comparisons] == ["stops"]
    assert evaluation.measured.values["kl"] > 0
    assert len(evaluation.measured.samples) == 1


def test_a_reward_model_is_told_from_a_causal_one(make_classifier, tokenizer):
    prepared = make_prepared({"prompt_ids": [5, 6], "chosen_ids": [7, 1], "rejected_ids": [8, 1]})
    evaluation = evaluate(make_recipe("pair_accuracy", format="preference"), prepared, make_classifier(), tokenizer)
    assert evaluation.against is None
    assert evaluation.measured.values["pair_accuracy"] in (0.0, 1.0)
    assert set(evaluation.flat()) == {"pair_accuracy", "error/pair_accuracy"}
