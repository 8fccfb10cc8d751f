"""Recipes that would end in a traceback, or whose keys would be ignored, are refused at the line that says so."""

from pathlib import Path

import numpy as np
import pytest
from recipe_files import FULL

from alignment.data.prepare_split import _columns
from alignment.data.sources import find_source
from alignment.errors import DataError, RecipeError
from alignment.measure.suite import TOKENS
from alignment.recipe.data_spec import STAGE_FORMATS
from alignment.recipe.loader import read_recipe
from alignment.recipe.metric_spec import NEEDS
from alignment.recipe.schema import RECIPES, PretrainRecipe
from alignment.recipe.shape import walk_fields
from alignment.recipe.stage_spec import KL_HORIZON

FORMATS = {"pretrain": "text", "sft": "messages", "reward": "preference", "dpo": "preference", "ppo": "prompt"}
METRIC = {"pretrain": "bits_per_byte", "sft": "stops", "reward": "pair_loss", "dpo": "pair_accuracy", "ppo": "score"}
OWN = {"dpo": "dpo:\n  reference: start\n", "ppo": "ppo:\n  rewards: [stops]\n"}
HELD_OUT = "  eval:\n    - path: b.jsonl\n      format: {}\n"


def make(
    stage: str, *, source: str = "", held_out: bool = False, train: str = "", own: str = "", more: str = ""
) -> str:
    """A recipe whose source begins in line 6; the lines that are given stand at the end of their sections."""
    lines = [
        f"stage: {stage}\nmodel:\n  path: a/b\ndata:\n  train:\n    - path: a.jsonl\n      format: {FORMATS[stage]}\n",
        source,
        HELD_OUT.format(FORMATS[stage]) if held_out else "",
        f"train:\n  max_steps: 8\n  learning_rate: 1e-4\n{train}",
        OWN.get(stage, ""),
        own,
        more,
    ]
    return "".join(lines)


def said(tmp_path: Path, text: str) -> list[str]:
    """`line:column message` of each mistake."""
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return [f"{one.place.line + 1}:{one.place.column + 1} {one.message}" for one in read_recipe(path).mistakes]


# ------------------------------------------------------------------------------------------------ held-out rows


@pytest.mark.parametrize("stage", FORMATS)
def test_evaluations_without_held_out_rows_are_refused(tmp_path: Path, stage: str) -> None:
    """transformers' Trainer raises ValueError for them, once the model is loaded."""
    assert said(tmp_path, make(stage, train="  eval_steps: 4\n")) == [
        "11:3 train.eval_steps: there are no held-out rows to evaluate on; give 'data.eval', or remove it"
    ]
    assert said(tmp_path, make(stage, train="  eval_steps: 4\n", held_out=True)) == []


@pytest.mark.parametrize("stage", FORMATS)
def test_metrics_without_held_out_rows_are_refused(tmp_path: Path, stage: str) -> None:
    metrics = f"eval:\n  metrics: [{METRIC[stage]}]\n"
    found = said(tmp_path, make(stage, more=metrics))
    assert [line.split(" ", 1)[1] for line in found] == [
        "eval.metrics: there are no held-out rows to measure on; give 'data.eval', or remove it"
    ]
    assert said(tmp_path, make(stage, more="eval:\n  metrics: []\n")) == []
    assert said(tmp_path, make(stage, more=metrics, held_out=True)) == []


@pytest.mark.parametrize("stage", FORMATS)
@pytest.mark.parametrize("metric", NEEDS)
def test_a_metric_that_the_stage_cannot_measure_is_refused(tmp_path: Path, stage: str, metric: str) -> None:
    """As `alignment.measure.suite` would refuse it, once the model is loaded."""
    text = make(stage, more=f"eval:\n  metrics:\n    - metric: {metric}\n", held_out=True)
    rows = {"pretrain": "prompt_completion", "ppo": "messages"}.get(stage, FORMATS[stage])
    found = said(tmp_path, text.replace(f"b.jsonl\n      format: {FORMATS[stage]}", f"b.jsonl\n      format: {rows}"))
    able = set(TOKENS[NEEDS[metric]]) <= set(_columns(stage, "eval")) and (
        stage != "reward" or NEEDS[metric] in ("pairs", "lengths")
    )
    able = able and {"score": stage == "ppo", "kl": stage in ("dpo", "ppo")}.get(metric, True)
    assert (
        not found
        if able
        else [f"stage {stage} cannot measure eval.metrics.0 ({metric}); it has: " in one for one in found] == [True]
    )


