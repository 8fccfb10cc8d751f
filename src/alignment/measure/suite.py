"""All metrics of a recipe on one model: each measurement is made once, on the rows that some metric reads.

What a metric makes of the measurements is metrics.py's; how they are made is generation.py's and logps.py's.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.errors import DataError, RecipeError
from alignment.measure.generation import Generation, generate_batch
from alignment.measure.logps import completion_kl, masked_logps, reward_scores, token_logps
from alignment.measure.metrics import Estimate, compute_metrics, select_rows
from alignment.measure.rows import EvalRow
from alignment.recipe.metric_spec import NEEDS, STAGE_NEEDS, MetricSpec, expand_metrics

IGNORE_INDEX = -100
Kind = Literal["causal", "reward"]
# Token columns that a measurement reads.
TOKENS = {
    "generation": ("prompt_ids",),
    "score": ("prompt_ids",),
    "kl": ("prompt_ids",),
    "nll": ("input_ids", "labels"),
    "pairs": ("prompt_ids", "chosen_ids", "rejected_ids"),
    "lengths": ("chosen_ids", "rejected_ids"),
}
# Scores of completions: indices of held-out rows and the rows with their completions to one score each.
Scorer = Callable[[Sequence[int], Sequence[EvalRow]], list[float]]


@dataclass(frozen=True)
class Measured:
    """Result name to value, standard error and number of rows; and generations to read."""

    values: dict[str, float]
    errors: dict[str, float]
    counts: dict[str, int]
    samples: list[dict[str, Any]]  # prompt, completion, stopped, and answer where the row has one

    @classmethod
    def of(cls, estimates: dict[str, Estimate], samples: list[dict[str, Any]]) -> "Measured":
        return cls(
            values={name: estimate.value for name, estimate in estimates.items()},
            errors={name: estimate.error for name, estimate in estimates.items()},
            counts={name: estimate.n for name, estimate in estimates.items()},
            samples=samples,
        )


@dataclass(frozen=True)
class _Subject:
    """The model under measurement and the limits it is measured with."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kind: Kind
    pad_id: int
    stop_ids: Sequence[int]
    batch_size: int
    max_new_tokens: int
    bf16: bool

    @property
    def forward(self) -> dict[str, Any]:
        return {"pad_id": self.pad_id, "batch_size": self.batch_size, "bf16": self.bf16}


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    eval_rows: Dataset,
    specs: Sequence[str | MetricSpec],
    *,
    pad_id: int,
    stop_ids: Sequence[int],
    batch_size: int,
    max_new_tokens: int = 128,
    kind: Kind = "causal",
    against_model: PreTrainedModel | None = None,
    scorer: Scorer | None = None,
    num_samples: int = 0,
    bf16: bool = False,
) -> Measured:
    """Measures `specs` on `eval_rows`. Every rank must call it, and gets the whole result.

    Args:
        eval_rows: rows of `prepare`: token columns and `columns_json`.
        batch_size: rows of the greatest length in one forward pass.
        against_model: the model that `kl` compares with.
        scorer: what `score` asks.
        num_samples: generations returned, evenly spaced over the prompts; none of a reward model.
        bf16: compute under bfloat16 autocast.

    Raises:
        RecipeError: a metric that this kind of model does not have, or `kl` or `score` without what it asks.
        DataError: a column that a metric reads is missing.
    """
    specs = expand_metrics(specs)
    _check_kind(specs, kind, against_model, scorer)
    subject = _Subject(model, tokenizer, kind, pad_id, stop_ids, batch_size, max_new_tokens, bf16)
    rows = [EvalRow(columns=columns) for columns in _read_columns(eval_rows)]
    wanted = _rows_by_need(specs, rows, eval_rows)
    sampled = _choose_samples(eval_rows, num_samples) if kind == "causal" else []
    _measure_generations(subject, eval_rows, rows, wanted, sampled, against_model)
    if "score" in wanted:
        chosen = [rows[index] for index in wanted["score"]]
        for index, value in zip(wanted["score"], scorer(wanted["score"], chosen), strict=True):
            rows[index] = replace(rows[index], score=value)
    for need, function in (("nll", _measure_nll), ("pairs", _measure_pairs), ("lengths", _measure_lengths)):
        if need in wanted:
            function(subject, eval_rows.select(wanted[need]), rows, wanted[need])
    return Measured.of(compute_metrics(specs, rows), [_sample(rows[index]) for index in sampled])


