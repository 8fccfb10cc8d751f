"""One split from its sources to a table of token columns, with its reports. Where that table lies is prepare.py's."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from alignment.data.chat import Chat
from alignment.data.conversation import make_messages
from alignment.data.encode import PAIR_COLUMNS, PROMPT_COLUMNS, TOKEN_COLUMNS, Encoded, EncodeSpec, encode_examples
from alignment.data.formats import Example
from alignment.data.mixer import BadRows, ExampleRow, Mixture, mix, read_examples, take_all
from alignment.data.pack import pack_rows, shuffle_bins
from alignment.data.quotas import Sharing
from alignment.data.sources import Source
from alignment.data.token_columns import TokenColumn
from alignment.recipe.data_spec import MixtureSpec, PackedDataSpec, PretrainDataSpec
from alignment.recipe.schema import Recipe


@dataclass(frozen=True)
class Split:
    """A table ready to be written, its reports as plain dicts, and the distinct examples behind it."""

    table: pa.Table
    mixture: Mixture
    examples: list[ExampleRow]
    mix_report: list[dict[str, Any]]
    encode_report: dict[str, Any]


def prepare_split(
    chat: Chat, sources: Sequence[Source], recipe: Recipe, spec: EncodeSpec, split: Literal["train", "eval"]
) -> Split:
    """Mixes, encodes and (training rows) packs. A row that is used several times is encoded once."""
    mixture = _mix(chat, sources, recipe, spec, split)
    distinct, place = mixture.unique()
    examples, bad = read_examples(distinct, spec.on_bad_row)
    encoded = encode_examples(
        chat,
        examples,
        spec,
        columns=_columns(recipe.stage, split),
        where=lambda row: sources[row.source].where(row.row),
        prompts=split == "eval",
    )
    order, entry = _training_order(distinct, place, examples, encoded)
    columns = {name: column.take(order) for name, column in encoded.columns.items()}
    report = _mix_report(mixture, columns, mixture.source_index[entry], entry, _lost(encoded, bad))
    packing = is_packed(recipe)
    if split == "eval":
        arrays = _eval_arrays(columns, sources, examples, encoded.origin[order], packing)
    elif packing:
        arrays = _packed_arrays(columns, spec.max_length, recipe.seed)
    else:
        arrays = {name: column.to_arrow() for name, column in columns.items()}
    if recipe.stage in ("ppo", "evaluate"):
        rows = [examples[index] for index in encoded.origin[order].tolist()]
        arrays["asked_json"] = _asked(chat, rows)
        if split == "train":  # held-out rows have them already
            arrays["columns_json"] = _original_columns(sources, rows)
    return Split(pa.table(arrays), mixture, examples, report, _encode_report(encoded, bad))


def _mix(
    chat: Chat, sources: Sequence[Source], recipe: Recipe, spec: EncodeSpec, split: Literal["train", "eval"]
) -> Mixture:
    """The plan of a split. Where tokens are shared, every row is encoded once to count them."""
    if split == "eval" or not isinstance(recipe.data, MixtureSpec):
        return mix(sources, recipe.seed, split)
    sharing = Sharing.of(recipe.data)
    if sharing.share_of == "rows":
        return mix(sources, recipe.seed, split, sharing)
    examples, _ = read_examples(take_all(sources, split), spec.on_bad_row)
    encoded = encode_examples(
        chat,
        examples,
        spec,
        columns=_columns(recipe.stage, split),
        where=lambda row: sources[row.source].where(row.row),
    )
    counted, _ = _count_tokens(encoded.columns)
    tokens = [np.zeros(len(source.rows), dtype=np.int64) for source in sources]
    for place, number in zip(encoded.origin.tolist(), counted.tolist(), strict=True):
        tokens[examples[place].source][examples[place].row] += number
    return mix(sources, recipe.seed, split, sharing, tokens)


def is_packed(recipe: Recipe) -> bool:
    """Whether training rows hold several documents. Pairs and evaluations have no such key."""
    return isinstance(recipe.data, PackedDataSpec | PretrainDataSpec) and recipe.data.packing


def prepare_texts(sources: Sequence[Source], seed: int) -> Split:
    """The texts that a tokenizer is trained on: documents, and what is said in conversations."""
    mixture = mix(sources, seed, "train")
    examples, bad = read_examples(mixture, "error")
    table = pa.table({"text": pa.array([_plain_text(row.example) for row in examples], type=pa.large_string())})
    report = [asdict(row) | {"kept": row.obtained, "tokens": None, "trained_tokens": None} for row in mixture.report]
    return Split(
        table, mixture, examples, report, {"rows": len(mixture), "kept": len(examples), "dropped": dict(bad.counts)}
    )


def _plain_text(example: Example) -> str:
    if example.text is not None:
        return example.text
    return "\n".join(message["content"] for message in example.messages if isinstance(message["content"], str))


def _columns(stage: str, split: str) -> tuple[str, ...]:
    if stage == "evaluate":
        return (*TOKEN_COLUMNS, *PAIR_COLUMNS)
    if stage in ("reward", "dpo"):
        return PAIR_COLUMNS
    if stage == "ppo":
        return PROMPT_COLUMNS
    return TOKEN_COLUMNS if split == "train" else (*TOKEN_COLUMNS, "prompt_ids")


# ------------------------------------------------------------------------------------------------ order and packing


def _training_order(
    distinct: Mixture, place: np.ndarray, examples: Sequence[ExampleRow], encoded: Encoded
) -> tuple[np.ndarray, np.ndarray]:
    """For every row of the split: the encoded row, and the entry of the plan that it comes from.

    An entry has no row when its example was dropped, and several when a document was split.
    """
    numbers = {
        pair: n for n, pair in enumerate(zip(distinct.source_index.tolist(), distinct.row_index.tolist(), strict=True))
    }
    example_place = np.array([numbers[row.source, row.row] for row in examples], dtype=np.int64)
    # Encoded rows stand in the order of `distinct`, so those of one example are neighbours.
    counts = np.bincount(example_place[encoded.origin], minlength=len(distinct))
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    entry = np.repeat(np.arange(len(place)), counts[place])
    within = np.arange(len(entry)) - np.repeat(np.cumsum(counts[place]) - counts[place], counts[place])
    return starts[place][entry] + within, entry


def _packed_arrays(columns: dict[str, TokenColumn], max_length: int, seed: int) -> dict[str, pa.ChunkedArray]:
    lengths = columns["input_ids"].lengths
    bins = shuffle_bins(pack_rows(lengths, max_length), seed)
    documents = np.concatenate([np.asarray(documents, dtype=np.int64) for documents in bins])
    sizes = np.array([len(documents) for documents in bins], dtype=np.int64)
    arrays = {name: column.take(documents).join(sizes).to_arrow() for name, column in columns.items()}
    return arrays | {"seq_lengths": _one_each(lengths[documents]).join(sizes).to_arrow()}


def _one_each(values: np.ndarray) -> TokenColumn:
    return TokenColumn(values.astype(np.int32), np.arange(len(values) + 1, dtype=np.int64))


def _eval_arrays(
    columns: dict[str, TokenColumn], sources: Sequence[Source], examples, origin: np.ndarray, packing: bool
) -> dict[str, pa.ChunkedArray | pa.Array]:
    """One example a row, with where it came from and all of its original columns."""
    rows = [examples[index] for index in origin.tolist()]
    arrays: dict[str, Any] = {name: column.to_arrow() for name, column in columns.items()}
    if packing:
        arrays["seq_lengths"] = _one_each(columns["input_ids"].lengths).to_arrow()
    return arrays | {
        "source": pa.array([row.source for row in rows], type=pa.int32()),
        "row": pa.array([sources[row.source].number(row.row) for row in rows], type=pa.int64()),
        "columns_json": _original_columns(sources, rows),
    }


def _original_columns(sources: Sequence[Source], rows: Sequence[ExampleRow]) -> pa.Array:
    original = (sources[row.source].rows[row.row] for row in rows)
    # default=str: dates and the like, which parquet has and JSON has not.
    return pa.array([json.dumps(dict(row), ensure_ascii=False, default=str) for row in original])


def _asked(chat: Chat, rows: Sequence[ExampleRow]) -> pa.Array:
    """What reward models read: the messages of a prompt as the policy sees them. What asks nothing has none."""
    asked = (
        {"messages": make_messages(row.example.asked, chat.system), "tools": row.example.tools}
        if row.example.asked
        else None
        for row in rows
    )
    return pa.array([one and json.dumps(one, ensure_ascii=False) for one in asked], type=pa.string())


# ------------------------------------------------------------------------------------------------ reports


def _lost(encoded: Encoded, bad: BadRows) -> dict[int, Counter]:
    """Of each source, distinct rows that were truncated, split, and dropped by reason."""
    lost = {source: Counter(counts) for source, counts in encoded.report.by_source.items()}
    for (source, reason), count in bad.by_source.items():
        lost.setdefault(source, Counter())[reason] += count
    return lost


def _mix_report(
    mixture: Mixture,
    columns: dict[str, TokenColumn],
    source: np.ndarray,
    entry: np.ndarray,
    lost: dict[int, Counter],
) -> list[dict]:
    """Rows and tokens by source; `kept` counts plan entries that are trained or measured on, `lengths` are in tokens."""
    tokens, trained = _count_tokens(columns)
    report = []
    for index, row in enumerate(mixture.report):
        mine = source == index
        report.append(
            asdict(row)
            | {
                "kept": len(np.unique(entry[mine])),
                "tokens": int(tokens[mine].sum()),
                "trained_tokens": int(trained[mine].sum()),
                "lengths": _quantiles(tokens[mine]),
                "truncated": lost.get(index, {}).get("truncated", 0),
                "dropped": {
                    reason: count
                    for reason, count in sorted(lost.get(index, {}).items())
                    if reason not in ("truncated", "split")
                },
            }
        )
    return report


def _quantiles(lengths: np.ndarray) -> dict[str, int]:
    """Tokens of the shortest, the median, the 95th percentile and the longest row; of a pair, of both sides."""
    if not len(lengths):
        return {}
    values = np.quantile(lengths, [0, 0.5, 0.95, 1], method="nearest")
    return dict(zip(("min", "p50", "p95", "max"), map(int, values), strict=True))


def _count_tokens(columns: dict[str, TokenColumn]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and trained tokens of each row; of a pair, those of both sides."""
    tokens = trained = np.zeros(len(next(iter(columns.values()))), dtype=np.int64)
    if "input_ids" in columns:
        labels = columns["labels"]
        running = np.concatenate([[0], np.cumsum(labels.values != -100)])
        tokens = tokens + columns["input_ids"].lengths
        trained = trained + np.diff(running[labels.offsets])
    if set(columns) == set(PROMPT_COLUMNS):
        tokens = tokens + columns["prompt_ids"].lengths
    if "chosen_ids" in columns:
        completions = columns["chosen_ids"].lengths + columns["rejected_ids"].lengths
        tokens = tokens + completions + 2 * columns["prompt_ids"].lengths * (completions > 0)
        trained = trained + completions
    return tokens, trained


def _encode_report(encoded: Encoded, bad: BadRows) -> dict[str, Any]:
    """The report of the encoder, with the rows that never reached it."""
    report = asdict(encoded.report)
    del report["by_source"]  # the mix report has it
    return report | {
        "rows": report["rows"] + sum(bad.counts.values()),
        "dropped": dict(sorted((bad.counts + Counter(report["dropped"])).items())),
        "shown": report["shown"] | bad.shown,
    }
