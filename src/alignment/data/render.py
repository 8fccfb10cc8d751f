"""Messages to ids and loss mask: the one way, for training, measuring and serving alike.

The ids of a conversation begin with the ids of each of its prompts, and are those of the tokenizer's own
`apply_chat_template` (with `sanitize_control_tokens=True` where a message spells a special token) wherever one
encoding of the whole text has a token border at the end of every prompt. Nothing is truncated here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from alignment.data.conversation import Chat, Message, check_heard, check_said, make_messages, render_text
from alignment.data.text_encoder import Piece
from alignment.errors import DataError

TrainOn = Literal["assistant", "last_assistant", "all"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation in tokens; both lists have one entry per token."""

    ids: list[int]
    loss_mask: list[int]  # 1 = trained


def render(
    chat: Chat,
    messages: Sequence[Message],
    tools: list[dict] | None = None,
    train_on: TrainOn = "assistant",
    add_generation_prompt: bool = False,
) -> Rendered:
    """Ids and loss mask of a conversation.

    Trained is what the assistant says, as the template writes it, and the stop token after it, of every assistant turn
    or the last one; `all` trains every token. A conversation without an assistant turn has no trained token. A turn of
    `weight: 0` is never trained.
    Raises DataError when the template cannot write the row, or leaves out something that would be trained.
    """
    messages = make_messages(messages, chat.system)
    spoken = [message for message in messages if message["role"] == "assistant"]
    left_out = [message.pop("weight", 1) == 0 for message in spoken]
    tools = tools or None
    pieces, turns = render_text(chat, messages, tools, add_generation_prompt=add_generation_prompt)
    check_heard(chat, messages, tools, "".join(piece.text for piece in pieces))
    ids, ranges = chat.encoder.encode(pieces)
    loss_mask = [int(train_on == "all")] * len(ids)
    said = list(zip(spoken, turns, left_out, strict=True))
    for message, turn, is_out in said[-1 if train_on == "last_assistant" else 0 :]:
        if train_on != "all" and not is_out:
            check_said(chat, message, "".join(pieces[index].text for index in turn))
        start, end = ranges[turn[0]][0], ranges[turn[-1]][1]
        loss_mask[start:end] = [int(not is_out)] * (end - start)
    return Rendered(ids, loss_mask)


def render_prompt(chat: Chat, messages: Sequence[Message], tools: list[dict] | None = None) -> list[int]:
    """Ids of the conversation with the header of the assistant turn that a model is to generate."""
    return render(chat, messages, tools, train_on="all", add_generation_prompt=True).ids


def render_pair(
    chat: Chat,
    prompt: Sequence[Message],
    chosen: Sequence[Message],
    rejected: Sequence[Message],
    tools: list[dict] | None = None,
) -> tuple[list[int], list[int], list[int]]:
    """Ids of a prompt and its two completions, each ending with its stop token.

    Raises DataError when a completion is not one that the model could generate after that prompt.
    """
    prompt_ids = render_prompt(chat, prompt, tools)
    return prompt_ids, *(
        _completion(chat, prompt, completion, tools, prompt_ids, name)
        for name, completion in (("chosen", chosen), ("rejected", rejected))
    )


def render_answered(
    chat: Chat, prompt: Sequence[Message], answer: Sequence[Message], tools: list[dict] | None = None
) -> list[int]:
    """Ids of a prompt and its answer up to the stop token: what a pair's prompt and one of its completions make together.

    Raises DataError when the answer is not one that the model could generate after that prompt.
    """
    prompt_ids = render_prompt(chat, prompt, tools)
    return [*prompt_ids, *_completion(chat, prompt, answer, tools, prompt_ids, "answer")]


def _completion(chat: Chat, prompt, completion, tools, prompt_ids: list[int], name: str) -> list[int]:
    roles = [message.get("role") for message in completion]
    if roles != ["assistant"]:
        raise DataError(f"{name}: found messages of {roles}; one of the assistant was expected. Mend the row.")
    row = render(chat, [*prompt, *completion], tools, train_on="last_assistant")
    if row.ids[: len(prompt_ids)] != prompt_ids:
        raise DataError(
            f"{name}: the template {chat.template_name} does not begin the conversation with its prompt; a prefix was expected."
            " Use another template."
        )
    end = len(row.ids) - row.loss_mask[::-1].index(1)
    return row.ids[len(prompt_ids) : end]


def encode_text(chat: Chat, text: str) -> list[int]:
    """Ids of a document without messages: the tokenizer's bos where it has that habit, the text, and eos.

    Special tokens that the text spells are ordinary text, so that no document holds the end of another.
    """
    position, pieces = 0, []
    for found in chat.encoder.special_re.finditer(text):
        pieces += [Piece(text[position : found.start()]), Piece(found.group(), literal=True)]
        position = found.end()
    ids, _ = chat.encoder.encode([*pieces, Piece(text[position:])])
    return [*(() if chat.bos_id is None else (chat.bos_id,)), *ids, chat.tokenizer.eos_token_id]


def decode_trained(chat: Chat, ids: Sequence[int], mask: Sequence[int]) -> list[str]:
    """What is trained in words: one text for each run of the mask, without the stop token at its end."""
    texts, position = [], 0
    for trained, run in groupby(mask):
        start, position = position, position + sum(1 for _ in run)
        if trained:
            end = position - 1 if ids[position - 1] in chat.stop_ids else position
            texts.append(chat.encoder.decode(list(ids), start, end))
    return texts
