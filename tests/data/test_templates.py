"""Every template x tokenizer x conversation shape: what is trained, what is served, and that they are the same."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from chat_tokenizers import KINDS, make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.data.chat import TEMPLATES, decode_trained, load_chat, render, render_pair, render_prompt
from alignment.data.template_check import serve
from alignment.errors import DataError
from alignment.recipe.model_spec import ChatSpec
from tests.goldens.update import TRL_TEMPLATES, chat_golden, golden_path, trl_golden

HERE = Path(".")
TOOLS = [
    {"type": "function", "function": {"name": "add", "description": "Add <numbers>.", "parameters": {"type": "object"}}}
]
CALL = {
    "role": "assistant",
    "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
}
RESULT = {"role": "tool", "content": "3", "name": "add", "tool_call_id": "call00001"}
CALL_TEXT = {
    "qwen": '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>',
    "llama-3": '{"name": "add", "parameters": {"a": 1}}',
    "mistral": '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "call00001"}]',
}
STOP = {"chatml": "<|im_end|>", "qwen": "<|im_end|>", "llama-3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>",
        "zephyr": "</s>", "phi": "<|end|>"}  # fmt: skip
PLAIN = "Paris is the capital of France."

# Its answers follow a special token, and this tokenizer writes a space there that its decoder leaves in.
UNFIT = ("mistral", "bytes_prefix")


def chat_of(template, kind, **spec):
    return load_chat(make_tokenizer(template, kind), ChatSpec(template=template, **spec), HERE)


@pytest.fixture(scope="module", params=[(t, k) for t in TEMPLATES for k in KINDS if (t, k) != UNFIT], ids="-".join)
def chat(request):
    return chat_of(*request.param)


def turns(*contents, system=None):
    messages = [] if system is None else [{"role": "system", "content": system}]
    return messages + [
        {"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(contents)
    ]


def runs(mask):
    """(first, end) of each run of ones, the slow way."""
    padded = [0, *mask, 0]
    starts = [i for i, (a, b) in enumerate(pairwise(padded)) if (a, b) == (0, 1)]
    ends = [i for i, (a, b) in enumerate(pairwise(padded)) if (a, b) == (1, 0)]
    return list(zip(starts, ends, strict=True))


def ids_of(chat, text):
    return chat.tokenizer(text, add_special_tokens=False).input_ids


def readable(chat, text):
    """The text as the tokenizer can give it back.

    tokenizers 0.23: Metaspace with prepend_scheme=always has the same ids for "x" and " x" after a special token.
    """
    after_special = chat.encoder.adds_space_after_special and chat.template_name == "mistral"
    loses_space = after_special and ids_of(chat, "x") == ids_of(chat, " x")
    return text.removeprefix(" ") if loses_space else text


def assert_properties(chat, messages, said, tools=None, *, clean=True):
    """The properties, with `said` the texts that the assistant's turns must be trained on."""
    row = render(chat, messages, tools)
    spans = runs(row.loss_mask)
    stop_id = chat.tokenizer.convert_tokens_to_ids(STOP[chat.template_name])
    assert decode_trained(chat, row.ids, row.loss_mask) == [readable(chat, text) for text in said]
    assert [row.ids[end - 1] for _, end in spans] == [stop_id] * len(said)
    assert [row.ids[start:end].count(stop_id) for start, end in spans] == [1] * len(said)
    assert chat.pad_id not in row.ids
    if chat.tokenizer.bos_token_id is not None:
        assert row.ids.count(chat.tokenizer.bos_token_id) == 1
        assert row.ids[0] == chat.tokenizer.bos_token_id
    asked = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    first = spans[0][0]
    assert serve(chat, messages[: asked[0]], tools, add_generation_prompt=True) == row.ids[:first]
    assert render_prompt(chat, messages[: asked[0]], tools) == row.ids[:first]
    if clean:
        assert serve(chat, messages, tools) == row.ids
        for (start, _), index in zip(spans, asked, strict=True):
            assert serve(chat, messages[:index], tools, add_generation_prompt=True) == row.ids[:start]
    return row


SHAPES = {
    "one turn": (turns("Hi", PLAIN), [PLAIN]),
    "system": (turns("Hi", PLAIN, system="Be brief."), [PLAIN]),
    "multi-turn": (turns("Hi", "Hello.", "Where?", "Paris", "Sure?", "Yes!"), ["Hello.", "Paris", "Yes!"]),
    "empty answer": (turns("Hi", "", "And?", PLAIN), ["", PLAIN]),
    "empty question": (turns("", PLAIN), [PLAIN]),
    "very long": (turns("Hi " * 3000, PLAIN * 300, "x", "y"), [PLAIN * 300, "y"]),
    "unicode": (turns("Où?", "東京 👩‍👩‍👧 Å é ﬁ ü"), ["東京 👩‍👩‍👧 Å é ﬁ ü"]),
    "markers in content": (
        turns("{% generation %}", "{{ bos_token }} [INST] <think>"),
        ["{{ bos_token }} [INST] <think>"],
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_answers_and_their_stop_tokens_are_trained_and_the_rest_is_as_served(chat, shape):
    messages, said = SHAPES[shape]
    assert_properties(chat, messages, said)


@pytest.mark.parametrize(
    "said", [" leading", "trailing ", "\nline", "\n\nlines\n", "  two  ", " ", "\n", "\t", "a\n", " \n x"]
)
def test_spaces_and_newlines_at_the_edges_are_trained_as_they_are(chat, said):
    assert_properties(chat, turns("Hi", said, "And?\n", PLAIN), [said, PLAIN], clean=False)


def test_special_tokens_spelled_in_content_never_become_special_ids(chat):
    plain = assert_properties(chat, turns("xx", "yy", system="zz"), ["yy"])
    special = set(chat.encoder.special_ids.values())
    for token in chat.encoder.special_ids:
        if token == "<unk>":
            continue
        said = f"a {token} b{token}"
        messages = turns(f"{token} x {token}", said, system=token)
        row = assert_properties(chat, messages, [said])
        assert [i for i in row.ids if i in special] == [i for i in plain.ids if i in special]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(alphabet="aZ .\n\t<|>_é東👍[]/", max_size=12), min_size=2, max_size=6))
