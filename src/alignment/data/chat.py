"""Chat: a tokenizer with everything that turns messages into tokens settled before training.

`load_chat` finds the template, settles stop and pad tokens, and proves on a few conversations that the template can be
trained with. `load_plain_chat` does the same for text without messages. Rendering itself is in `render.py`; this module
names all of it, so that callers import from one place.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from alignment.data.conversation import Chat
from alignment.data.pad_token import settle_pad_token
from alignment.data.render import Rendered, decode_trained, encode_text, render, render_pair, render_prompt
from alignment.data.template_check import CONVERSATIONS, check_template, find_stop_ids
from alignment.data.template_limits import check_template_limits
from alignment.data.templates import TEMPLATES, template_control_tokens, template_special_tokens, template_text
from alignment.data.text_encoder import TextEncoder
from alignment.errors import DataError, RecipeError
from alignment.recipe.model_spec import ChatSpec

__all__ = [
    "TEMPLATES",
    "Chat",
    "Rendered",
    "check_template",
    "decode_trained",
    "encode_text",
    "load_chat",
    "load_plain_chat",
    "render",
    "render_pair",
    "render_prompt",
    "template_special_tokens",
]


def load_chat(tokenizer: PreTrainedTokenizerBase, spec: ChatSpec, recipe_dir: Path, needs_pad: bool = True) -> Chat:
    """The chat that `spec` asks for, proven on a few conversations.

    Changes `tokenizer`: its chat template becomes the one trained with, byte for byte, and its pad token the settled one
    (`Chat.added_tokens` when that is new). Without `needs_pad` the pad token is left as it is and `pad_id` is None.
    Raises RecipeError for a template that does not exist, DataError for one that cannot be trained with and why.
    """
    name, template = _find_template(tokenizer, spec.template, recipe_dir)
    if name not in TEMPLATES:
        check_template_limits(name, template, list(CONVERSATIONS.values()), tokenizer.special_tokens_map)
    _check_tokens(tokenizer, name, template)
    chat = _make_chat(tokenizer, name, template, spec.system)
    chat = replace(chat, stop_ids=find_stop_ids(chat))
    if violated := check_template(chat):
        more = f"; and {len(violated) - 2} more" if len(violated) > 2 else ""
        raise DataError(
            f"chat.template: {name} does not hold what training needs: {'; '.join(violated[:2])}{more}. Use one of"
            f" {', '.join(TEMPLATES)}, or a .jinja file with generation markers around the assistant's text and its stop token."
        )
    tokenizer.chat_template = template
    return _with_pad(chat, spec.pad_token, template) if needs_pad else chat


def load_plain_chat(tokenizer: PreTrainedTokenizerBase, pad_token: str | None = None) -> Chat:
    """For text without messages: no template, eos is the stop token, the pad token is settled as for messages.

    `bos_id` is the token that the tokenizer itself begins a text with, or None. Raises DataError without an eos token.
    """
    if tokenizer.eos_token_id is None:
        raise DataError(
            "tokenizer: it has no eos token, so the end of a text cannot be learnt; one was expected. Set its eos_token."
        )
    first = tokenizer("x").input_ids[:1]
    chat = _make_chat(tokenizer, "text", "", None)
    chat = replace(
        chat, stop_ids=(tokenizer.eos_token_id,), bos_id=first[0] if first == [tokenizer.bos_token_id] else None
    )
    return _with_pad(chat, pad_token, "")


def _make_chat(tokenizer: PreTrainedTokenizerBase, name: str, template: str, system: str | None) -> Chat:
    return Chat(
        tokenizer=tokenizer,
        template=template,
        template_name=name,
        template_hash=hashlib.sha256(template.encode()).hexdigest()[:16],
        stop_ids=(),
        pad_id=None,
        bos_id=tokenizer.bos_token_id if "bos_token" in template else None,
        system=system,
        added_tokens=(),
        encoder=TextEncoder(tokenizer),
    )


def _with_pad(chat: Chat, wanted: str | None, template: str) -> Chat:
    tokenizer = chat.tokenizer
    used = {id_ for token, id_ in chat.encoder.special_ids.items() if token in template}
    pad_id, added = settle_pad_token(tokenizer, wanted, used | set(chat.stop_ids))
    # The encoder is made anew: it must know the pad token as a special one.
    return replace(chat, pad_id=pad_id, added_tokens=added, encoder=TextEncoder(tokenizer))


def _find_template(tokenizer: PreTrainedTokenizerBase, wanted: str, recipe_dir: Path) -> tuple[str, str]:
    if wanted == "from_tokenizer":
        if not isinstance(tokenizer.chat_template, str):
            raise DataError(
                f"chat.template: from_tokenizer was asked, and the tokenizer has {'several templates' if tokenizer.chat_template else 'none'};"
                f" one was expected. Name one of {', '.join(TEMPLATES)}, or a .jinja file."
            )
        return wanted, tokenizer.chat_template
    if not wanted.endswith(".jinja"):
        return wanted, template_text(wanted)
    path = recipe_dir / wanted
    if not path.is_file():
        raise RecipeError(
            f"chat.template: {path} is not a file; a .jinja file relative to the recipe was expected. Correct the path."
        )
    try:
        return path.name, path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"chat.template: {path}: found byte {error.object[error.start]:#04x}, which is not UTF-8; UTF-8 text was expected."
            " Convert the file."
        ) from error


def _check_tokens(tokenizer: PreTrainedTokenizerBase, name: str, template: str) -> None:
    """Raises DataError when the tokenizer lacks a token that the template stands on."""
    missing = _missing_tokens(tokenizer, name) if name in TEMPLATES else []
    missing += [
        key
        for key in ("bos_token", "eos_token")
        if key in template and name in TEMPLATES and key not in tokenizer.special_tokens_map
    ]
    if missing:
        fitting = [other for other in TEMPLATES if not _missing_tokens(tokenizer, other)]
        raise DataError(
            f"chat.template: {name} needs {', '.join(missing)}, which the tokenizer lacks as special tokens."
            f" Templates whose tokens it has: {', '.join(fitting) or 'none'}. Name one of them, or train a tokenizer for {name}."
        )


def _missing_tokens(tokenizer: PreTrainedTokenizerBase, name: str) -> list[str]:
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return [token for token in template_control_tokens(name) if token not in special]
