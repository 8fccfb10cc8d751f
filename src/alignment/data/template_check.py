"""What a template must hold to be trained with, proven on a few conversations with the tokenizer at hand."""

import re
from collections.abc import Iterator

from alignment.data.conversation import Chat, Message, make_messages, render_text
from alignment.data.render import Rendered, decode_trained, render
from alignment.errors import DataError

_USER, _OTHER_USER = {"role": "user", "content": "What is 2 + 2?"}, {"role": "user", "content": "And then?"}
_SAID, _SAID_NEXT = (
    {"role": "assistant", "content": "It is four."},
    {"role": "assistant", "content": "Nothing, really."},
)
_SYSTEM = {"role": "system", "content": "Answer in brief."}
_EMPTY = {"role": "assistant", "content": ""}
_LONG = {"role": "assistant", "content": "Line after line.\n\n* so it goes\n" * 50 + "end"}

CONVERSATIONS: dict[str, list[Message]] = {
    "one turn": [_USER, _SAID],
    "two turns": [_USER, _SAID, _OTHER_USER, _SAID_NEXT],
    "empty answer": [_USER, _EMPTY, _OTHER_USER, _SAID],
    "long answer": [_USER, _LONG],
}
_TOOLS = [
    {
        "type": "function",
        "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}},
    }
]
_CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "add", "arguments": {"a": 2}}}],
}
_RESULT = {"role": "tool", "content": "4", "name": "add", "tool_call_id": "call00001"}
# A template may refuse these; when it writes them, the properties hold.
OPTIONAL_CONVERSATIONS: dict[str, tuple[list[Message], list[dict] | None]] = {
    "system": ([_SYSTEM, _USER, _SAID], None),
    "tools": ([_USER, _CALL, _RESULT, _SAID], _TOOLS),
    "reasoning": ([_USER, _SAID | {"reasoning_content": "Two and two."}], None),
    "reasoning in two turns": (
        [_USER, _SAID | {"reasoning_content": "Two."}, _OTHER_USER, _SAID_NEXT | {"reasoning_content": "Hm."}],
        None,
    ),
}
# What a template writes around an answer without reasoning (Qwen3 and its kin), which a model generates too.
_EMPTY_REASONING = re.compile(r"(<think>\s*</think>\s*)?")


def find_stop_ids(chat: Chat) -> tuple[int, ...]:
    """Ids that end a generation: what ends an assistant turn in the template, then the tokenizer's eos if another.

    Raises DataError when the template cannot write one turn with its stop token.
    """
    pieces, turns = render_text(chat, make_messages(CONVERSATIONS["one turn"], chat.system))
    ids, ranges = chat.encoder.encode(pieces)
    stop_id, eos_id = ids[ranges[turns[-1][-1]][1] - 1], chat.tokenizer.eos_token_id
    return (stop_id,) if eos_id in (None, stop_id) else (stop_id, eos_id)


def check_template(chat: Chat) -> list[str]:
    """Sentences that say which properties do not hold, with the conversation that shows it; empty when all hold."""
    if "strftime_now" in chat.template:
        return ["it writes the date of the day (strftime_now), so that the same row has other tokens tomorrow"]
    violated = []
    for name, messages in CONVERSATIONS.items():
        try:
            row = render(chat, messages)
        except DataError as error:
            violated.append(f"{name}: {error}")
        else:
            violated += [f"{name}: {reason}" for reason in _check_words(chat, row, messages)]
            violated += [f"{name}: {reason}" for reason in _check_tokens(chat, row, messages, None)]
    for name, (messages, tools) in OPTIONAL_CONVERSATIONS.items():
        try:
            row = render(chat, messages, tools)
        except DataError:  # then such rows are refused with their reason
            continue
        violated += [f"{name}: {reason}" for reason in _check_tokens(chat, row, messages, tools)]
    return violated


def _check_words(chat: Chat, row: Rendered, messages: list[Message]) -> Iterator[str]:
    said = [message["content"] for message in messages if message["role"] == "assistant"]
    trained = decode_trained(chat, row.ids, row.loss_mask)
    if len(trained) != len(said) or not all(map(_says, trained, said)):
        yield f"trained is {_short(trained)}, the assistant says {_short(said)}"


def _check_tokens(chat: Chat, row: Rendered, messages: list[Message], tools: list[dict] | None) -> Iterator[str]:
    if not _every_run_stops(chat, row):
        yield "an assistant turn's last trained token is not a stop token"
    if row.ids != serve(chat, messages, tools):
        yield "its ids are not those of the tokenizer's own apply_chat_template"
    if chat.bos_id is not None and chat.tokenizer.bos_token not in chat.template and row.ids.count(chat.bos_id) != 1:
        yield f"it has {row.ids.count(chat.bos_id)} tokens {chat.tokenizer.bos_token}; one was expected"
    starts = [index for index, trained in enumerate(row.loss_mask) if trained and not row.loss_mask[index - 1]]
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    for start, index in zip(starts, turns, strict=False):
        if serve(chat, messages[:index], tools, add_generation_prompt=True) != row.ids[:start]:
            yield f"the prompt served for messages[{index}] is not how the conversation begins"


def _says(trained: str, said: str) -> bool:
    return trained[_EMPTY_REASONING.match(trained).end() :] == said or trained == said


def _every_run_stops(chat: Chat, row: Rendered) -> bool:
    following = [*row.loss_mask[1:], 0]
    ends = [id_ for id_, now, then in zip(row.ids, row.loss_mask, following, strict=True) if now and not then]
    return bool(ends) and all(id_ in chat.stop_ids for id_ in ends)


def serve(chat: Chat, messages: list[Message], tools: list[dict] | None = None, **kwargs) -> list[int]:
    """Ids of the tokenizer's own `apply_chat_template`: what a server gives the model."""
    return chat.tokenizer.apply_chat_template(
        make_messages(messages, chat.system), tools=tools, chat_template=chat.template, return_dict=False,
        sanitize_control_tokens=True, **kwargs,
    )  # fmt: skip


def _short(texts: list[str]) -> str:
    return repr(texts) if len(repr(texts)) < 120 else repr(texts)[:117] + "..."