def test_any_text_is_trained_exactly_and_every_prompt_is_a_prefix(chat, texts):
    texts = texts[: len(texts) // 2 * 2]
    assert_properties(chat, turns(*texts), texts[1::2], clean=False)


def test_a_tokenizer_that_cannot_begin_an_answer_without_a_space_is_refused():
    with pytest.raises(DataError, match=r"trained is \[' It is four.'\], the assistant says \['It is four.'\]"):
        chat_of(*UNFIT)


@pytest.mark.parametrize(("template", "kind"), [(t, k) for t in CALL_TEXT for k in KINDS if (t, k) != UNFIT])
def test_tool_calls_are_trained_and_tools_and_results_are_not(template, kind):
    messages = [*turns("1 + 2?", system="Calculate."), CALL, RESULT, {"role": "assistant", "content": "3"}]
    assert_properties(chat_of(template, kind), messages, [CALL_TEXT[template], "3"], TOOLS)


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_is_trained_in_every_turn(kind):
    messages = turns("Hi", "Hello.", "Where?", "Paris")
    messages[1]["reasoning_content"], messages[3]["reasoning_content"] = "A greeting.", "France.\n"
    said = ["<think>\nA greeting.\n</think>\n\nHello.", "<think>\nFrance.\n\n</think>\n\nParis"]
    assert_properties(chat_of("qwen", kind), messages, said)


@pytest.mark.parametrize("template", sorted(set(TEMPLATES) - {"qwen"}))
def test_reasoning_is_refused_by_the_templates_without_it(template):
    messages = turns("Hi", "Hello.")
    messages[1]["reasoning_content"] = "A greeting."
    with pytest.raises(DataError, match="does not write the reasoning_content of an assistant message"):
        render(chat_of(template, "bytes"), messages)


@pytest.mark.parametrize("template", sorted(set(TEMPLATES) - set(CALL_TEXT)))
def test_tools_are_refused_by_the_templates_without_them(template):
    chat = chat_of(template, "bytes")
    with pytest.raises(DataError, match="does not write the tools of the row"):
        render(chat, turns("Hi", "Hello."), TOOLS)
    with pytest.raises(DataError, match="refuses the messages"):
        render(chat, [*turns("Hi"), CALL, RESULT, {"role": "assistant", "content": "3"}])


def test_the_saved_template_is_the_trained_one_and_gives_the_same_ids(chat, tmp_path):
    chat.tokenizer.save_pretrained(tmp_path)
    saved = type(chat.tokenizer).from_pretrained(tmp_path)
    messages, _ = SHAPES["multi-turn"]
    assert saved.chat_template.encode() == chat.template.encode()
    assert saved.apply_chat_template(messages, return_dict=False) == render(chat, messages).ids
    assert saved.pad_token_id == chat.pad_id


def test_a_pair_shares_its_prompt_and_both_completions_stop(chat):
    question, good, bad = turns("Hi", "Hello.", "Where?"), [turns("", "Paris")[1]], [turns("", "")[1]]
    prompt_ids, chosen_ids, rejected_ids = render_pair(chat, question, good, bad)
    stop_id = chat.stop_ids[0]
    assert prompt_ids == render_prompt(chat, question)
    assert chat.encoder.decode(prompt_ids + chosen_ids, len(prompt_ids), len(prompt_ids + chosen_ids) - 1) == "Paris"
    assert chosen_ids[-1] == stop_id
    assert rejected_ids == [stop_id]


# What the same family's own template, as trl ships it, renders for content without spaces at its edges.
STOCK = {"llama-3": "llama3", "gemma": "gemma", "qwen": "qwen3_instruct_2507", "phi": "phi3"}


@pytest.mark.parametrize("template", STOCK)
def test_conversations_read_as_in_the_familys_own_template(template):
    chat = chat_of(template, "bytes")
    stock = (TRL_TEMPLATES / f"{STOCK[template]}.jinja").read_text()
    for messages in (turns("Hi", PLAIN, "x"), turns("Hi", PLAIN, "a b", "Oh.\nYes", "y")):
        ours = chat.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        theirs = chat.tokenizer.apply_chat_template(
            messages, tokenize=False, chat_template=stock, add_generation_prompt=True
        )
        assert ours == theirs


@pytest.mark.parametrize("template", TEMPLATES)
def test_goldens(template):
    assert json.loads(golden_path(template).read_text()) == chat_golden(template)


def test_each_template_that_trl_ships_holds_the_properties_or_is_refused_by_name():
    recorded = json.loads((golden_path("chatml").parent / "trl_templates.json").read_text())
    found = trl_golden()
    assert found == recorded
    assert all(verdict == "holds" or name in verdict for name, verdict in found.items())
