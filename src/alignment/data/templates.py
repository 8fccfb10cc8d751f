"""The chat templates that come with the package: their text and the tokens that they need.

A template is a jinja file in `templates/` with `{% generation %}` around what an assistant turn is trained on: the
content as it is (with reasoning and tool calls where the family has them) and the token that stops it.
"""

from importlib import resources

from alignment.errors import RecipeError

# name: (beginning of sequence or None, end of document, tokens that the template writes literally)
_TOKENS: dict[str, tuple[str | None, str, tuple[str, ...]]] = {
    "chatml": (None, "<|endoftext|>", ("<|im_start|>", "<|im_end|>")),
    "llama-3": (
        "<|begin_of_text|>",
        "<|end_of_text|>",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    ),
    "qwen": (None, "<|endoftext|>", ("<|im_start|>", "<|im_end|>")),
    "gemma": ("<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>")),
    "mistral": (
        "<s>",
        "</s>",
        (
            "[INST]",
            "[/INST]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
    ),
    "zephyr": (None, "</s>", ()),
    "phi": (None, "<|endoftext|>", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
}
TEMPLATES: tuple[str, ...] = tuple(_TOKENS)


def template_text(name: str) -> str:
    """The jinja text of the template called `name`, one of `TEMPLATES`."""
    _check_name(name)
    return resources.files("alignment.data").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")


def template_control_tokens(name: str) -> tuple[str, ...]:
    """The tokens that the template writes literally; each must be one special token of the tokenizer."""
    _check_name(name)
    return _TOKENS[name][2]


def template_bos_eos(name: str) -> tuple[str | None, str]:
    """The tokens that the family begins a sequence with (None: it does not) and ends a document with."""
    _check_name(name)
    return _TOKENS[name][:2]


def template_special_tokens(name: str) -> tuple[str, ...]:
    """Every special token of the family in the order in which a new tokenizer numbers them: bos, eos, control tokens."""
    bos, eos = template_bos_eos(name)
    return tuple(token for token in (bos, eos) if token is not None) + template_control_tokens(name)


def _check_name(name: str) -> None:
    if name not in _TOKENS:
        raise RecipeError(
            f"chat.template: there is no template '{name}'; known: {', '.join(TEMPLATES)}. Name one of these."
        )
