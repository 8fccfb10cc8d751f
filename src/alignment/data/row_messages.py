"""One row's messages, in whatever shape the source wrote them, to role/content messages that chat.py renders.

Read are `role`/`content` (OpenAI) and `from`/`value` (ShareGPT) messages, contents that are text or lists of parts,
`reasoning_content`, `tool_calls` and the `weight` of an assistant's turn, and the function calls and observations of ShareGPT.
What cannot be a training conversation is a `BadRow`. Rendering, system messages of the recipe and special tokens are chat.py's.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.errors import DataError

Message = dict[str, Any]
ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT_ROLES = {"human": "user", "gpt": "assistant", "function_call": "assistant", "observation": "tool"}
_REASONING = ("reasoning_content", "reasoning", "thinking")
_KEPT = (*_REASONING, "tool_calls", "tool_call_id", "name")
_MAX_DEPTH = 100  # of lists and objects; what walks through a row's values calls itself once a level


class BadRow(DataError):
    """A row that cannot be trained on. `reason` is the name it is counted under."""

    def __init__(self, reason: str, field: str, found: str, expected: str):
        self.reason, self.field, self.found, self.expected = reason, field, found, expected
        super().__init__(f"{field}: found {found}; {expected} was expected")


def make_message(value: Any, roles: Mapping[str, str], field: str) -> Message:
    """One message with one of `ROLES`; `roles` maps the source's names and goes before ShareGPT's own."""
    if not isinstance(value, Mapping):
        raise BadRow("not_a_message", field, _short(value), "an object with role and content")
    role_key, content_key = ("from", "value") if "from" in value and "role" not in value else ("role", "content")
    named = value.get(role_key)
    known = (SHAREGPT_ROLES if role_key == "from" else {}) | dict(roles)
    role = known.get(named, named) if isinstance(named, str) else named
    if role not in ROLES:
        raise BadRow("unknown_role", f"{field}.{role_key}", _short(named), f"one of {', '.join([*ROLES, *known])}")
    content = value.get(content_key)
    weight = _weight(value, role, field)
    if named == "function_call" and isinstance(content, str):
        calls = _parse_calls(content, f"{field}.{content_key}")
        return {"role": role, "content": "", "tool_calls": calls} | weight
    message = {"role": role} | {key: value[key] for key in _KEPT if value.get(key) is not None} | weight
    _check_kept(message, field)
    if content is None and message.get("tool_calls"):
        content = ""
    return message | {"content": _make_content(content, f"{field}.{content_key}")}


def make_messages(value: Any, roles: Mapping[str, str], field: str) -> list[Message]:
    """A list of messages (or one message) as a list; never empty."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise BadRow("no_messages", field, _short(value), "a list of messages")
    return [make_message(item, roles, f"{field}[{index}]") for index, item in enumerate(value)]


def make_tools(value: Any) -> list[dict] | None:
    """The tools of a row: a list, or JSON text of one; each is wrapped as a function when the row did not. None: none."""
    if isinstance(value, str):
        value = _parse_json(value, "tools") if value.strip() else None
    if value is None or (isinstance(value, Sequence) and not value):
        return None
    # A tool of another kind than a function may have no name.
    if not isinstance(value, Sequence) or not all(_is_named(tool, default="") for tool in value):
        raise BadRow("bad_tools", "tools", _short(value), "a list of functions")
    return [dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)} for tool in value]


def check_conversation(messages: Sequence[Message], field: str) -> None:
    """Raises BadRow for a conversation that teaches nothing or the wrong thing.

    It begins with a user turn (after system messages) and ends with an assistant's; no turn of theirs is empty. Two user
    turns in a row are allowed: people do write twice, and a template that must alternate refuses such rows itself.
    """
    roles = [message["role"] for message in messages]
    first = next((index for index, role in enumerate(roles) if role not in ("system", "developer")), None)
    if "assistant" not in roles:
        raise BadRow("no_assistant_turn", field, f"roles {roles}", "at least one assistant turn")
    if roles[first] != "user":
        raise BadRow("assistant_first", f"{field}[{first}]", f"a first turn of role {roles[first]}", "a user turn")
    if roles[-1] != "assistant":
        raise BadRow(
            "ends_without_answer", f"{field}[{len(roles) - 1}]", f"a last turn of role {roles[-1]}", "an assistant turn"
        )
    for index, message in enumerate(messages):
        if message["role"] == "user" and not _has_text(message["content"]):
            raise BadRow("empty_question", f"{field}[{index}].content", "an empty user turn", "text")
    check_answers(messages, field)