@pytest.mark.parametrize(
    ("stage", "rows", "metric", "refused"),
    [
        ("pretrain", "text", "recall", True),
        ("pretrain", "text", "bits_per_byte", False),
        ("evaluate", "messages", "pair_loss", True),
        ("evaluate", "preference", "pair_loss", False),
        ("evaluate", "preference", "bits_per_byte", True),
        ("evaluate", "preference", "exact_match", False),
        ("evaluate", "text", "kl", True),
    ],
)
def test_a_metric_that_no_held_out_row_is_fit_for_is_refused(tmp_path, stage, rows, metric, refused) -> None:
    if stage == "evaluate":
        text = f"stage: evaluate\nmodel:\n  path: a/b\ndata:\n{HELD_OUT.format(rows)}evaluate:\n  against: c/d\n  metrics: [{metric}]\n"
    else:
        text = make(stage, more=f"eval:\n  metrics: [{metric}]\n", held_out=True)
    found = said(tmp_path, text)
    assert len(found) == refused
    assert all(
        f"{metric} cannot be measured on held-out rows of the format {rows}; name a source" in one for one in found
    )
    # Beside rows that are fit it is measured on these only where they are chosen.
    other = "prompt_completion" if stage == "pretrain" else {"pair_loss": "preference"}.get(metric, "messages")
    both = text.replace("  eval:\n", f"  eval:\n    - path: d.jsonl\n      format: {other}\n")
    found = said(tmp_path, both)
    assert len(found) == refused
    assert all(
        f"{metric} cannot be measured on held-out rows of the format {rows}; choose the other" in one for one in found
    )
    assert said(tmp_path, both.replace(f"[{metric}]", f"[{{metric: {metric}, where: {{part: a}}}}]")) == []


def test_every_metric_that_a_stage_cannot_measure_is_named(tmp_path: Path) -> None:
    metrics = "eval:\n  metrics:\n    - stops\n    - kl\n    - metric: pair_loss\n"
    [found] = said(tmp_path, make("sft", more=metrics, held_out=True))
    assert found.startswith(
        "18:7 stage sft cannot measure eval.metrics.1 (kl), eval.metrics.2 (pair_loss); it has: exact_match, "
    )


def test_an_evaluation_against_nothing_has_no_kl(tmp_path: Path) -> None:
    text = f"stage: evaluate\nmodel:\n  path: a/b\ndata:\n{HELD_OUT.format('messages')}evaluate:\n  metrics:\n    - stops\n    - kl\n"
    assert said(tmp_path, text) == [
        "11:7 evaluate.metrics: kl compares with another model; give 'evaluate.against', or remove it"
    ]
    assert said(tmp_path, text + "  against: c/d\n") == []


def test_two_results_have_two_names(tmp_path: Path) -> None:
    metrics = "eval:\n  metrics:\n    - stops\n    - metric: stops\n      {}: {}\n"
    assert said(tmp_path, make("sft", more=metrics.format("by", "kind"), held_out=True)) == [
        "17:7 eval: metrics: 2 results are called 'stops'; one is expected. Give each a 'name'"
    ]
    assert said(tmp_path, make("sft", more=metrics.format("name", "again"), held_out=True)) == []


def test_the_best_weights_need_held_out_rows(tmp_path: Path) -> None:
    best = "  keep: best\n  save_steps: 4\n  eval_steps: 4\n"
    [found] = said(tmp_path, make("sft", train=best))
    assert found.startswith("13:3 train.eval_steps: there are no held-out rows")
    assert said(tmp_path, make("sft", train=best, held_out=True)) == []


