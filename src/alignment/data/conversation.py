"""Messages to text, with the stretches that an assistant generates.

The text comes from transformers' own jinja renderer, so it is the text that serving renders. Where a template has
`{% generation %}` markers they say what is trained on; where it has none, a stretch is what follows the prompt that
serving would render for that turn, which must be an exact prefix of the conversation. Either way it ends with a stop
token, and holds what the message says: a template that leaves part of a trained message out is refused for that row.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from alignment.data.marks import MARK_START, mark, split_marked
from alignment.data.text_encoder import Piece, TextEncoder
from alignment.errors import DataError

Message = dict
ROLES = ("system", "developer", "user", "assistant", "tool")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


@dataclass(frozen=True)
class Chat:
    """A tokenizer with the template, pad token and stop tokens that training, measuring and serving share."""

    tokenizer: PreTrainedTokenizerBase
    template: str  # jinja text, "" for text without messages
    template_name: str
    template_hash: str  # sha256 of `template`, first 16 hex digits
    stop_ids: tuple[int, ...]  # any of these ends a generation
    pad_id: int | None
    bos_id: int | None  # the token that the template begins with, or, without a template, the tokenizer
    system: str | None  # for conversations that begin with no system message
    added_tokens: tuple[str, ...]  # new in the tokenizer: embeddings must be resized when they do not hold them
    encoder: TextEncoder = field(repr=False, compare=False)

    @cached_property
    def has_markers(self) -> bool:
        """Whether the template says itself what is generated."""
        return bool(_GENERATION.search(self.template))


def make_messages(messages: Sequence[Message], system: str | None) -> list[Message]:
    """The messages as templates read them: None dropped, reasoning under one name, `system` first when none is there.

    Raises DataError, naming the message, for an unknown role or content that is not text.
    """
    if not messages:
        raise DataError("messages: found none; at least one was expected. Drop the row.")
    made = [_make_message(message, f"messages[{index}]") for index, message in enumerate(messages)]
    if system is not None and made[0]["role"] not in ("system", "developer"):
        made.insert(0, {"role": "system", "content": system})
    return made


def _make_message(message: Message, where: str) -> Message:
    made = {key: value for key, value in message.items() if value is not None}
    if made.get("role") not in ROLES:
        raise DataError(
            f"{where}.role: found {made.get('role')!r}; one of {', '.join(ROLES)} was expected. Map it in `roles`."
        )
    reasoning = [made.pop(key) for key in _REASONING_KEYS if key in made]
    content = made.get("content", "" if made["role"] == "assistant" else None)
    if isinstance(content, list | tuple):
        content, parts = _join_parts(content, where)
        reasoning += parts
    if not isinstance(content, str):
        raise DataError(f"{where}.content: found {type(content).__name__}; text was expected. Mend or drop the row.")
    made["content"] = content
    if any(reasoning):
        made["reasoning_content"] = next(part for part in reasoning if part)
    return made


def _join_parts(parts: Sequence[dict], where: str) -> tuple[str, list[str]]:
    texts, reasoning = [], []
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case {"type": "thinking" | "reasoning" as key, **rest} if isinstance(rest.get(key, rest.get("text")), str):
                reasoning.append(rest.get(key, rest.get("text")))
            case _:
                raise DataError(
                    f"{where}.content: found the part {part!r}; parts of text or thinking were expected. Drop the row."
                )
    return "".join(texts), reasoning


def render_text(
    chat: Chat, messages: list[Message], tools: list[dict] | None = None, *, add_generation_prompt: bool = False
) -> tuple[list[Piece], list[range]]:
    """Pieces of the rendered conversation and, for each assistant message in order, which of them it generates.

    `messages` come from `make_messages`. Raises DataError when the template refuses the messages, or writes no stop token
    after what an assistant says.
    """
    messages, tools = mark(chat.encoder.special_re, messages, tools)
    text, spans = _jinja(chat, messages, tools, add_generation_prompt)
    if not chat.has_markers:
        spans = _spans_after_prompts(chat, messages, tools, text)
    num_turns = sum(message["role"] == "assistant" for message in messages)
    if len(spans) != num_turns:
        raise DataError(
            f"template {chat.template_name}: it writes {len(spans)} generated parts for {num_turns} assistant messages; as many"
            " were expected. Merge consecutive assistant messages, or use another template."
        )
    return _cut(text, [_to_stop_token(chat, text, start, end) for start, end in spans])


def check_heard(chat: Chat, messages: list[Message], tools: list[dict] | None, text: str) -> None:
    """Raises DataError unless the conversation holds every system and user message and every tool's name."""
    for index, message in enumerate(messages):
        if message["role"] != "assistant" and message["role"] != "tool" and message["content"].strip() not in text:
            raise DataError(
                f"template {chat.template_name}: it leaves out messages[{index}] ({message['role']}, {message['content'][:40]!r});"
                " all of it was expected. Use a template that writes it, or drop the message."
            )
    for tool in tools or ():
        if tool.get("function", tool).get("name", "") not in text:
            raise DataError(
                f"template {chat.template_name}: it does not write the tools of the row; all of them were expected."
                " Use a template with tools (qwen, llama-3, mistral), or drop the row."
            )


