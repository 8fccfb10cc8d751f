"""A few rows of each source; where there are none on this disk and the Hub gives none, generated ones of its format, with the
columns that are read.

Rows are written as the source has them, so that `columns`, `roles` and `where` of the recipe are tried too. What cannot
be reached is said; a source that is there and broken is an error as it would be in training.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.sources import expand_path, find_source, read_source
from alignment.errors import DataError, RecipeError
from alignment.launch.inputs import named_sources
from alignment.launch.rehearse.heads import TOO_LARGE, cut_heads, total_size
from alignment.launch.rehearse.hub_rows import HubRows, fetch_rows
from alignment.measure.metrics import METRICS
from alignment.measure.scorers import SCORERS
from alignment.recipe.data_spec import SourceSpec
from alignment.recipe.metric_spec import NEEDS, MetricSpec, expand_metrics
from alignment.recipe.places import means_local_data, place_data
from alignment.recipe.schema import Recipe

NUM_ROWS = {"train": 32, "eval": 8}  # of a split, over all its sources; each gives a quarter of that at least
NUM_DOCUMENTS = 400  # of each source of a tokenizer, which needs text and no steps
_LOOKED_AT = 2000
_NUM_STREAMED = 200  # of each source; the two splits get every other row
_NOT_HERE = "it is not in the cache of this machine"
_NOT_CACHED = f"{_NOT_HERE}, and the network is not used"
_WORDS = [
    "river",
    "stone",
    "bird",
    "lamp",
    "north",
    "south",
    "door",
    "garden",
    "window",
    "bread",
    "letter",
    "winter",
    "summer",
    "boat",
    "bridge",
    "market",
    "teacher",
    "small",
    "old",
    "quiet",
    "bright",
    "heavy",
    "green",
    "seven",
    "twelve",
    "opens",
    "falls",
    "carries",
    "follows",
    "answers",
    "reads",
    "finds",
    "writes",
    "under",
    "behind",
    "between",
    "again",
    "never",
    "always",
    "because",
    "although",
    "each",
    "every",
    "other",
    "most",
    "often",
    "slowly",
    "early",
    "late",
    "together",
    "without",
]


@dataclass(frozen=True)
class DrawnSource:
    """The rows of one source."""

    split: str
    spec: SourceSpec
    rows: tuple[Mapping[str, Any], ...]
    missing: str | None = None  # why they had to be generated; None: they are the source's own
    is_streamed: bool = False  # from the Hub, for this rehearsal


def draw_rows(
    recipe: Recipe, recipe_dir: Path, scratch: Path, online: Mapping[str, str] | None = None
) -> list[DrawnSource]:
    """A few rows of every source of a recipe.

    Args:
        scratch: a folder for the beginnings of large files, and for what is fetched.
        online: environment variables of a process that may ask the Hub for rows; None: none is asked.

    Raises:
        RecipeError, DataError: a source that is there and cannot be used as the recipe says.
    """
    sources = list(named_sources(recipe))
    read = [_read(spec, recipe_dir, split, scratch / f"head-{n}") for n, (split, spec) in enumerate(sources)]
    absent = {n: sources[n] for n, (missing, _) in enumerate(read) if missing == _NOT_CACHED}
    streamed = {}
    if absent and online is not None:
        num_rows = 2 * NUM_DOCUMENTS if recipe.stage == "tokenizer" else _NUM_STREAMED
        streamed = fetch_rows(absent, recipe.seed, num_rows, scratch / "hub", online)
    drawn = []
    for number, (split, spec) in enumerate(sources):
        same = sum(other == split for other, _ in sources)
        count = max(NUM_ROWS[split] // same, NUM_ROWS[split] // 4)
        count = NUM_DOCUMENTS if recipe.stage == "tokenizer" else count
        wanted = list(_metric_filters(recipe, spec)) if split == "eval" else []
        missing, rows = _judge(streamed[number], split, wanted) if number in streamed else read[number]
        if missing is None:
            drawn.append(DrawnSource(split, spec, tuple(_choose(rows, count, wanted)), is_streamed=number in streamed))
            continue
        rows = generate_rows(spec, count, f"{split} {number}", wanted, _columns_read(recipe))
        drawn.append(DrawnSource(split, spec, tuple(rows), missing))
    return drawn


# ------------------------------------------------------------------------------------------------ what is there


def _find_missing(spec: SourceSpec, recipe_dir: Path) -> str | None:
    """Why a source cannot be reached; None where it may be."""
    try:
        path = expand_path(spec.path)
    except RecipeError:
        return "a variable in its path is not set"
    if means_local_data(path) and not place_data(path, recipe_dir).exists():
        return "there is no such file or folder"
    return None


def _read(
    spec: SourceSpec, recipe_dir: Path, split: str, scratch: Path
) -> tuple[str | None, Sequence[Mapping[str, Any]]]:
    """(None, rows) of a source, or (why it cannot be reached, nothing)."""
    if missing := _find_missing(spec, recipe_dir):
        return missing, ()
    is_local = place_data(expand_path(spec.path), recipe_dir).exists()
    try:
        found = find_source(spec, recipe_dir, "train" if split == "train" else None)
        if found.files and total_size(found.files) > TOO_LARGE:
            # Both splits may be slices of one file, and the slices are not cut: they get every other row.
            return None, read_source(cut_heads(found, scratch)).rows[split == "eval" :: 2]
        return None, read_source(found).rows
    except DataError as error:
        if is_local or "Unknown split" in str(error):
            raise
        return _NOT_CACHED, ()


def _judge(
    found: HubRows, split: str, wanted: Sequence[Mapping[str, Any]]
) -> tuple[str | None, Sequence[Mapping[str, Any]]]:
    """(None, rows) of a stream, or (why they are not used, nothing)."""
    # Both splits may be slices of one split of the Hub's, and begin alike.
    rows = found.rows[split == "eval" :: 2]
    if found.missing is not None:
        return f"{_NOT_HERE}, and of the Hub: {found.missing}", ()
    for filter_ in wanted:
        if not any(_fits(row, filter_) for row in rows):
            return f"{_NOT_HERE}, and of the first {len(found.rows)} rows on the Hub none has {dict(filter_)}", ()
    return (None, rows) if rows else (f"{_NOT_HERE}, and the Hub has a single row of it", ())


def _choose(
    rows: Sequence[Mapping[str, Any]], count: int, wanted: Sequence[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """The shortest rows of the first ones, in file order; of those that a metric is measured on, two of each kind."""
    looked_at = [rows[index] for index in range(min(len(rows), _LOOKED_AT))]
    by_size = sorted(range(len(looked_at)), key=lambda index: _size(looked_at[index]))
    chosen: dict[int, None] = {}
    for filter_ in wanted:
        fitting = [index for index in by_size if _fits(looked_at[index], filter_)]
        chosen |= dict.fromkeys(fitting[:2])
    chosen |= dict.fromkeys(by_size[: max(0, count - len(chosen))])
    for index in sorted(chosen):
        yield looked_at[index]


def _size(row: Mapping[str, Any]) -> int:
    return len(json.dumps(row, default=str))


def _fits(row: Mapping[str, Any], filter_: Mapping[str, Any]) -> bool:
    return all(row.get(name) == value and type(row.get(name)) is type(value) for name, value in filter_.items())


# ------------------------------------------------------------------------------------------------ what is measured


def _metrics(recipe: Recipe) -> tuple[MetricSpec, ...]:
    for section in ("eval", "evaluate"):
        if section in type(recipe).model_fields:
            return expand_metrics(getattr(recipe, section).metrics)
    return ()


def _metric_filters(recipe: Recipe, source: SourceSpec) -> Iterator[Mapping[str, Any]]:
    """Values of columns that the recipe's metrics ask for: rows of each are needed.

    Plain text has no prompts: it gets the values of metrics of likelihood only, not those of metrics that generate.
    """
    for spec in _metrics(recipe):
        if source.format == "text" and NEEDS[spec.metric] != "nll":
            continue
        if spec.where:
            yield dict(spec.where)
        if "described" in METRICS[spec.metric].columns:
            yield from ({"described": True}, {"described": False})


def _columns_read(recipe: Recipe) -> dict[str, Any]:
    """Columns that metrics, scorers and rewards read, with a value of the right type."""
    names = [name for spec in _metrics(recipe) for name in METRICS[spec.metric].columns]
    groups = [spec.by for spec in _metrics(recipe) if spec.by]
    if "ppo" in type(recipe).model_fields:
        scorers = [one if isinstance(one, str) else one.reward for one in recipe.ppo.rewards]
        scorers += [recipe.ppo.gold] if recipe.ppo.gold else []
        names += [name for scorer in scorers for name in SCORERS[scorer][1]]
    columns: dict[str, Any] = dict.fromkeys(groups, "one")
    columns |= {name: True if name == "described" else "seven" for name in names}
    return columns


# ------------------------------------------------------------------------------------------------ generated rows


def generate_rows(
    spec: SourceSpec, count: int, name: str, wanted: Sequence[Mapping[str, Any]] = (), columns: Mapping[str, Any] = {}
) -> Iterator[dict[str, Any]]:
    """Rows of a source's format under the source's own names of columns and roles, the same every time.

    Args:
        name: of the source, so that no two sources give the same rows.
        wanted: values of columns that some rows must have.
        columns: further columns of every row.
    """
    for number in range(count):
        draw = random.Random(f"{name} {number}")
        row = _GENERATORS[spec.format](draw, spec)
        named = {spec.columns.get(column, column): value for column, value in row.items()}
        filters = wanted[number % len(wanted)] if wanted else {}
        yield {**named, **columns, **filters, **spec.where}


def sentence(draw: random.Random, longest: int = 9) -> str:
    """A few words of a small vocabulary."""
    words = draw.choices(_WORDS, k=draw.randint(3, longest))
    return f"{' '.join(words).capitalize()} {draw.randint(0, 9999)}."


def _text(draw: random.Random, spec: SourceSpec) -> dict[str, Any]:
    return {"text": " ".join(sentence(draw) for _ in range(draw.randint(2, 5)))}


def _role(spec: SourceSpec, role: str) -> str:
    """The source's own name of a role."""
    return next((theirs for theirs, ours in spec.roles.items() if ours == role), role)


