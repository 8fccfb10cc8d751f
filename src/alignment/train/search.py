"""Test-time scaling of a model on the rows of an evaluate recipe: samples, judges and scores completions, and draws the curves.

Completions are drawn once, to the last one; every method and every number of them is worked out from the same ones.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.data.prepare import Prepared
from alignment.errors import DataError, RecipeError
from alignment.measure.generation import Generation, generate_batch
from alignment.measure.logps import token_logps
from alignment.measure.rows import EvalRow
from alignment.measure.scorers import read_answer, score_rows
from alignment.measure.search.curves import Point, Searched, find_methods, make_curves
from alignment.measure.search.methods import METHODS, Candidate
from alignment.recipe.schema import EvaluateRecipe
from alignment.train.ppo.rewards import RewardModel, read_asked


@dataclass(frozen=True)
class SearchSpec:
    """What a search is asked to do.

    value: the scorer of `measure/scorers.py` that judges. methods: all that can be used, where none is named.
    """

    num_samples: int
    temperature: float
    value: str
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Search:
    """The curves, and the completions behind them, one object a prompt."""

    points: tuple[Point, ...]
    greedy: float  # value of the greedy completions
    greedy_tokens: float  # generated a prompt
    prompt_tokens: float  # read a prompt
    rows: tuple[dict[str, Any], ...]

    def describe(self) -> dict[str, Any]:
        """Every point as plain values, for results.json and the page."""
        return {
            "greedy": {"value": self.greedy, "tokens": self.greedy_tokens},
            "prompt_tokens": self.prompt_tokens,
            "prompts": len(self.rows),
            "points": [asdict(point) for point in self.points],
        }

    def metrics(self) -> tuple[dict[str, float], dict[str, float]]:
        """Values and standard errors: `greedy`, and METHOD@N."""
        named = {f"{point.method}@{point.n}": point.value for point in self.points}
        values = {"greedy": self.greedy} | {name: one.value for name, one in named.items()}
        return values, {name: one.error for name, one in named.items()}


def search(
    recipe: EvaluateRecipe,
    prepared: Prepared,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    spec: SearchSpec,
    reward_model: RewardModel | None = None,
) -> Search:
    """One greedy completion and `num_samples` sampled ones of every prompt, judged, and what each method makes of them.

    Raises:
        DataError: a row without a prompt, or without a column that the scorer reads.
    """
    wanted = spec.methods or tuple(METHODS)
    rows = prepared.eval
    _check_prompts(rows)
    columns = [json.loads(text) for text in rows["columns_json"]]
    # Judged once for nothing: a column that is missing shows before anything is generated.
    score_rows(spec.value, [EvalRow(columns=own, completion="", stopped=False) for own in columns])
    settings = _Settings(recipe, prepared, model, tokenizer, list(rows["prompt_ids"]))
    greedy = settings.generate(settings.prompts, 0.0)
    repeated = [prompt for prompt in settings.prompts for _ in range(spec.num_samples)]
    sampled = settings.generate(repeated, spec.temperature)
    asked = read_asked(rows, range(len(rows))) if reward_model is not None else None
    likelihoods = settings.mean_logps(repeated, sampled) if "likeliest" in wanted else [None] * len(sampled)
    first = _judge(spec.value, columns, greedy)
    many = _judge(spec.value, [one for one in columns for _ in range(spec.num_samples)], sampled)
    scores = _score(reward_model, asked, sampled, spec.num_samples)
    candidates = [
        Candidate(answer, value, len(said.ids), score, logp)
        for said, (answer, value), score, logp in zip(sampled, many, scores, likelihoods, strict=True)
    ]
    searched = [
        Searched(Candidate(answer, value, len(said.ids)), tuple(own))
        for said, (answer, value), own in zip(greedy, first, _split(candidates, spec.num_samples), strict=True)
    ]
    usable = [name for name in wanted if name in find_methods(candidates)]
    return Search(
        points=tuple(make_curves(searched, usable, recipe.seed)),
        greedy=float(np.mean([value for _, value in first])),
        greedy_tokens=float(np.mean([len(said.ids) for said in greedy])),
        prompt_tokens=float(np.mean([len(prompt) for prompt in settings.prompts])),
        rows=tuple(
            {"prompt": tokenizer.decode(prompt), "columns": own_columns}
            | {"greedy": _describe(said, one.greedy), "sampled": list(map(_describe, texts, one.sampled))}
            for prompt, own_columns, said, texts, one in zip(
                settings.prompts, columns, greedy, _split(sampled, spec.num_samples), searched, strict=True
            )
        ),
    )


def check_methods(methods: Sequence[str], has_scores: bool) -> None:
    """Refuses methods that do not exist, or that need a reward model where none is named.

    Raises:
        RecipeError: such a method.
    """
    for name in methods:
        if name not in METHODS:
            raise RecipeError(f"--method: no method '{name}'. Known: {', '.join(METHODS)}.")
        if METHODS[name].needs == "score" and not has_scores:
            raise RecipeError(
                f"--method: {name} reads the scores of a reward model, and none is named. Add --reward_model RUN."
            )


@dataclass(frozen=True)
class _Settings:
    recipe: EvaluateRecipe
    prepared: Prepared
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompts: list[list[int]]

    def generate(self, prompts: Sequence[Sequence[int]], temperature: float) -> list[Generation]:
        spec, manifest = self.recipe.evaluate, self.prepared.manifest
        return generate_batch(
            self.model,
            self.tokenizer,
            prompts,
            manifest["stop_ids"],
            manifest["pad_id"],
            spec.max_new_tokens,
            spec.per_device_eval_batch_size,
            temperature=temperature,
            seed=self.recipe.seed,
        )

    def mean_logps(self, prompts: Sequence[Sequence[int]], said: Sequence[Generation]) -> list[float]:
        logps = token_logps(
            self.model,
            prompts,
            [one.ids for one in said],
            pad_id=self.prepared.manifest["pad_id"],
            batch_size=self.recipe.evaluate.per_device_eval_batch_size,
        )
        return [one.sum / one.count for one in logps]


def _split(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _check_prompts(rows: Dataset) -> None:
    lacking = sum(not ids for ids in rows["prompt_ids"]) if "prompt_ids" in rows.column_names else len(rows)
    if lacking or not len(rows):
        raise DataError(
            f"search: {lacking} of {len(rows)} rows have no prompt; conversations, prompts with completions or preferences were "
            "expected. Give data.eval a format that has prompts."
        )


def _judge(
    scorer: str, columns: Sequence[dict[str, Any]], said: Sequence[Generation]
) -> list[tuple[str | None, float]]:
    """Answer and value of each completion."""
    rows = [
        EvalRow(columns=own, completion=one.text, stopped=one.stopped) for own, one in zip(columns, said, strict=True)
    ]
    return [(read_answer(scorer, row), value) for row, value in zip(rows, score_rows(scorer, rows), strict=True)]


def _score(
    reward_model: RewardModel | None, asked: list[dict[str, Any]] | None, said: Sequence[Generation], each: int
) -> list[float | None]:
    if reward_model is None:
        return [None] * len(said)
    return reward_model.score([one for one in asked for _ in range(each)], [one.text for one in said])


def _describe(said: Generation, candidate: Candidate) -> dict[str, Any]:
    facts = {"text": said.text, "stopped": said.stopped} | asdict(candidate)
    return {name: fact for name, fact in facts.items() if fact is not None}