def check_answers(messages: Sequence[Message], field: str) -> None:
    """Raises BadRow when an assistant turn says nothing and calls no tool."""
    for index, message in enumerate(messages):
        if message["role"] == "assistant" and not message.get("tool_calls") and not _has_text(message["content"]):
            raise BadRow("empty_answer", f"{field}[{index}].content", "an empty answer", "text")


def check_values(value: Any, field: str) -> None:
    """Raises BadRow for text that UTF-8 cannot hold, in values or keys, and for values that nest without end.

    JSON may spell half of a surrogate pair (`\\ud800`); no file, and no tokenizer, can hold one.
    """
    left = [(value, 0)]
    while left:
        one, depth = left.pop()
        if isinstance(one, str):
            _check_utf8(one, field)
        elif isinstance(one, Mapping | list | tuple):
            if depth == _MAX_DEPTH:
                raise BadRow("nested_too_deep", field, f"values more than {_MAX_DEPTH} deep in each other", "fewer")
            parts = (*one, *one.values()) if isinstance(one, Mapping) else one
            left += [(part, depth + 1) for part in parts]


def split_transcript(text: str, field: str) -> list[Message]:
    """Messages of an hh-rlhf transcript: turns after `\\n\\nHuman:` and `\\n\\nAssistant:`."""
    messages = []
    for part in text.split("\n\nHuman:")[1:]:
        human, *answers = part.split("\n\nAssistant:")
        messages.append({"role": "user", "content": human.strip()})
        messages += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    if not text.startswith("\n\nHuman:"):
        raise BadRow("no_messages", field, _short(text), "a transcript that begins with '\\n\\nHuman:'")
    return messages


def _weight(value: Mapping, role: str, field: str) -> dict[str, int]:
    """`weight: 0` of an assistant's turn that is not to be trained on, as OpenAI has it; nothing for any other turn."""
    weight = value.get("weight")
    if role != "assistant" or weight is None:
        return {}
    if weight not in (0, 1):
        raise BadRow("bad_weight", f"{field}.weight", _short(weight), "0 or 1")
    return {} if weight else {"weight": 0}


def _check_kept(message: Message, field: str) -> None:
    """Raises BadRow for reasoning that is no text and for calls that name no function."""
    for key in _REASONING:
        if message.get(key) and not isinstance(message[key], str):
            raise BadRow("content_not_text", f"{field}.{key}", _short(message[key]), "text")
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, list | tuple) or not all(map(_is_named, calls)):
        raise BadRow("bad_tool_call", f"{field}.tool_calls", _short(calls), "a list of functions with their names")


def _is_named(call: Any, default: Any = None) -> bool:
    """Whether a call or a tool is a function, or holds one, whose name is text."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    return isinstance(function, Mapping) and isinstance(function.get("name", default), str)


def _check_utf8(text: str, field: str) -> None:
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        found = f"U+{ord(text[error.start]):04X}, half of a surrogate pair, at character {error.start + 1} of a text"
        raise BadRow("not_utf8", field, found, "text that UTF-8 can hold") from error


def _make_content(content: Any, field: str) -> str | list[dict]:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and content and all(isinstance(part, Mapping) for part in content):
        return [_make_part(part, field) for part in content]
    raise BadRow("content_not_text", field, _short(content), "text")


def _make_part(part: Mapping, field: str) -> dict:
    kind = part.get("type")
    text = next(
        (part[key] for key in ("text", "value", "thinking", "reasoning") if isinstance(part.get(key), str)), None
    )
    if text is None or kind not in ("text", "thinking", "reasoning"):
        raise BadRow("content_not_text", field, f"a part of type {_short(kind)}", "parts of type text or reasoning")
    return {"type": "text", "text": text} if kind == "text" else {"type": "thinking", "thinking": text}


def _has_text(content: str | list[dict]) -> bool:
    parts = [content] if isinstance(content, str) else [next(iter(list(part.values())[1:]), "") for part in content]
    return any(part.strip() for part in parts)


def _parse_calls(text: str, field: str) -> list[dict]:
    calls = _parse_json(text, field)
    calls = calls if isinstance(calls, list) else [calls]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise BadRow("bad_tool_call", field, _short(text), "JSON with name and arguments")
    return [{"type": "function", "function": call} for call in calls]


def _parse_json(text: str, field: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # not JSON, a number of thousands of digits, nesting without end
        raise BadRow("bad_json", field, f"{_short(text)} ({error})", "JSON") from error
    check_values(value, field)
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
