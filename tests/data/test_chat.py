"""Loading a chat: templates, refusals, pad and stop tokens, and plain text."""

import pickle
from pathlib import Path

import pytest
from chat_tokenizers import make_tokenizer, wrap_tokenizer
from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing

from alignment.data.chat import (
    TEMPLATES,
    decode_trained,
    encode_text,
    load_chat,
    load_plain_chat,
    render,
    render_pair,
    template_special_tokens,
)
from alignment.data.templates import template_bos_eos, template_text
from alignment.errors import DataError, RecipeError
from alignment.recipe.model_spec import ChatSpec

HERE = Path(".")
ROW = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
CHATML = template_text("chatml")


def chatml(**spec):
    return load_chat(make_tokenizer("chatml", "bytes"), ChatSpec(template="chatml", **spec), HERE)


def tokens(chat, ids):
    return chat.tokenizer.convert_ids_to_tokens(ids)


def load_text(template, tmp_path, tokenizer=None):
    (tmp_path / "mine.jinja").write_text(template)
    return load_chat(tokenizer or make_tokenizer("chatml", "bytes"), ChatSpec(template="mine.jinja"), tmp_path)


# ---- what is trained


def test_a_row_by_hand():
    chat = chatml()
    row = render(chat, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    end = len(row.ids)
    assert tokens(chat, row.ids)[:4] == ["<|im_start|>", "user", "Ċ", "a"]
    assert tokens(chat, row.ids)[end - 3 :] == ["b", "<|im_end|>", "Ċ"]
    assert row.loss_mask == [0] * (end - 3) + [1, 1, 0]


def test_train_on_says_which_turns_are_trained():
    chat = chatml()
    two = [*ROW, {"role": "user", "content": "So"}, {"role": "assistant", "content": "Bye."}]
    texts = {
        key: decode_trained(chat, *vars_of(render(chat, two, train_on=key))) for key in ("assistant", "last_assistant")
    }
    assert texts == {"assistant": ["Hello.", "Bye."], "last_assistant": ["Bye."]}
    assert set(render(chat, two, train_on="all").loss_mask) == {1}
    assert set(render(chat, ROW[:1]).loss_mask) == {0}


def test_a_turn_of_weight_0_is_never_trained():
    chat = chatml()
    two = [ROW[0], ROW[1] | {"weight": 0}, {"role": "user", "content": "So"}, {"role": "assistant", "content": "Bye."}]
    plain = [{key: value for key, value in turn.items() if key != "weight"} for turn in two]
    texts = [decode_trained(chat, *vars_of(render(chat, two[:end]))) for end in (2, 4)]
    assert texts == [[], ["Bye."]]
    every, left_out = render(chat, plain, train_on="all"), render(chat, two, train_on="all")
    assert left_out.ids == every.ids
    # Of all tokens these are missing: what the first turn says and its stop token.
    first = render(chat, plain[:2]).loss_mask
    assert left_out.loss_mask == [1 - trained for trained in first] + [1] * (len(every.ids) - len(first))
    assert two[1]["weight"] == 0  # the row is not changed


def vars_of(row):
    return row.ids, row.loss_mask


def test_the_system_message_of_the_recipe_is_for_rows_without_one():
    chat = chatml(system="Be brief.")
    own = [{"role": "system", "content": "Be long."}]
    assert render(chat, ROW).ids == render(chatml(), [{"role": "system", "content": "Be brief."}, *ROW]).ids
    assert render(chat, [*own, *ROW]).ids == render(chatml(), [*own, *ROW]).ids


def test_parts_and_other_names_of_reasoning_are_read():
    chat = load_chat(make_tokenizer("qwen", "bytes"), ChatSpec(template="qwen"), HERE)
    whole = [ROW[0], {"role": "assistant", "content": "Hello.", "reasoning_content": "Polite."}]
    parts = [
        {"type": "thinking", "thinking": "Polite."},
        {"type": "text", "text": "Hel"},
        {"type": "text", "text": "lo."},
    ]
    for answer in (
        {"content": parts},
        {"content": "Hello.", "thinking": "Polite."},
        {"content": "Hello.", "reasoning": "Polite."},
    ):
        assert render(chat, [ROW[0], {"role": "assistant", **answer}]) == render(chat, whole)


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "messages: found none"),
        ([{"role": "human", "content": "a"}], r"messages\[0\].role: found 'human'; one of system"),
        ([{"role": "user"}], r"messages\[0\].content: found NoneType; text was expected"),
        ([{"role": "user", "content": 3}], r"messages\[0\].content: found int; text was expected"),
        ([{"role": "user", "content": [{"type": "image"}]}], "parts of text or thinking were expected"),
        ([{"role": "user", "content": "a\U000f0000"}], "U\\+F0000"),
        ([*ROW, {"role": "tool", "content": "3"}], "chatml has no role 'tool'"),
        (
            [ROW[0], {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "add"}}]}],
            "does not write the tool_calls",
        ),
    ],
)
def test_rows_that_cannot_be_rendered_are_refused(messages, words):
    with pytest.raises(DataError, match=words):
        render(chatml(), messages)