@pytest.mark.parametrize(
    ("eval_steps", "held_out", "refused"), [(True, True, False), (False, True, True), (True, False, True)]
)
def test_reward_hacking_needs_evaluations_during_training(tmp_path, eval_steps, held_out, refused) -> None:
    own = "  gold: honest\n  stop_on: [kl, reward_hacking]\n"
    text = make("ppo", own=own, held_out=held_out, train="  eval_steps: 4\n" if eval_steps else "")
    found = [line for line in said(tmp_path, text) if "ppo.stop_on: reward_hacking compares the evaluations" in line]
    assert len(found) == refused


def test_a_gold_scorer_needs_held_out_rows(tmp_path: Path) -> None:
    own = "  gold: honest\n"
    [found] = said(tmp_path, make("ppo", own=own))
    assert found.endswith(
        "ppo.gold: it is asked about held-out rows, and there are none; give 'data.eval', or remove it"
    )
    assert said(tmp_path, make("ppo", own=own, held_out=True)) == []


# ------------------------------------------------------------------------------------------------ numbers


def test_seeds_are_those_that_numpy_takes(tmp_path: Path) -> None:
    assert said(tmp_path, make("sft", more=f"seed: {2**32 - 1}\n")) == []
    np.random.RandomState(2**32 - 1)
    [found] = said(tmp_path, make("sft", more=f"seed: {2**32}\n"))
    assert found == (
        "11:7 seed: found 4294967296 (a whole number); a whole number of at least 0 and below 4294967296 was expected"
    )
    with pytest.raises(ValueError, match="Seed must be between"):
        np.random.RandomState(2**32)


@pytest.mark.parametrize(
    ("horizon", "refused"),
    [(25, True), (26, False)],  # 128 completions are 5.12 and 4.92 of them
)
def test_a_horizon_is_more_than_a_fifth_of_an_update(tmp_path: Path, horizon: int, refused: bool) -> None:
    """Otherwise 1 - 0.2 * completions / horizon, which kl_coef would be multiplied by, is not above 0."""
    own = f"  kl_target: 6\n  kl_horizon: {horizon}\n  num_mini_batches: 2\n"
    found = said(tmp_path, make("ppo", own=own, train="  global_batch_size: 64\n"))
    assert len(found) == refused
    assert all(one.startswith("15:3 ppo.kl_horizon: 25 is at most a fifth of the 128 completions") for one in found)
    assert all(one.endswith("write at least 26") for one in found)


def test_the_default_horizon_is_judged_too(tmp_path: Path) -> None:
    text = make("ppo", own="  kl_target: 6\n", train=f"  global_batch_size: {5 * KL_HORIZON}\n")
    [found] = said(tmp_path, text)
    assert found.startswith("14:3 ppo.kl_horizon: 10000 is at most a fifth of the 50000 completions")
    assert said(tmp_path, text.replace("  kl_target: 6\n", "")) == []


# ------------------------------------------------------------------------------------------------ sources


def test_a_format_that_the_stage_cannot_use_is_refused_with_every_source_that_has_it(tmp_path: Path) -> None:
    text = make("dpo", source="    - path: c.jsonl\n      format: text\n", held_out=True)
    assert said(tmp_path, text.replace("format: preference", "format: messages", 1)) == [
        "7:7 stage dpo cannot use the format of data.train.0 (messages), data.train.1 (text); it reads: preference"
    ]


@pytest.mark.parametrize("stage", RECIPES)
def test_every_stage_says_which_formats_it_reads(tmp_path: Path, stage: str) -> None:
    """A format outside of the table is refused in each stage, curation aside, which reads them all."""
    split = "eval" if stage == "evaluate" else "train"
    recipe = FULL / f"{stage}.yaml"
    outside = set(STAGE_FORMATS["curate"]) - set(STAGE_FORMATS[stage])
    assert bool(outside) == (stage != "curate")
    for name in outside:
        found = [mistake.message for mistake in read_recipe(recipe, [f"data.{split}.0.format={name}"]).mistakes]
        assert any(f"stage {stage} cannot use the format of data.{split}.0 ({name})" in line for line in found)


