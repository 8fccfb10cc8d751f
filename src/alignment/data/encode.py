"""Examples to token columns, and a count of every row that did not become one.

Documents (pretraining), conversations (SFT) and pairs (reward, DPO) each have one function that encodes an example; what is
too long or has nothing to train on is treated here, the same way for all. Rendering is chat.py's, packing pack.py's.

Too long, with `truncate`: the end of a conversation or completion is cut off, never the beginning of a prompt. A row with no
trained token left, a pair with an empty completion or two equal ones, is dropped and counted. With `split` a document becomes
pieces; each begins with the last token of the piece before, as context, so that every token but the first is trained once.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from alignment.data.chat import Chat, encode_text, render, render_pair, render_prompt
from alignment.data.conversation import Message
from alignment.data.fast_tokens import Engine, make_engine
from alignment.data.formats import Example
from alignment.data.mixer import ExampleRow
from alignment.data.text_encoder import Piece, TextEncoder
from alignment.data.token_columns import TokenColumn
from alignment.errors import DataError

IGNORE_INDEX = -100
TOKEN_COLUMNS = ("input_ids", "labels")
PAIR_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
PROMPT_COLUMNS = ("prompt_ids",)
_TEXT_BATCH = 1000
_MIN_FAST_DOCUMENTS = 500  # trying the fast engine costs as much as encoding some hundred
_NUM_TRIED, _TRIED_CHARACTERS = 50, 2000
_NUM_SHOWN = 3

Kind = Literal["text", "chat", "pair"]
OnTooLong = Literal["split", "truncate", "drop", "error"]


@dataclass(frozen=True)
class EncodeSpec:
    """How examples become tokens: settled by the recipe's stage and data section."""

    max_length: int
    on_too_long: OnTooLong
    on_bad_row: Literal["error", "drop"]
    train_on: Literal["assistant", "last_assistant", "all"] = "assistant"
    control_tokens: Literal["refuse", "escape"] = "escape"  # of messages that spell a special token
    plain: bool = False  # text without a chat template: prompt and completion are joined
    prompts_only: bool = False  # what is answered counts, and no answer of the row's


@dataclass(frozen=True)
class EncodedRow:
    """Token lists of one row; a document or conversation has the first two, a pair the last two, an evaluated row a prompt."""

    input_ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    prompt_ids: list[int] = field(default_factory=list)
    chosen_ids: list[int] = field(default_factory=list)
    rejected_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class EncodeReport:
    """What became of the examples of one split. `kept + sum(dropped.values()) == rows`; a row split in pieces is kept once."""

    rows: int
    kept: int
    pieces: int  # rows after splitting
    dropped: dict[str, int]  # reason: rows
    truncated: int
    split: int
    tokens: int
    trained_tokens: int
    longest: int  # tokens of the longest row before it was cut
    shown: dict[str, list[str]]  # reason: the first few, as file:line and what was wrong
    by_source: dict[int, dict[str, int]]  # number of the source: rows truncated, split, and dropped by reason


@dataclass(frozen=True)
class Encoded:
    """Encoded rows: token columns of equal length, and the place in `examples` that each row came from."""

    columns: dict[str, TokenColumn]
    origin: np.ndarray
    report: EncodeReport

    def __len__(self) -> int:
        return len(self.origin)


class _Dropped(Exception):
    """A row that is left out; `reason` is what it is counted under."""

    def __init__(self, reason: str, found: str):
        self.reason, self.found = reason, found
        super().__init__(found)


def encode_examples(
    chat: Chat,
    examples: Sequence[ExampleRow],
    spec: EncodeSpec,
    *,
    columns: Sequence[str],
    where: Callable[[ExampleRow], str],
    prompts: bool = False,
) -> Encoded:
    """Encodes every example to the token lists named by `columns`.

    Args:
        prompts: also the ids that a model generates from (`prompt_ids`), of held-out rows.
        where: file and line of an example, for messages.

    Raises:
        DataError: rows too long under `on_too_long: error`; rows that the template cannot write under `on_bad_row: error`;
            no row left.
    """
    tally = _Tally(spec, where)
    chat = _quicken(chat, examples)
    rows: list[EncodedRow] = []
    origin: list[int] = []
    documents = _encode_documents(chat, examples, spec)
    for place, row in enumerate(examples):
        tally.source = row.source
        try:
            pieces = _encode_row(chat, row.example, spec, prompts, next(documents), tally)
        except _Dropped as error:
            tally.drop(row, error)
            continue
        tally.keep(pieces)
        rows += pieces
        origin += [place] * len(pieces)
    tally.check(len(examples))
    token_columns = {name: TokenColumn.of([getattr(row, name) for row in rows]) for name in columns}
    return Encoded(token_columns, np.array(origin, dtype=np.int64), tally.report(len(examples)))


