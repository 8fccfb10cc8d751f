"""The layouts that a source's rows may have: one function each, from a raw row to an `Example`.

A function reads the columns of its format through the recipe's `columns` map and raises `BadRow` for a row that cannot
be trained on. It does not tokenise, and knows nothing of files or of the row's number.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alignment.data.row_messages import (
    ROLES,
    BadRow,
    Message,
    check_answers,
    check_conversation,
    check_values,
    make_messages,
    make_tools,
    split_transcript,
)
from alignment.errors import RecipeError
from alignment.recipe.data_spec import SourceSpec

__all__ = ["FORMATS", "BadRow", "Example", "check_columns", "make_example"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """One row, understood. Which fields are set follows from `kind`.

    text: `text`. chat: `messages`; from plain prompt and completion also `text`, their concatenation, of which the first
    `prompt_length` characters are the prompt. pair: `prompt`, `chosen`, `rejected`. prompt: `prompt`.
    """

    kind: Literal["text", "chat", "pair", "prompt"]
    text: str | None = None
    prompt_length: int = 0
    messages: tuple[Message, ...] = ()
    prompt: tuple[Message, ...] = ()
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    tools: list[dict] | None = None

    @property
    def asked(self) -> tuple[Message, ...]:
        """What stands before the answer: of a conversation, all but its last message."""
        return self.messages[:-1] if self.kind == "chat" else self.prompt


def read_text(row: Row, spec: SourceSpec) -> Example:
    """`text`: a document."""
    text = _column(row, spec, "text")
    if not isinstance(text, str):
        raise BadRow("content_not_text", _name(spec, "text"), type(text).__name__, "text")
    if not text.strip():
        raise BadRow("empty_text", _name(spec, "text"), "an empty text", "a document")
    return Example("text", text=text)


def read_messages(row: Row, spec: SourceSpec) -> Example:
    """`messages`, and `tools` where there are any."""
    return _make_chat(row, spec, make_messages(_column(row, spec, "messages"), spec.roles, _name(spec, "messages")))


def read_sharegpt(row: Row, spec: SourceSpec) -> Example:
    """`conversations` of from/value turns, and `tools`; a `system` column becomes the system message."""
    messages = make_messages(_column(row, spec, "conversations"), spec.roles, _name(spec, "conversations"))
    return _make_chat(row, spec, _with_system(messages, _optional_text(row, spec, "system")))


def read_prompt_completion(row: Row, spec: SourceSpec) -> Example:
    """`prompt` and `completion`, both text or both messages.

    Where text is wanted (pretraining), the two are joined as they are; spaces at the end of the prompt count as the
    beginning of the completion, because a prompt that ends in a space is never met in running text.
    """
    prompt, completion = _column(row, spec, "prompt"), _column(row, spec, "completion")
    text, prompt_length = None, 0
    if isinstance(prompt, str) and isinstance(completion, str):
        text, prompt_length = prompt + completion, len(prompt.rstrip(" "))
    messages = _turn(prompt, "user", spec, "prompt") + _turn(completion, "assistant", spec, "completion")
    chat = _make_chat(row, spec, messages)
    return Example("chat", text=text, prompt_length=prompt_length, messages=chat.messages, tools=chat.tools)


def read_alpaca(row: Row, spec: SourceSpec) -> Example:
    """`instruction`, optional `input` (after an empty line) and `output`; `system` where there is one."""
    asked = _text(row, spec, "instruction")
    if added := _optional_text(row, spec, "input"):
        asked = f"{asked}\n\n{added}"
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": _text(row, spec, "output")}]
    return _make_chat(row, spec, _with_system(messages, _optional_text(row, spec, "system")))


def read_preference(row: Row, spec: SourceSpec) -> Example:
    """`prompt`, `chosen` and `rejected`; or whole conversations in `chosen` and `rejected` that share a beginning.

    Each is text or messages; whole conversations may also be hh-rlhf transcripts. When `chosen` is a list that does not begin
    with an assistant turn it is a whole conversation, and a `prompt` column beside it is not read. What is left of either is
    one assistant turn: every token of a completion is trained, so what a user or a tool says has to stand in the prompt.
    """
    chosen, rejected = _column(row, spec, "chosen"), _column(row, spec, "rejected")
    whole = [_whole_conversation(value, spec, name) for name, value in (("chosen", chosen), ("rejected", rejected))]
    if None not in whole and (not _has(row, spec, "prompt") or not isinstance(chosen, str)):
        prompt, chosen, rejected = _split_shared(whole[0], whole[1], spec)
    else:
        prompt = _turn(_column(row, spec, "prompt"), "user", spec, "prompt")
        chosen = _turn(chosen, "assistant", spec, "chosen")
        rejected = _turn(rejected, "assistant", spec, "rejected")
    for name, completion in (("chosen", chosen), ("rejected", rejected)):
        _check_completion(completion, _name(spec, name))
    if chosen == rejected:
        raise BadRow(
            "identical_pair",
            f"{_name(spec, 'chosen')} and {_name(spec, 'rejected')}",
            "the same answer twice",
            "a rejected answer that differs",
        )
    prompt = _with_system(prompt, spec.system)
    check_conversation([*prompt, *chosen], _name(spec, "prompt"))
    check_conversation([*prompt, *rejected], _name(spec, "prompt"))
    tools = make_tools(row.get(_name(spec, "tools")))
    return Example("pair", prompt=tuple(prompt), chosen=tuple(chosen), rejected=tuple(rejected), tools=tools)


def read_prompt(row: Row, spec: SourceSpec) -> Example:
    """`prompt`, text or messages that a model is to answer: it ends with a user's turn or a tool's result."""
    field = _name(spec, "prompt")
    prompt = _with_system(_turn(_column(row, spec, "prompt"), "user", spec, "prompt"), spec.system)
    last = prompt[-1]["role"]
    if last not in ("user", "tool"):
        raise BadRow("ends_without_question", field, f"a last turn of role {last}", "a user turn or a tool's result")
    # Judged as the conversation that it is to become.
    check_conversation([*prompt, {"role": "assistant", "content": "answered"}], field)
    return Example("prompt", prompt=tuple(prompt), tools=make_tools(row.get(_name(spec, "tools"))))


FORMATS: dict[str, Callable[[Row, SourceSpec], Example]] = {
    "messages": read_messages,
    "prompt_completion": read_prompt_completion,
    "alpaca": read_alpaca,
    "sharegpt": read_sharegpt,
    "preference": read_preference,
    "prompt": read_prompt,
    "text": read_text,
}
# The columns that each format reads: what `columns` may map.
COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "tools"),
    "prompt_completion": ("prompt", "completion", "tools"),
    "alpaca": ("instruction", "input", "output", "system", "tools"),
    "sharegpt": ("conversations", "system", "tools"),
    "preference": ("prompt", "chosen", "rejected", "tools"),
    "prompt": ("prompt", "tools"),
    "text": ("text",),
}


def make_example(row: Row, spec: SourceSpec) -> Example:
    """The example that `row` is in the source's format. Raises BadRow."""
    for name, value in (("columns", list(row)), *row.items()):
        check_values(value, name)
    return FORMATS[spec.format](row, spec)