@pytest.mark.parametrize("split", ["train[:90%", "train[90]", "train+test", "train[:0.5]", "", "a b"])
def test_a_split_that_cannot_be_read_is_refused(tmp_path: Path, split: str) -> None:
    [found] = said(tmp_path, make("sft", source=f"      split: '{split}'\n"))
    assert found.startswith("8:7 data.train.0: split ")
    assert found.endswith("a name, or a slice of it such as train[:90%] or train[100:200], was expected")


@pytest.mark.parametrize(
    "split",
    ["train", "train[:90%]", "train[100:200]", "train[-10:]", "v1.0-test_a", "train[:90%", "train[90]", "a+b", "", "é"],
)
def test_splits_are_those_that_the_reader_of_sources_understands(tmp_path: Path, split: str) -> None:
    """Its refusal of an unreadable split comes before everything else that may be wrong."""
    recipe = read_recipe(FULL / "pretrain-continue.yaml").recipe
    assert isinstance(recipe, PretrainRecipe)
    source = recipe.data.train[0].model_copy(update={"split": split, "path": "./nothing.jsonl"})
    with pytest.raises((RecipeError, DataError)) as caught:
        find_source(source, tmp_path, None)
    found = said(tmp_path, make("sft", source=f"      split: '{split}'\n"))
    assert bool(found) == ("a name, or a slice of it" in str(caught.value))


@pytest.mark.parametrize("line", ["name: default", "revision: main", "stream: true\n      rows: 5"])
def test_keys_of_the_hub_are_refused_on_a_local_path(tmp_path: Path, line: str) -> None:
    text = make("sft", source=f"      {line}\n")
    name = line.partition(":")[0]
    assert said(tmp_path, text) == [
        f"8:7 data.train.0: a.jsonl: '{name}' belongs to a Hub dataset, and this is a local path; remove the key"
    ]
    assert said(tmp_path, text.replace("a.jsonl", "someone/a")) == []
    # What a variable holds is not known here.
    assert said(tmp_path, text.replace("a.jsonl", "${WHERE}/a")) == []
    assert len(said(tmp_path, text.replace("a.jsonl", "${WHERE}/a.jsonl"))) == 1


@pytest.mark.parametrize(
    ("stage", "format_", "line", "refused"),
    [
        ("sft", "alpaca", "roles: {human: user}", "'roles' is not read by format alpaca"),
        ("sft", "alpaca", "system: Be kind.", ""),
        ("sft", "messages", "roles: {human: user}", ""),
        ("sft", "prompt_completion", "roles: {human: user}", ""),
        ("pretrain", "text", "roles: {human: user}", "'roles' is not read by format text"),
        ("pretrain", "text", "system: Be kind.", "'system' is not read by format text"),
        ("pretrain", "text", "system: ''", ""),
        ("pretrain", "prompt_completion", "roles: {human: user}", "'roles' is not read in stage pretrain"),
        ("pretrain", "prompt_completion", "system: Be kind.", "'system' is not read in stage pretrain"),
    ],
)
def test_keys_of_a_source_that_nobody_reads_are_refused(tmp_path, stage, format_, line, refused) -> None:
    text = make(stage, source=f"      {line}\n").replace(f"format: {FORMATS[stage]}", f"format: {format_}")
    found = said(tmp_path, text)
    assert len(found) == bool(refused)
    assert all(one.startswith("8:7 ") and refused in one for one in found)


# ------------------------------------------------------------------------------------------------ paths

PATHS = [
    ("sft", "model.path"), ("sft", "tokenizer.path"), ("sft", "data.train.0.path"), ("sft", "data.eval.0.path"),
    ("pretrain", "model.path"), ("pretrain", "tokenizer.path"), ("dpo", "dpo.reference"), ("ppo", "ppo.reward_model"),
    ("ppo", "ppo.value_model"), ("evaluate", "evaluate.against"), ("curate", "data.train.0.path"),
    ("curate", "curate.steps.9.decontaminate.evals.0.path"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "key"), PATHS)