# ------------------------------------------------------------------------------------------------ which rows


def _read_columns(eval_rows: Dataset) -> list[dict[str, Any]]:
    """The original columns of each row, and `length_bucket` of pairs: q1 (shortest chosen completions) to q4."""
    columns = [json.loads(text) for text in eval_rows["columns_json"]]
    if "chosen_ids" not in eval_rows.column_names:
        return columns
    lengths = [len(ids or ()) for ids in eval_rows["chosen_ids"]]
    pairs = [length for length in lengths if length]
    edges = np.quantile(pairs, (0.25, 0.5, 0.75)) if pairs else ()
    buckets = [
        {"length_bucket": f"q{1 + sum(length > edge for edge in edges)}"} if length else {} for length in lengths
    ]
    return [bucket | row for bucket, row in zip(buckets, columns, strict=True)]


def _check_kind(
    specs: Sequence[MetricSpec], kind: Kind, against_model: PreTrainedModel | None, scorer: Scorer | None
) -> None:
    for spec in specs:
        need = NEEDS[spec.metric]
        if kind == "reward" and need not in STAGE_NEEDS["reward"]:
            able = ", ".join(name for name, other in NEEDS.items() if other in STAGE_NEEDS["reward"])
            raise RecipeError(
                f"metrics: {spec.metric} needs a causal model; this is a reward model, which has: {able}."
            )
        if need == "kl" and against_model is None:
            raise RecipeError(
                "metrics: kl compares with another model, and none is given. Name it in 'evaluate.against'."
            )
        if need == "score" and scorer is None:
            raise RecipeError("metrics: score is that of a ppo recipe's rewards; this stage has none. Remove it.")


def _rows_by_need(specs: Sequence[MetricSpec], rows: Sequence[EvalRow], eval_rows: Dataset) -> dict[str, list[int]]:
    """Measurement to the indices of the rows it is made on."""
    chosen: dict[str, set[int]] = {}
    columns = [row.columns for row in rows]
    for spec in specs:
        need = NEEDS[spec.metric]
        indices = select_rows(spec, columns)
        _check_tokens(spec, eval_rows, indices, TOKENS[need])
        chosen.setdefault(need, set()).update(indices)
    return {need: sorted(indices) for need, indices in chosen.items()}


def _check_tokens(spec: MetricSpec, eval_rows: Dataset, indices: Sequence[int], names: Sequence[str]) -> None:
    for name in names:
        present = name in eval_rows.column_names
        cells = eval_rows.select(indices)[name] if present else [None] * len(indices)
        lacking = sum(not cell for cell in cells)
        if lacking:
            raise DataError(
                f"{spec.name}: {lacking} of {len(indices)} rows have no {name}; {spec.metric} needs {' and '.join(names)}. "
                "Give the source a format that has them, or choose rows with 'where'."
            )