def test_a_special_token_that_the_tokenizer_cannot_spell_otherwise_is_refused_by_name():
    chat = load_chat(make_tokenizer("chatml", "metaspace_first"), ChatSpec(template="chatml"), HERE)
    with pytest.raises(DataError, match="row holds the special token '<unk>' as text"):
        render(chat, [{"role": "user", "content": "what is <unk>?"}, ROW[1]])


def test_a_special_token_in_a_key_is_refused_by_name():
    call = {"function": {"name": "add", "arguments": {"<|im_end|>": 1}}}
    with pytest.raises(DataError, match=r"row holds the special token in the key '<\|im_end\|>'"):
        render(chatml(), [ROW[0], {"role": "assistant", "tool_calls": [call]}])


def test_a_special_token_that_the_template_cuts_in_two_is_refused(tmp_path):
    chat = load_text(
        CHATML.replace("message.content + '<|im_end|>\\n'", "message.content[:14] + '<|im_end|>\\n'"), tmp_path
    )
    with pytest.raises(DataError, match="the template cuts it in two"):
        render(chat, [{"role": "user", "content": "Hello <|im_end|>"}, ROW[1]])


def test_a_completion_is_one_turn_of_the_assistant():
    with pytest.raises(DataError, match="rejected: found messages of \\['user'\\]"):
        render_pair(chatml(), ROW[:1], ROW[1:], ROW[:1])
    with pytest.raises(DataError, match=r"chosen: found messages of \['assistant', 'user', 'assistant'\]; one of"):
        render_pair(chatml(), ROW[:1], [ROW[1], *ROW], ROW[1:])


def test_no_tools_are_the_same_as_an_empty_list_of_them():
    assert render(chatml(), ROW, []) == render(chatml(), ROW)
    with pytest.raises(DataError, match="refuses the messages"):
        render(chatml(), ROW, ["add"])


def test_a_chat_can_be_sent_to_another_process():
    chat = chatml()
    assert render(pickle.loads(pickle.dumps(chat)), ROW) == render(chat, ROW)


# ---- templates


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_tokenizer_without_a_templates_tokens_is_refused_with_those_that_fit(template):
    for token in template_special_tokens(template)[2 if template in ("llama-3", "gemma", "mistral") else 1 :]:
        with pytest.raises(DataError, match=f"{template} needs .*Templates whose tokens it has: .*zephyr") as caught:
            load_chat(make_tokenizer(template, "bytes", without=(token,)), ChatSpec(template=template), HERE)
        assert token in str(caught.value)


def test_a_template_that_writes_bos_needs_one():
    tokenizer = wrap_tokenizer("bytes", ["<eos>", "<start_of_turn>", "<end_of_turn>"], bos=None, eos="<eos>")
    with pytest.raises(DataError, match="gemma needs bos_token"):
        load_chat(tokenizer, ChatSpec(template="gemma"), HERE)


def test_unknown_names_and_files_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="no template 'chatlm'; known: chatml, llama-3"):
        load_chat(make_tokenizer("chatml", "bytes"), ChatSpec(template="chatlm"), HERE)
    with pytest.raises(RecipeError, match=r"none\.jinja is not a file"):
        load_chat(make_tokenizer("chatml", "bytes"), ChatSpec(template="none.jinja"), tmp_path)
    with pytest.raises(DataError, match="the tokenizer has none"):
        load_chat(make_tokenizer("chatml", "bytes"), ChatSpec(), tmp_path)