def check_columns(spec: SourceSpec) -> None:
    """Raises RecipeError for a key of `columns` that the format never reads, or a role that does not exist."""
    for name in spec.columns:
        if name not in COLUMNS[spec.format]:
            raise RecipeError(
                f"{spec.path}: columns: format {spec.format} reads no column '{name}'; it reads: {', '.join(COLUMNS[spec.format])}."
                " Correct the key; the source's own name stands on the right."
            )
    for theirs, role in spec.roles.items():
        if role not in ROLES:
            raise RecipeError(
                f"{spec.path}: roles: '{theirs}' is mapped to '{role}'; one of {', '.join(ROLES)} was expected."
                " Correct the value; the source's own name stands on the left."
            )


# ------------------------------------------------------------------------------------------------ columns


def _name(spec: SourceSpec, column: str) -> str:
    return spec.columns.get(column, column)


def _has(row: Row, spec: SourceSpec, column: str) -> bool:
    return row.get(_name(spec, column)) is not None


def _column(row: Row, spec: SourceSpec, column: str) -> Any:
    name = _name(spec, column)
    if name not in row:
        near = difflib.get_close_matches(name, list(row), n=1, cutoff=0.4)
        hint = f"; for example columns: {{{column}: {near[0]}}}" if near else ""
        raise BadRow(
            "missing_column",
            name,
            f"only {', '.join(map(str, row)) or 'no columns'}",
            f"a column '{name}', or a map to it in 'columns'{hint},",
        )
    return row[name]