def _choose_samples(eval_rows: Dataset, num_samples: int) -> list[int]:
    """Rows with distinct prompts, evenly spaced, so that every source shows."""
    if "prompt_ids" not in eval_rows.column_names or num_samples == 0:
        return []
    first: dict[tuple[int, ...], int] = {}
    for index, ids in enumerate(eval_rows["prompt_ids"]):
        if ids:
            first.setdefault(tuple(ids), index)
    indices = sorted(first.values())
    count = min(num_samples, len(indices))
    return [indices[position * len(indices) // count] for position in range(count)]


def _sample(row: EvalRow) -> dict[str, Any]:
    answer = {"answer": row.columns["answer"]} if row.columns.get("answer") is not None else {}
    score = {"score": round(row.score, 4)} if row.score is not None else {}
    return {"prompt": row.prompt, "completion": row.completion, "stopped": row.stopped} | answer | score


# ------------------------------------------------------------------------------------------------ measurements


def _measure_generations(
    subject: _Subject,
    eval_rows: Dataset,
    rows: list[EvalRow],
    wanted: dict[str, list[int]],
    sampled: Sequence[int],
    against_model: PreTrainedModel | None,
) -> None:
    """Completions, and their divergence where asked: once for each distinct prompt."""
    compared = wanted.get("kl", [])
    indices = sorted({*wanted.get("generation", []), *wanted.get("score", []), *compared, *sampled})
    if not indices:
        return
    prompts = {i: tuple(ids) for i, ids in zip(indices, eval_rows.select(indices)["prompt_ids"], strict=True)}
    generations = _once(list(prompts.values()), lambda distinct: _generate(subject, distinct))
    for index, prompt in prompts.items():
        said = generations[prompt]
        text = subject.tokenizer.decode(prompt)
        rows[index] = replace(rows[index], prompt=text, completion=said.text, stopped=said.stopped)
    if not compared:
        return

    def diverge(distinct: list[tuple[int, ...]]) -> list[float]:
        completions = [generations[prompt].ids for prompt in distinct]
        return completion_kl(subject.model, against_model, distinct, completions, **subject.forward)

    kls = _once([prompts[index] for index in compared], diverge)
    for index in compared:
        rows[index] = replace(rows[index], kl=kls[prompts[index]])


def _once(
    prompts: list[tuple[int, ...]], work: Callable[[list[tuple[int, ...]]], list[Any]]
) -> dict[tuple[int, ...], Any]:
    distinct = list(dict.fromkeys(prompts))
    return dict(zip(distinct, work(distinct), strict=True))


def _generate(subject: _Subject, prompts: list[tuple[int, ...]]) -> list[Generation]:
    return generate_batch(
        subject.model,
        subject.tokenizer,
        prompts,
        subject.stop_ids,
        subject.pad_id,
        subject.max_new_tokens,
        subject.batch_size,
        bf16=subject.bf16,
    )


def _measure_nll(subject: _Subject, chosen: Dataset, rows: list[EvalRow], indices: Sequence[int]) -> None:
    input_ids, labels = list(chosen["input_ids"]), list(chosen["labels"])
    # The first token has nothing before it to be predicted from.
    masks = [[0, *(int(label != IGNORE_INDEX) for label in row[1:])] for row in labels]
    logps = masked_logps(subject.model, input_ids, masks, **subject.forward)
    for index, row, ids, mask in zip(indices, logps, input_ids, masks, strict=True):
        num_bytes = count_trained_bytes(subject.tokenizer, ids, mask)
        rows[index] = replace(rows[index], nll=-row.sum, num_bytes=num_bytes)


def count_trained_bytes(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], mask: Sequence[int]) -> int:
    """UTF-8 bytes of the text of the trained tokens; special tokens have none.

    The text of a run is the text up to its end less the text up to its start: decoded alone, a run may lose the space before its
    first word. A character cut in two by a run's border counts as up to three bytes more or less.
    """

    def size(end: int) -> int:
        text = tokenizer.decode(ids[:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return len(text.encode())

    runs = [list(run) for trained, run in groupby(range(len(ids)), key=lambda position: mask[position]) if trained]
    return sum(size(run[-1] + 1) - size(run[0]) for run in runs)


def _measure_pairs(subject: _Subject, chosen: Dataset, rows: list[EvalRow], indices: Sequence[int]) -> None:
    prompts, good, bad = list(chosen["prompt_ids"]), list(chosen["chosen_ids"]), list(chosen["rejected_ids"])
    scores = _score(subject, prompts + prompts, good + bad)
    for position, index in enumerate(indices):
        rows[index] = replace(
            rows[index], chosen_score=scores[position], rejected_score=scores[len(indices) + position]
        )


def _score(subject: _Subject, prompts: list[list[int]], completions: list[list[int]]) -> list[float]:
    if subject.kind == "reward":
        joined = [[*prompt, *completion] for prompt, completion in zip(prompts, completions, strict=True)]
        return reward_scores(subject.model, joined, **subject.forward)
    return [row.sum for row in token_logps(subject.model, prompts, completions, **subject.forward)]


def _measure_lengths(subject: _Subject, chosen: Dataset, rows: list[EvalRow], indices: Sequence[int]) -> None:
    for index, good, bad in zip(indices, chosen["chosen_ids"], chosen["rejected_ids"], strict=True):
        rows[index] = replace(rows[index], chosen_length=len(good), rejected_length=len(bad))