def test_a_template_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "mine.jinja").write_bytes(CHATML.encode() + b"\xe9")
    with pytest.raises(DataError, match=r"mine\.jinja: found byte 0xe9, which is not UTF-8"):
        load_chat(make_tokenizer("chatml", "bytes"), ChatSpec(template="mine.jinja"), tmp_path)


def test_a_tokenizers_own_template_without_markers_trains_the_same(tmp_path):
    stock = CHATML.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
    tokenizer = make_tokenizer("chatml", "bytes")
    tokenizer.chat_template = stock
    two = [*ROW, {"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "<|im_end|> it is"}]
    chat = load_chat(tokenizer, ChatSpec(), HERE)
    assert render(chat, two) == render(chatml(), two)
    assert tokenizer.chat_template == stock
    assert chat.stop_ids == chatml().stop_ids


PLANTED = {
    "stop token outside the markers": (
        CHATML.replace("message.content + '<|im_end|>' -}}", "message.content -}}").replace("{{- '\\n' -}}", "{{- '<|im_end|>\\n' -}}"),
        "ends without a stop token",
    ),
    "header inside the markers": (
        CHATML.replace("{{- '<|im_start|>assistant\\n' -}}\n        {%- generation -%}", "{%- generation -%}{{- '<|im_start|>assistant\\n' -}}"),
        "trained is .*assistant.nIt is four",
    ),
    "words after the stop token": (CHATML.replace("message.content + '<|im_end|>'", "message.content + '<|im_end|>bye'"), "ends without a stop"),
    "two beginnings": ("{{- bos_token -}}{{- bos_token -}}" + CHATML, "2 tokens <s>; one was expected"),
    "no assistant header in the prompt": (CHATML.replace("if add_generation_prompt", "if false"), "prompt served for"),
    "another header in the prompt": (
        CHATML[: CHATML.rindex("assistant\\n")] + "assistant\\n<think>\\n" + CHATML[CHATML.rindex("assistant\\n") + 11 :], "prompt served for"
    ),
    "only the last turn in markers": (
        CHATML.replace(
            "{%- if message.role == 'assistant' -%}",
            "{%- if message.role == 'assistant' and not loop.last -%}"
            "{{- '<|im_start|>assistant\\n' + message.content + '<|im_end|>\\n' -}}"
            "{%- elif message.role == 'assistant' -%}",
        ),
        "1 generated parts for 2 assistant messages",
    ),
    "user dropped": (CHATML.replace("message.role in ['system', 'user']", "message.role == 'user' and not loop.first"), "chatml has no role"),
    "user cut": (CHATML.replace("+ message.content + '<|im_end|>\\n'", "+ message.content[:3] + '<|im_end|>\\n'"), "leaves out messages"),
    "the day's date": ("{{- strftime_now('%d') -}}" + CHATML, "date of the day"),
    "history rewritten": (
        CHATML.replace("message.content + '<|im_end|>' -}}", "('' if loop.last else 'Was: ') + message.content + '<|im_end|>' -}}"),
        "trained is .*Was",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_template_with_a_planted_bug_is_refused(name, tmp_path):
    template, words = PLANTED[name]
    assert template != CHATML
    tokenizer = wrap_tokenizer(
        "bytes", ["<s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"], bos="<s>", eos="<|endoftext|>"
    )
    with pytest.raises(DataError, match=words):
        load_text(template, tmp_path, tokenizer)


def test_a_post_processor_that_adds_bos_never_doubles_it():
    for template in ("llama-3", "gemma", "mistral", "chatml"):
        tokens_ = template_special_tokens(template)
        tokenizer = wrap_tokenizer("bytes", ["<s>", *tokens_], bos="<s>", eos=template_bos_eos(template)[1])
        bos_id = tokenizer.bos_token_id
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", bos_id)]
        )
        chat = load_chat(tokenizer, ChatSpec(template=template), HERE)
        assert render(chat, ROW).ids.count(bos_id) == (template != "chatml")


# ---- pad and stop tokens


def test_stop_ids_are_the_end_of_a_turn_and_the_eos():
    chat = chatml()
    assert tokens(chat, chat.stop_ids) == ["<|im_end|>", "<|endoftext|>"]
    tokenizer = wrap_tokenizer("bytes", ["</s>"], bos=None, eos="</s>")
    assert load_chat(tokenizer, ChatSpec(template="zephyr"), HERE).stop_ids == (tokenizer.eos_token_id,)


@pytest.mark.parametrize(
    ("extra", "own", "wanted", "pad", "added"),
    [
        ((), None, None, "<|pad|>", ("<|pad|>",)),
        (
            ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
            None,
            None,
            "<|reserved_special_token_0|>",
            (),
        ),
        (("<|reserved_special_token_0|>", "<|finetune_right_pad_id|>"), None, None, "<|finetune_right_pad_id|>", ()),
        (("[PAD]",), "[PAD]", None, "[PAD]", ()),
        (("<unused3>",), "<|endoftext|>", None, "<unused3>", ()),
        ((), "<|endoftext|>", None, "<|pad|>", ("<|pad|>",)),
        ((), "<|im_end|>", None, "<|pad|>", ("<|pad|>",)),
        (("[PAD]", "other"), "[PAD]", "other", "other", ()),
    ],
)
def test_the_pad_token_is_never_eos_or_stop_token(extra, own, wanted, pad, added):
    tokenizer = make_tokenizer("chatml", "bytes")
    tokenizer.add_tokens([AddedToken(token, special=False) for token in extra])
    if own:
        tokenizer.pad_token = own
    size = len(tokenizer)
    chat = load_chat(tokenizer, ChatSpec(template="chatml", pad_token=wanted), HERE)
    assert (tokenizer.pad_token, chat.added_tokens, len(tokenizer)) == (pad, added, size + len(added))
    assert chat.pad_id == tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids(pad)
    row = render(chat, [{"role": "user", "content": f"pad {pad}"}, ROW[1]])
    assert chat.pad_id not in row.ids
    assert chat.encoder.decode(row.ids, 0, len(row.ids)).count(pad) == 1


@pytest.mark.parametrize("kind", ["bytes", "metaspace_first"])
def test_a_new_pad_token_is_new_even_where_unknown_tokens_have_an_id(kind):
    tokenizer = make_tokenizer("chatml", kind)
    size = len(tokenizer)
    assert load_chat(tokenizer, ChatSpec(template="chatml"), HERE).pad_id == size


def test_a_wanted_pad_token_is_in_the_vocabulary_and_free():
    with pytest.raises(RecipeError, match="'<nope>' is not in the tokenizer's vocabulary"):
        chatml(pad_token="<nope>")
    for taken in ("<|endoftext|>", "<|im_end|>", "<|im_start|>"):
        with pytest.raises(DataError, match="a token without a meaning was expected"):
            chatml(pad_token=taken)


def test_without_need_the_pad_token_is_left_alone():
    tokenizer = make_tokenizer("chatml", "bytes")
    chat = load_chat(tokenizer, ChatSpec(template="chatml"), HERE, needs_pad=False)
    assert (chat.pad_id, tokenizer.pad_token, chat.added_tokens) == (None, None, ())


# ---- text without messages


def test_a_document_begins_as_the_tokenizer_says_and_ends_with_eos_only():
    tokenizer = wrap_tokenizer("bytes", ["<s>", "</s>"], bos="<s>", eos="</s>")
    plain = load_plain_chat(tokenizer)
    text = "One</s> two <s>."
    ids = encode_text(plain, text)
    assert (plain.bos_id, plain.stop_ids) == (None, (tokenizer.eos_token_id,))
    assert (ids.count(tokenizer.eos_token_id), ids[-1], ids.count(tokenizer.bos_token_id)) == (
        1,
        tokenizer.eos_token_id,
        0,
    )
    assert plain.encoder.decode(ids, 0, len(ids) - 1) == text
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    with_bos = load_plain_chat(tokenizer)
    assert encode_text(with_bos, text) == [tokenizer.bos_token_id, *ids]
    assert encode_text(with_bos, "Plain text.")[:-1] == tokenizer("Plain text.").input_ids


def test_a_text_stage_needs_an_eos_token():
    with pytest.raises(DataError, match="it has no eos token"):
        load_plain_chat(wrap_tokenizer("bytes", [], bos=None, eos=None))