def _text(row: Row, spec: SourceSpec, column: str) -> str:
    value = _column(row, spec, column)
    if not isinstance(value, str):
        raise BadRow("content_not_text", _name(spec, column), type(value).__name__, "text")
    return value


def _optional_text(row: Row, spec: SourceSpec, column: str) -> str | None:
    return _text(row, spec, column) if _has(row, spec, column) else None


# ------------------------------------------------------------------------------------------------ messages


def _make_chat(row: Row, spec: SourceSpec, messages: list[Message]) -> Example:
    check_conversation(messages, _name(spec, COLUMNS[spec.format][0]))
    tools = make_tools(row.get(_name(spec, "tools")))
    return Example("chat", messages=tuple(_with_system(messages, spec.system)), tools=tools)


def _with_system(messages: list[Message], system: str | None) -> list[Message]:
    if not system or messages[0]["role"] in ("system", "developer"):
        return messages
    return [{"role": "system", "content": system}, *messages]


def _turn(value: Any, role: str, spec: SourceSpec, column: str) -> list[Message]:
    """Messages of a column that holds text, said by `role`, or messages."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if value is None:
        raise BadRow("content_not_text", _name(spec, column), "None", "text or messages")
    return make_messages(value, spec.roles, _name(spec, column))


def _whole_conversation(value: Any, spec: SourceSpec, column: str) -> list[Message] | None:
    """The conversation in a `chosen` or `rejected` column; None when it holds only the answer."""
    if isinstance(value, str):
        return split_transcript(value, _name(spec, column)) if value.startswith("\n\nHuman:") else None
    if value is None:
        raise BadRow("content_not_text", _name(spec, column), "None", "text or messages")
    messages = make_messages(value, spec.roles, _name(spec, column))
    return None if messages[0]["role"] == "assistant" else messages


def _split_shared(chosen: list[Message], rejected: list[Message], spec: SourceSpec):
    """Prompt and two completions: the longest shared beginning, after which both go on with an assistant turn."""
    field = f"{_name(spec, 'chosen')} and {_name(spec, 'rejected')}"
    if chosen == rejected:
        raise BadRow("identical_pair", field, "the same conversation twice", "a rejected one that differs")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    both = (chosen[shared:], rejected[shared:])
    if not all(rest and rest[0]["role"] == "assistant" for rest in both):
        raise BadRow("prompts_differ", field, f"conversations that part at message {shared}", "a pair with one prompt")
    return chosen[:shared], *both


def _check_completion(completion: list[Message], field: str) -> None:
    """Raises BadRow unless a completion is one assistant turn that says something and counts."""
    roles = [message["role"] for message in completion]
    if roles != ["assistant"]:
        expected = "one assistant turn after a prompt that both sides share, because all of a completion is trained,"
        raise BadRow("not_one_answer", field, f"turns of {', '.join(roles)}", expected)
    if "weight" in completion[0]:
        raise BadRow("bad_weight", f"{field}[0].weight", "0", "a completion that counts")
    check_answers(completion, field)
