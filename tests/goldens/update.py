"""Golden traces: `python -m tests.goldens.update` writes them anew; the tests only read them."""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "data"))

from chat_tokenizers import make_tokenizer, wrap_tokenizer  # noqa: E402

from alignment.data.chat import TEMPLATES, load_chat, render  # noqa: E402
from alignment.data.conversation import make_messages, render_text  # noqa: E402
from alignment.errors import DataError  # noqa: E402
from alignment.recipe.model_spec import ChatSpec  # noqa: E402

# trl's templates name their special tokens in these ways.
CONTROL = re.compile(r"<\|[^<>|'\"]+\|>|<｜[^｜]+｜>|<\w+_of_\w+>|<\w+\|>|<\|\w+>|<end_of_utterance>")
TRL_TEMPLATES = Path(find_spec("trl").origin).parent / "chat_templates"  # found, not imported: that takes four seconds
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}},
}
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


def trl_golden() -> dict[str, str]:
    """For each template that trl ships: `holds`, or the beginning of the refusal."""
    return {path.stem: _verdict(path) for path in sorted(TRL_TEMPLATES.glob("*.jinja"))}


def _verdict(path: Path) -> str:
    tokens = sorted(set(CONTROL.findall(path.read_text(encoding="utf-8"))))
    tokenizer = wrap_tokenizer("bytes", ["<s>", "</s>", *tokens], bos="<s>", eos="</s>")
    try:
        load_chat(tokenizer, ChatSpec(template=path.name), path.parent)
    except DataError as error:
        return f"refused: {str(error)[:150]}"
    return "holds"


def write_golden(path: Path, golden: dict) -> None:
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(path)


def update_quickstart() -> None:
    """In a folder of its own, which becomes the current one."""
    import os
    import tempfile

    sys.path.insert(0, str(HERE))
    import quickstart

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        trace = quickstart.make_trace(Path(folder))
        os.chdir(HERE)
    write_golden(quickstart.PATH, trace)


if __name__ == "__main__":
    for name in TEMPLATES:
        write_golden(golden_path(name), chat_golden(name))
    write_golden(HERE / "trl_templates.json", trl_golden())
    update_quickstart()
