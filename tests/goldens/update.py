"""Golden traces: `python -m tests.goldens.update` writes them anew; the tests only read them."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "data"))

from chat_tokenizers import make_tokenizer  # noqa: E402

from alignment.data.chat import TEMPLATES, load_chat, render  # noqa: E402
from alignment.data.conversation import make_messages, render_text  # noqa: E402
from alignment.recipe.schema import ChatSpec  # noqa: E402

TOOL = {"type": "function", "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call00001", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is the Louvre?"},
    {"role": "assistant", "content": "In Paris."},
    {"role": "user", "content": "1 + 2?\n"},
]
ANSWER = [{"role": "assistant", "content": " 3 "}]
WITH_TOOLS = [
    *CHAT,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "name": "add", "tool_call_id": "call00001"},
    *ANSWER,
]
REASONING = [*CHAT, {"role": "assistant", "content": "3", "reasoning_content": "One and two."}]
CASES = {"chat": ([*CHAT, *ANSWER], None), "tools": (WITH_TOOLS, [TOOL]), "reasoning": (REASONING, None)}
CASES_OF = {"qwen": ("chat", "tools", "reasoning"), "llama-3": ("chat", "tools"), "mistral": ("chat", "tools")}


def golden_path(template: str) -> Path:
    return HERE / f"chat_{template}.json"


def chat_golden(template: str) -> dict:
    """For each case the rendered text with what is trained in 【】, and the ids of a byte-level tokenizer."""
    chat = load_chat(make_tokenizer(template, "bytes"), ChatSpec(template=template), HERE)
    return {"template_hash": chat.template_hash} | {
        name: _case(chat, *CASES[name]) for name in CASES_OF.get(template, ("chat",))
    }


def _case(chat, messages, tools) -> dict:
    pieces, _ = render_text(chat, make_messages(messages, None), tools)
    text = "".join(f"【{piece.text}】" if piece.trained else piece.text for piece in pieces)
    row = render(chat, messages, tools)
    return {"text": text.split("\n"), "ids": " ".join(map(str, row.ids)), "mask": "".join(map(str, row.loss_mask))}


if __name__ == "__main__":
    for name in TEMPLATES:
        golden_path(name).write_text(json.dumps(chat_golden(name), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        print(golden_path(name))