def test_an_empty_path_is_refused(stage: str, key: str) -> None:
    found = read_recipe(FULL / f"{stage}.yaml", [f"{key}=''"]).mistakes
    assert f"{key}: found '' (empty text); text was expected" in [mistake.message for mistake in found]


def test_no_key_called_path_may_be_empty() -> None:
    fields = [one for recipe in RECIPES.values() for *_, name, one in walk_fields(recipe) if name == "path"]
    assert all("MinLen(min_length=1)" in repr(one.model_fields["path"]) for one in fields)


# ------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize(
    ("kind", "given", "place", "message"),
    [
        ("warmup_stable_decay", "", "11:3", "lr_scheduler_type warmup_stable_decay needs num_decay_steps in"),
        ("warmup_stable_decay", "num_decay_steps: 0.1", "13:5", "found 0.1; a whole number above 0 was expected"),
        ("warmup_stable_decay", "num_decay_steps: 2\n    decay_type: quick", "14:5",
         "lr_scheduler_kwargs.decay_type: found 'quick'; one of linear, cosine, 1-sqrt was expected"),
        ("warmup_stable_decay", "num_decay_steps: 2\n    warmup_type: quick", "14:5", "warmup_type: found 'quick'"),
        ("warmup_stable_decay", "num_decay_steps: 2\n    min_lr_ratio: 2", "14:5", "a number of at least 0 and at most 1"),
        ("polynomial", "power: two", "13:5", "lr_scheduler_kwargs.power: found 'two'; a number above 0 was expected"),
        ("polynomial", "power: -1", "13:5", "found -1; a number above 0 was expected"),
        ("polynomial", "power: true", "13:5", "found True; a number above 0 was expected"),
        ("polynomial", "lr_end: 1e-4", "13:5", "lr_end: 0.0001 is not below learning_rate 0.0001"),
        ("polynomial", "lr_end: -1", "13:5", "found -1; a number of at least 0 was expected"),
        ("inverse_sqrt", "timescale: 0", "13:5", "timescale: found 0; a whole number above 0 was expected"),
        ("cosine", "num_cycles: '0.5'", "13:5", "found '0.5'; a number above 0 was expected"),
        ("cosine_with_min_lr", "", "11:3", "needs one of min_lr, min_lr_rate in lr_scheduler_kwargs; found none"),
        ("cosine_with_min_lr", "min_lr: 1e-5\n    min_lr_rate: 0.1", "14:5", "found min_lr and min_lr_rate"),
        ("cosine_with_min_lr", "min_lr: 1", "13:5", "min_lr: 1 is not below learning_rate 0.0001"),
        ("cosine_with_min_lr", "min_lr_rate: 3", "13:5", "found 3; a number of at least 0 and at most 1 was expected"),
    ],
)  # fmt: skip
def test_arguments_with_which_a_schedule_fails_or_rises_are_refused(tmp_path, kind, given, place, message) -> None:
    kwargs = f"\n    {given}\n" if given else " {}\n"
    [found] = said(tmp_path, make("sft", train=f"  lr_scheduler_type: {kind}\n  lr_scheduler_kwargs:{kwargs}"))
    assert found.startswith(f"{place} train: ")
    assert message in found


def test_polynomial_needs_a_peak_above_its_own_end_and_steps_after_the_warm_up(tmp_path: Path) -> None:
    text = make("sft", train="  lr_scheduler_type: polynomial\n")
    assert said(tmp_path, text) == []
    [found] = said(tmp_path, text.replace("1e-4", "1e-7"))
    assert found.startswith("11:3 train: lr_scheduler_kwargs.lr_end: 1e-07 is not below learning_rate 1e-07")
    assert said(tmp_path, f"{text}  warmup_steps: 7\n") == []
    [found] = said(tmp_path, f"{text}  warmup_steps: 8\n")
    assert found.startswith("12:3 train: warmup_steps: 8 are all of max_steps")