def check_said(chat: Chat, message: Message, text: str) -> None:
    """Raises DataError unless `text`, what is generated of the conversation, holds all that the assistant says."""
    said = [("content", message["content"]), ("reasoning_content", message.get("reasoning_content", ""))]
    said += [("tool_calls", call.get("function", call).get("name", "")) for call in message.get("tool_calls", ())]
    for key, part in said:
        if part.strip() not in text:
            raise DataError(
                f"template {chat.template_name}: it does not write the {key} of an assistant message that is trained on"
                f" ({part[:40]!r}); all of it was expected. Use a template that does (qwen has reasoning and tools), or drop the row."
            )


def _jinja(chat: Chat, messages, tools, add_generation_prompt) -> tuple[str, list[tuple[int, int]]]:
    try:
        texts, spans = render_jinja_template(
            [messages],
            tools=tools,
            chat_template=chat.template,
            return_assistant_tokens_mask=chat.has_markers,
            add_generation_prompt=add_generation_prompt,
            **chat.tokenizer.special_tokens_map,
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise DataError(
            f"template {chat.template_name}: it refuses the messages ({error}); messages that it can write were expected."
            " Drop the row, or use another template."
        ) from error
    return texts[0], spans[0] if chat.has_markers else []


def _spans_after_prompts(chat: Chat, messages, tools, text: str) -> list[tuple[int, int]]:
    """From the end of each assistant turn's prompt to the next such end; the stop token is found later."""
    starts = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = _jinja(chat, messages[:index], tools, True)[0] if index else ""
        if not prompt or not text.startswith(prompt):
            raise DataError(
                f"template {chat.template_name}: the prompt it writes for messages[{index}] is not how the conversation begins, so"
                " serving would show the model other text than training; a prefix was expected. Use a template with generation"
                " markers."
            )
        starts.append(len(prompt))
    return list(zip(starts, [*starts[1:], len(text)], strict=True)) if starts else []


def _to_stop_token(chat: Chat, text: str, start: int, end: int) -> tuple[int, int]:
    """The span cut after its stop token: with markers the last special token in it, without them the first."""
    found = [
        m for m in chat.encoder.special_re.finditer(text, start, end) if text[m.start() - 1 : m.start()] != MARK_START
    ]
    stop = (found[-1] if chat.has_markers else found[0]) if found else None
    if stop is None or (chat.has_markers and text[stop.end() : end].strip()):
        raise DataError(
            f"template {chat.template_name}: {text[start:end][-40:]!r} ends without a stop token in the generated part, so the model"
            " would not learn to stop; a special token was expected at its end. Move it inside the generation markers."
        )
    return start, stop.end()


def _cut(text: str, spans: list[tuple[int, int]]) -> tuple[list[Piece], list[range]]:
    pieces: list[Piece] = []
    turns: list[range] = []
    position = 0
    for start, end in spans:
        pieces += split_marked(text[position:start], trained=False)
        turned = split_marked(text[start:end], trained=True)
        turns.append(range(len(pieces), len(pieces) + len(turned)))
        pieces += turned
        position = end
    return pieces + split_marked(text[position:], trained=False), turns
