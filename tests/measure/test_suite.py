import json
import math

import pytest
import torch
from datasets import Dataset
from torch import nn

from alignment.errors import DataError, RecipeError
from alignment.measure.generation import generate_batch
from alignment.measure.logps import reward_scores, token_logps
from alignment.measure.suite import count_trained_bytes, measure
from alignment.recipe.metric_spec import MetricSpec

PAD, STOP = 0, 1


def make_rows(*rows: dict) -> Dataset:
    """Rows as `prepare` leaves them: token columns, and the original columns as JSON."""
    return Dataset.from_list([row | {"columns_json": json.dumps(row.get("columns_json", {}))} for row in rows])


def run(model, tokenizer, rows, specs, **settings):
    return measure(model, tokenizer, rows, specs, pad_id=PAD, stop_ids=(STOP,), batch_size=4, **settings)


@pytest.fixture
def questions(make_causal, tokenizer) -> Dataset:
    """Four rows of three prompts; the model answers the first prompt right, and the second wrong."""
    right = generate_batch(make_causal(), tokenizer, [[5, 6]], (STOP,), PAD, 4, 1)[0].text
    return make_rows(
        {"prompt_ids": [5, 6], "columns_json": {"answer": right, "kind": "a"}},
        {"prompt_ids": [7, 8, 9], "columns_json": {"answer": "nothing", "kind": "b"}},
        {"prompt_ids": [5, 6], "columns_json": {"answer": right, "kind": "b"}},
        {"prompt_ids": [10], "columns_json": {"kind": "c"}},
    )


def count_generated_rows(model) -> list[int]:
    """Rows of each prefill that the model runs from now on."""
    rows = []
    model.register_forward_pre_hook(
        lambda module, arguments, keywords: (
            rows.append(keywords["input_ids"].size(0))
            if keywords["input_ids"].size(1) > 1 or not keywords["past_key_values"].get_seq_length()
            else None
        ),
        with_kwargs=True,
    )
    return rows


def test_each_distinct_prompt_is_generated_once_for_all_metrics(make_causal, tokenizer, questions):
    model = make_causal()
    prefilled = count_generated_rows(model)
    answered = {"kind": "b"}
    specs = [
        MetricSpec(metric="exact_match", where=answered),
        "stops",
        MetricSpec(metric="stops", name="again", by="kind"),
    ]
    measured = run(model, tokenizer, questions, specs, max_new_tokens=4, num_samples=2)
    assert sum(prefilled) == 3
    assert (measured.values["exact_match"], measured.counts["exact_match"]) == (0.5, 2)
    assert set(measured.values) == {"exact_match", "stops", "again", "again/a", "again/b", "again/c"}
    assert measured.values["stops"] == measured.values["again"]


def test_rows_that_no_metric_reads_are_not_measured(make_causal, tokenizer, questions):
    model = make_causal()
    prefilled = count_generated_rows(model)
    run(model, tokenizer, questions, [MetricSpec(metric="exact_match", where={"kind": "a"})], max_new_tokens=4)
    assert sum(prefilled) == 1


def test_samples_are_distinct_prompts_and_need_no_metric(make_causal, tokenizer, questions):
    measured = run(make_causal(), tokenizer, questions, [], max_new_tokens=4, num_samples=9)
    assert [sample["prompt"] for sample in measured.samples] == ["w5 w6", "w7 w8 w9", "w10"]
    assert [sample.get("answer") for sample in measured.samples][1:] == ["nothing", None]
    assert measured.values == {}


def test_bits_per_byte_of_an_indifferent_model_is_known(make_causal, tokenizer):
    model = make_causal()
    nn.init.zeros_(model.lm_head.weight)
    # Trained: w6 w7 and the stop token, of 6 bytes with their spaces; each costs log2(48) bits.
    rows = make_rows({"input_ids": [5, 6, 7, STOP], "labels": [-100, 6, 7, STOP]})
    measured = run(model, tokenizer, rows, ["bits_per_byte"])
    assert measured.values["bits_per_byte"] == pytest.approx(3 * math.log2(48) / 6)


def test_bytes_are_those_of_the_trained_runs(tokenizer):
    ids = [5, 6, 20, 7, 8, STOP]
    assert count_trained_bytes(tokenizer, ids, [1] * 6) == len("w5 w6 w20 w7 w8")
    assert count_trained_bytes(tokenizer, ids, [0, 0, 1, 0, 1, 1]) == len(" w20") + len(" w8")
    assert count_trained_bytes(tokenizer, ids, [0] * 6) == 0