# ------------------------------------------------------------------------------------------------ one row


def _messages(example: Example) -> tuple[Message, ...]:
    return (*example.messages, *example.prompt, *example.chosen, *example.rejected)


def _check_control_tokens(chat: Chat, example: Example) -> None:
    """A message that spells `<|im_end|>` is an attack, or text about templates; which, a person has to say."""
    for message in _messages(example):
        content = message["content"]
        texts = [content] if isinstance(content, str) else [text for part in content for text in part.values()]
        for text in texts:
            if found := chat.encoder.special_re.search(text):
                raise _Dropped(
                    "control_token",
                    f"the special token {found.group()!r} in a message of role {message['role']}; ordinary text was expected."
                    " If it is meant to be read as text, set chat.control_tokens: escape",
                )


def _encode_row(
    chat: Chat, example: Example, spec: EncodeSpec, prompts: bool, document: list[int] | None, tally: "_Tally"
) -> list[EncodedRow]:
    if spec.control_tokens == "refuse":
        _check_control_tokens(chat, example)
    try:
        if spec.prompts_only:
            return [_encode_prompt(chat, example, spec, tally)]
        if example.kind == "pair":
            return [_encode_pair(chat, example, spec, tally)]
        if document is not None:
            return _cut_document(document, spec, tally)
        if spec.plain:
            return _encode_prompted_text(chat, example, spec, prompts, tally)
        return [_encode_conversation(chat, example, spec, prompts, tally)]
    except DataError as error:
        raise _Dropped("cannot_be_rendered", str(error)) from error