def _messages(draw: random.Random, spec: SourceSpec) -> dict[str, Any]:
    roles = ("user", "assistant") * draw.randint(1, 2)
    return {"messages": [{"role": _role(spec, role), "content": sentence(draw)} for role in roles]}


def _sharegpt(draw: random.Random, spec: SourceSpec) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    turns = [{"from": _role(spec, role), "value": sentence(draw)} for role in ("user", "assistant")]
    return {"conversations": [turn | {"from": names.get(turn["from"], turn["from"])} for turn in turns]}


def _prompt_completion(draw: random.Random, spec: SourceSpec) -> dict[str, Any]:
    return {"prompt": sentence(draw), "completion": " " + sentence(draw)}


def _alpaca(draw: random.Random, spec: SourceSpec) -> dict[str, Any]:
    return {
        "instruction": sentence(draw),
        "input": sentence(draw) if draw.random() < 0.5 else "",
        "output": sentence(draw),
    }


def _preference(draw: random.Random, spec: SourceSpec) -> dict[str, Any]:
    return {"prompt": sentence(draw), "chosen": sentence(draw), "rejected": sentence(draw)}


def _prompt(draw: random.Random, spec: SourceSpec) -> dict[str, Any]:
    return {"prompt": sentence(draw)}


_GENERATORS: dict[str, Callable[[random.Random, SourceSpec], dict[str, Any]]] = {
    "text": _text,
    "messages": _messages,
    "sharegpt": _sharegpt,
    "prompt_completion": _prompt_completion,
    "alpaca": _alpaca,
    "preference": _preference,
    "prompt": _prompt,
}