def make_pairs() -> Dataset:
    chosen = [[20, STOP], [21, 22, STOP], [23, 24, 25, STOP], [26, 27, 28, 29, STOP]]
    rejected = [[30, 31, STOP], [32, STOP], [33, STOP], [34, STOP]]
    return make_rows(
        *(
            {"prompt_ids": [5, 6], "chosen_ids": good, "rejected_ids": bad}
            for good, bad in zip(chosen, rejected, strict=True)
        )
    )


def test_pairs_are_scored_by_the_reward_model_over_prompt_and_completion(make_classifier, tokenizer):
    model, rows = make_classifier(), make_pairs()
    wins = [
        reward_scores(model, [[5, 6, *row["chosen_ids"]]], pad_id=PAD, batch_size=1)
        > reward_scores(model, [[5, 6, *row["rejected_ids"]]], pad_id=PAD, batch_size=1)
        for row in rows
    ]
    specs = [MetricSpec(metric="pair_accuracy", by="length_bucket"), "length_only_pair_accuracy"]
    measured = run(model, tokenizer, rows, specs, kind="reward", num_samples=3)
    assert measured.values == {
        "pair_accuracy": sum(wins) / 4,
        **{f"pair_accuracy/q{n}": float(win) for n, win in enumerate(wins, start=1)},
        "length_only_pair_accuracy": 3 / 4,
    }
    assert measured.samples == []


def test_rows_that_are_no_pairs_have_no_length_bucket(make_causal, tokenizer):
    pair = {"prompt_ids": [5], "rejected_ids": [7]}
    rows = make_rows(
        *({"chosen_ids": [8] * length, "columns_json": {"pair": True}} | pair for length in (1, 2, 3, 4)),
        *[{"prompt_ids": [5], "chosen_ids": [], "rejected_ids": []}] * 9,
    )
    spec = MetricSpec(metric="length_only_pair_accuracy", name="blind", where={"pair": True}, by="length_bucket")
    values = run(make_causal(), tokenizer, rows, [spec]).values
    assert values == {"blind": 3.5 / 4, "blind/q1": 0.5, "blind/q2": 1.0, "blind/q3": 1.0, "blind/q4": 1.0}


def test_pairs_of_a_causal_model_are_compared_by_log_probability(make_causal, tokenizer):
    model, rows = make_causal(), make_pairs()
    good, bad = (
        token_logps(model, [[5, 6]] * 4, rows[name], pad_id=PAD, batch_size=1)
        for name in ("chosen_ids", "rejected_ids")
    )
    wins = [a.sum > b.sum for a, b in zip(good, bad, strict=True)]
    assert run(model, tokenizer, rows, ["pair_accuracy"]).values["pair_accuracy"] == sum(wins) / 4


def test_kl_is_measured_on_the_models_own_completions(make_causal, tokenizer, questions):
    model, against = make_causal(seed=0), make_causal(seed=1)
    totals = []
    for prompt in ([5, 6], [7, 8, 9], [10]):
        said = list(generate_batch(model, tokenizer, [prompt], (STOP,), PAD, 4, 1)[0].ids)
        with torch.no_grad():
            p, q = (
                one(torch.tensor([prompt + said])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                for one in (model, against)
            )
        totals.append((p.exp() * (p - q)).sum().item())
    measured = run(model, tokenizer, questions, ["kl"], max_new_tokens=4, against_model=against)
    assert measured.values["kl"] == pytest.approx(sum(totals) / 3, rel=1e-4)
    assert measured.counts["kl"] == 3


def test_what_a_model_cannot_do_is_refused(make_causal, make_classifier, tokenizer, questions):
    with pytest.raises(
        RecipeError, match="stops needs a causal model; this is a reward model, which has: pair_accuracy"
    ):
        run(make_classifier(), tokenizer, make_pairs(), ["stops"], kind="reward")
    with pytest.raises(RecipeError, match="kl compares with another model"):
        run(make_causal(), tokenizer, questions, ["kl"])
    with pytest.raises(DataError, match="bits_per_byte: 4 of 4 rows have no input_ids"):
        run(make_causal(), tokenizer, questions, ["bits_per_byte"])
    rows = make_rows({"prompt_ids": [5]}, {"prompt_ids": None})
    with pytest.raises(DataError, match="stops: 1 of 2 rows have no prompt_ids"):
        run(make_causal(), tokenizer, rows, ["stops"])