def _quicken(chat: Chat, examples: Sequence[ExampleRow]) -> Chat:
    """The chat with the fast engine where messages are many, and it gives the tokenizer's ids of them."""
    spoken = [row.example for row in examples if row.example.kind != "text"]
    if len(spoken) < _MIN_FAST_DOCUMENTS:
        return chat
    sample = spoken[:: max(1, len(spoken) // _NUM_TRIED)][:_NUM_TRIED]
    contents = (message["content"] for example in sample for message in _messages(example))
    texts = [content[:_TRIED_CHARACTERS] for content in contents if isinstance(content, str)]
    engine = make_engine(chat.tokenizer, texts)
    return replace(chat, encoder=TextEncoder(chat.tokenizer, engine)) if engine else chat


def _encode_documents(chat: Chat, examples: Sequence[ExampleRow], spec: EncodeSpec) -> Iterator[list[int] | None]:
    """Ids of each document as `encode_text` gives them, in batches; None for what is not a document."""
    ends = ([] if chat.bos_id is None else [chat.bos_id]), [chat.tokenizer.eos_token_id]
    tokenize = _choose_engine(chat, examples)
    for start in range(0, len(examples), _TEXT_BATCH):
        texts = [
            row.example.text if row.example.kind == "text" else None for row in examples[start : start + _TEXT_BATCH]
        ]
        # Text that spells a special token takes encode_text's own way, which keeps it text.
        plain = [text for text in texts if text is not None and not chat.encoder.special_re.search(text)]
        batched = iter(tokenize(plain) if plain else ())
        for text in texts:
            if text is None:
                yield None
            elif chat.encoder.special_re.search(text):
                yield encode_text(chat, text)
            else:
                yield [*ends[0], *next(batched), *ends[1]]


def _choose_engine(chat: Chat, examples: Sequence[ExampleRow]) -> Engine:
    """The quickest way to the tokenizer's ids of texts that spell no special token."""

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        out = chat.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return out["input_ids"]

    documents = [row.example.text for row in examples if row.example.kind == "text"]
    if len(documents) < _MIN_FAST_DOCUMENTS:
        return tokenize
    sample = documents[:: max(1, len(documents) // _NUM_TRIED)][:_NUM_TRIED]
    return make_engine(chat.tokenizer, [text[:_TRIED_CHARACTERS] for text in sample]) or tokenize


def _encode_prompted_text(chat, example: Example, spec: EncodeSpec, prompts: bool, tally: "_Tally") -> list[EncodedRow]:
    """Prompt and completion as running text; the prompt's ids are a prefix of the row's."""
    if example.text is None:
        raise DataError("prompt: found messages; text was expected, because there is no chat template here")
    if not prompts:
        return _cut_document(encode_text(chat, example.text), spec, tally)
    prompt, completion = example.text[: example.prompt_length], example.text[example.prompt_length :]
    begin = [] if chat.bos_id is None else [chat.bos_id]
    literal = [bool(chat.encoder.special_re.search(text)) for text in (prompt, completion)]
    pieces = [Piece(prompt, literal=literal[0]), Piece(completion, trained=True, literal=literal[1])]
    ids, ranges = chat.encoder.encode(pieces)
    row = [*begin, *ids, chat.tokenizer.eos_token_id]
    prompt_ids = row[: len(begin) + ranges[0][1]]
    pieces = _cut_document(row, spec, tally)
    return [EncodedRow(piece.input_ids, piece.labels, prompt_ids) for piece in pieces[:1]] + pieces[1:]


def _cut_document(ids: list[int], spec: EncodeSpec, tally: "_Tally") -> list[EncodedRow]:
    if len(ids) > spec.max_length:
        tally.longest = max(tally.longest, len(ids))
        if spec.on_too_long == "split" and spec.max_length > 1:
            tally.cut("split")
            starts = range(0, len(ids) - 1, spec.max_length - 1)
            return [_document(ids[start : start + spec.max_length]) for start in starts]
        ids = _truncate(ids, spec, tally)
    return [_document(ids)]


def _document(ids: list[int]) -> EncodedRow:
    if len(ids) < 2:
        raise _Dropped("no_trained_token", "one token, which has nothing before it to be predicted from")
    return EncodedRow(ids, [IGNORE_INDEX, *ids[1:]])


def _encode_conversation(chat: Chat, example: Example, spec: EncodeSpec, prompts: bool, tally: "_Tally") -> EncodedRow:
    rendered = render(chat, example.messages, example.tools, train_on=spec.train_on)
    ids = rendered.ids
    if len(ids) > spec.max_length:
        tally.longest = max(tally.longest, len(ids))
        ids = _truncate(ids, spec, tally)
    labels = [id_ if trained else IGNORE_INDEX for id_, trained in zip(ids, rendered.loss_mask, strict=False)]
    labels[0] = IGNORE_INDEX
    if not any(label != IGNORE_INDEX for label in labels):
        raise _Dropped("no_trained_token", f"no token to train on in the first {len(ids)}")
    prompt_ids = render_prompt(chat, example.messages[:-1], example.tools) if prompts else []
    return EncodedRow(ids, labels, prompt_ids)


def _encode_pair(chat: Chat, example: Example, spec: EncodeSpec, tally: "_Tally") -> EncodedRow:
    prompt_ids, chosen, rejected = render_pair(chat, example.prompt, example.chosen, example.rejected, example.tools)
    length = len(prompt_ids) + max(len(chosen), len(rejected))
    if length > spec.max_length:
        tally.longest = max(tally.longest, length)
        room = spec.max_length - len(prompt_ids)
        if spec.on_too_long != "truncate" or room < 1:
            raise _Dropped(
                "too_long",
                f"{length} tokens, {len(prompt_ids)} of them the prompt; at most {spec.max_length} were expected",
            )
        chosen, rejected = chosen[:room], rejected[:room]
        tally.cut("truncated")
        if chosen == rejected:
            raise _Dropped("difference_cut_off", f"two completions that differ only after {spec.max_length} tokens")
    if chosen == rejected:
        raise _Dropped("identical_pair", f"two completions of the same {len(chosen)} tokens")
    return EncodedRow(prompt_ids=prompt_ids, chosen_ids=chosen, rejected_ids=rejected)


def _encode_prompt(chat: Chat, example: Example, spec: EncodeSpec, tally: "_Tally") -> EncodedRow:
    ids = render_prompt(chat, example.asked, example.tools)
    if len(ids) > spec.max_length:
        tally.longest = max(tally.longest, len(ids))
        raise _Dropped("too_long", f"a prompt of {len(ids)} tokens; at most {spec.max_length} were expected")
    return EncodedRow(prompt_ids=ids)


def _truncate(ids: list[int], spec: EncodeSpec, tally: "_Tally") -> list[int]:
    if spec.on_too_long != "truncate":
        raise _Dropped("too_long", f"{len(ids)} tokens; at most {spec.max_length} were expected")
    tally.cut("truncated")
    return ids[: spec.max_length]


# ------------------------------------------------------------------------------------------------ counting


class _Tally:
    """Counts what becomes of the rows while they are encoded."""

    def __init__(self, spec: EncodeSpec, where: Callable[[ExampleRow], str]):
        self.spec, self.where = spec, where
        self.kept = self.pieces = self.tokens = self.trained = self.longest = 0
        self.source = 0  # of the row that is being encoded
        self.dropped: Counter = Counter()
        self.cuts: Counter = Counter()  # "truncated" and "split": rows
        self.by_source: dict[int, Counter] = defaultdict(Counter)
        self.shown: dict[str, list[str]] = {}

    def cut(self, how: Literal["truncated", "split"]) -> None:
        self.cuts[how] += 1
        self.by_source[self.source][how] += 1

    def drop(self, row: ExampleRow, error: _Dropped) -> None:
        self.dropped[error.reason] += 1
        self.by_source[row.source][error.reason] += 1
        if self.dropped[error.reason] <= _NUM_SHOWN:
            self.shown.setdefault(error.reason, []).append(f"{self.where(row)}: found {error.found}")

    def keep(self, pieces: Sequence[EncodedRow]) -> None:
        self.kept += 1
        self.pieces += len(pieces)
        for piece in pieces:
            completions = len(piece.chosen_ids) + len(piece.rejected_ids)
            if completions:
                self.tokens += 2 * len(piece.prompt_ids) + completions
                self.trained += completions
                longest = len(piece.prompt_ids) + max(len(piece.chosen_ids), len(piece.rejected_ids))
            else:
                ids = piece.prompt_ids if self.spec.prompts_only else piece.input_ids
                self.tokens += len(ids)
                self.trained += len(piece.labels) - piece.labels.count(IGNORE_INDEX)
                longest = len(ids)
            self.longest = max(self.longest, longest)

    def check(self, num_rows: int) -> None:
        """Raises DataError where the recipe wants one, and when nothing is left."""
        bad_rows = dict.fromkeys(("cannot_be_rendered", "control_token"), self.spec.on_bad_row == "error")
        wanted = {"too_long": self.spec.on_too_long == "error"} | bad_rows
        for reason, refused in wanted.items():
            if refused and self.dropped[reason]:
                key = "data.on_too_long" if reason == "too_long" else "data.on_bad_row"
                raise DataError(
                    f"{self.shown[reason][0]} ({self.dropped[reason]} of {num_rows} rows: {reason}). Mend them, or set {key}: drop."
                )
        if not self.kept:
            reasons = "; ".join(f"{count} {reason} ({self.shown[reason][0]})" for reason, count in self.dropped.items())
            raise DataError(
                f"data: all of {num_rows} rows were dropped: {reasons}; rows to use were expected. Raise data.max_length, or mend the rows."
            )

    def report(self, num_rows: int) -> EncodeReport:
        return EncodeReport(
            rows=num_rows, kept=self.kept, pieces=self.pieces, dropped=dict(sorted(self.dropped.items())),
            truncated=self.cuts["truncated"], split=self.cuts["split"], tokens=self.tokens, trained_tokens=self.trained,
            longest=self.longest, shown=self.shown, by_source={key: dict(n) for key, n in self.by_source.items()},
        )  # fmt: skip
