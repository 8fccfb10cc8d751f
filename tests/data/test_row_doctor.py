"""Rows and files that must not be trained on, each refused or dropped under its own reason, with file and line."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from chat_tokenizers import make_tokenizer

from alignment.data import bounded, template_limits
from alignment.data.chat import load_chat
from alignment.data.prepare import prepare
from alignment.data.preview import find_data_findings
from alignment.errors import DataError, RecipeError
from alignment.recipe.loader import load_recipe
from alignment.recipe.model_spec import ChatSpec

RECIPE = """stage: {stage}
model:
  path: unused
chat:
  template: chatml
{chat}data:
  max_length: {max_length}
  on_too_long: {on_too_long}
  on_bad_row: {on_bad_row}
  train:
    - path: {file}
      format: {format}
train:
  max_steps: 1
  learning_rate: 1e-3
{more}"""
GOOD = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "Paris."}]


def prepared(tmp_path: Path, rows: list | None, **keys):
    stage = "dpo" if keys.get("format") == "preference" else "sft"
    values = {
        "stage": stage, "file": "rows.jsonl", "format": "messages", "max_length": 200, "on_too_long": "drop",
        "on_bad_row": "error", "chat": "", "more": "dpo:\n  reference: start\n" if stage == "dpo" else "",
    } | keys  # fmt: skip
    if rows is not None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "r.yaml").write_text(RECIPE.format(**values))
    tokenizer = make_tokenizer("chatml", "bytes")
    return prepare(load_recipe(tmp_path / "r.yaml"), tokenizer, recipe_dir=tmp_path, cache_dir=tmp_path / "cache")


def turns(*pairs: tuple) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def calling(**answer) -> dict:
    return {"messages": [GOOD[0], {"role": "assistant", **answer}, {"role": "tool", "content": "4"}, GOOD[1]]}


def nested(depth: int) -> list:
    return [nested(depth - 1)] if depth else []


BAD_CHATS = {
    "D1 content is null": (turns(("user", "hi"), ("assistant", None)), "content_not_text"),
    "D2 blank answer": (turns(("user", "hi"), ("assistant", " \n")), "empty_answer"),
    "D2 blank question": (turns(("user", ""), ("assistant", "yes")), "empty_question"),
    "D3 no messages": ({"messages": []}, "no_messages"),
    "D4 assistant first": (turns(("assistant", "hi"), ("user", "a"), ("assistant", "b")), "assistant_first"),
    "D4 no answer": (
        turns(
            ("user", "hi"),
        ),
        "no_assistant_turn",
    ),
    "D4 ends with a question": (turns(("user", "a"), ("assistant", "b"), ("user", "c")), "ends_without_answer"),
    "D5 unknown role": (turns(("usr", "hi"), ("assistant", "b")), "unknown_role"),
    "D6 number as content": (turns(("user", 5), ("assistant", "b")), "content_not_text"),
    "D7 control token": (turns(("user", "<|im_end|>\n<|im_start|>assistant"), ("assistant", "b")), "control_token"),
    "D8 nothing left to train on": (turns(("user", "word " * 300), ("assistant", "b")), "no_trained_token"),
    "D12 a list among texts": ({"messages": ["a", 5, None]}, "not_a_message"),
    "half a surrogate pair": (turns(("user", "a\ud800b"), ("assistant", "c")), "not_utf8"),
    "half a pair in a column that is not read": ({"messages": GOOD, "note": {"\udfff": 1}}, "not_utf8"),
    "half a pair in the name of a column": ({"messages": GOOD, "\udfff": 1}, "not_utf8"),
    "half a pair that JSON in JSON spells": ({"messages": GOOD, "tools": '[{"name": "\\ud800"}]'}, "not_utf8"),
    "nesting without end": ({"messages": GOOD, "tools": nested(900)}, "nested_too_deep"),
    "nesting without end in JSON": ({"messages": GOOD, "tools": "[" * 100_000}, "bad_json"),
    "calls that are text": (calling(tool_calls="add"), "bad_tool_call"),
    "calls that are numbers": (calling(tool_calls=[3]), "bad_tool_call"),
    "a call of a number": (calling(tool_calls=[{"function": 3}]), "bad_tool_call"),
    "a call without a name": (calling(tool_calls=[{"function": {"arguments": {}}}]), "bad_tool_call"),
    "tools that are numbers": ({"messages": GOOD, "tools": [{"function": 3}]}, "bad_tools"),
    "a tool named by a number": ({"messages": GOOD, "tools": [{"name": 3}]}, "bad_tools"),
    "reasoning that is an object": (calling(content="b", reasoning_content={"text": "hm"}), "content_not_text"),
    "half a weight": (calling(content="b", weight=0.5), "bad_weight"),
}


def said(*texts: str) -> list[dict]:
    """Turns of U(ser), A(ssistant) and T(ool): the first letter says whose."""
    roles = {"U": "user", "A": "assistant", "T": "tool"}
    return [{"role": roles[text[0]], "content": text} for text in texts]


BAD_PAIRS = {
    "a user in a completion": (
        {"prompt": "a", "chosen": said("A one", "U two", "A three"), "rejected": said("A bad")},
        "not_one_answer",
    ),
    "a user in a completion of whole conversations": (
        {"chosen": said("U a", "A one", "U two", "A three"), "rejected": said("U a", "A bad")},
        "not_one_answer",
    ),
    "a tool's result in a completion": (
        {"prompt": "a", "chosen": "b", "rejected": said("A one", "T two", "A three")},
        "not_one_answer",
    ),
    "a tool's result in a completion of whole conversations": (
        {"chosen": said("U a", "A good"), "rejected": said("U a", "A one", "T two", "A three")},
        "not_one_answer",
    ),
    "two answers, with a header between them": (
        {"prompt": "a", "chosen": said("A one", "A two"), "rejected": "b"},
        "not_one_answer",
    ),
    "a user as completion": ({"prompt": "a", "chosen": said("A one"), "rejected": said("U two")}, "not_one_answer"),
    "a completion that does not count": (
        {"prompt": "a", "chosen": "b", "rejected": [{"role": "assistant", "content": "c", "weight": 0}]},
        "bad_weight",
    ),
    "half a surrogate pair": ({"prompt": "a", "chosen": "b", "rejected": "c\ud800"}, "not_utf8"),
    "D9 the same twice": ({"prompt": "a", "chosen": "b", "rejected": "b"}, "identical_pair"),
    "D9 null": ({"prompt": "a", "chosen": "b", "rejected": None}, "content_not_text"),
    "D9 missing": ({"prompt": "a", "chosen": "b"}, "missing_column"),
    "D9 blank": ({"prompt": "a", "chosen": "b", "rejected": " "}, "empty_answer"),
    "D8 the difference is cut off": (
        {"prompt": "a", "chosen": "word " * 300 + "x", "rejected": "word " * 300 + "y"},
        "difference_cut_off",
    ),
}


@pytest.mark.parametrize(("row", "reason"), BAD_CHATS.values(), ids=BAD_CHATS)
def test_a_bad_conversation_is_refused_by_line_or_dropped_and_counted(tmp_path: Path, row: dict, reason: str) -> None:
    rows = [{"messages": GOOD}, row, {"messages": GOOD}]
    if reason != "no_trained_token":  # which is always dropped: only encoding can tell
        with pytest.raises(DataError, match=rf"rows\.jsonl:2\b.*1 of 3 rows: {reason}"):
            prepared(tmp_path, rows, on_too_long="truncate")
    kept = prepared(tmp_path, rows, on_bad_row="drop", on_too_long="truncate")
    assert kept.manifest["mix"][0]["dropped"] == {reason: 1}
    assert len(kept.train) == 2
    assert any(f"1 of 3 rows dropped: {reason}. First: rows.jsonl:2" in said for said in find_data_findings(kept))


@pytest.mark.parametrize(("row", "reason"), BAD_PAIRS.values(), ids=BAD_PAIRS)
def test_a_bad_pair_is_refused_by_line_or_dropped_and_counted(tmp_path: Path, row: dict, reason: str) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, row]
    if reason != "difference_cut_off":
        with pytest.raises(DataError, match=rf"rows\.jsonl:2\b.*1 of 2 rows: {reason}"):
            prepared(tmp_path, rows, format="preference")
    kept = prepared(tmp_path, rows, format="preference", on_bad_row="drop", on_too_long="truncate")
    assert kept.manifest["mix"][0]["dropped"] == {reason: 1}


def test_turns_before_the_last_answer_belong_to_the_prompt_and_are_not_trained(tmp_path: Path) -> None:
    """The pairs that `not_one_answer` refuses, as they should be written: either way, only the last answer is trained."""
    shared = said("U a", "A one", "U two")
    rows = [
        {"prompt": shared, "chosen": said("A three"), "rejected": said("A bad")},
        {"chosen": [*shared, *said("A three")], "rejected": [*shared, *said("A bad")]},
    ]
    tokenizer = make_tokenizer("chatml", "bytes")
    for row in prepared(tmp_path, rows, format="preference").train:
        assert tokenizer.decode(row["chosen_ids"]) == "A three<|im_end|>"
        assert tokenizer.decode(row["rejected_ids"]) == "A bad<|im_end|>"


@pytest.mark.parametrize("format_", ["messages", "sharegpt"])
def test_a_turn_of_weight_0_is_read_and_not_trained(tmp_path: Path, format_: str) -> None:
    """As OpenAI writes it. A user's weight says nothing: no user is trained on."""
    turns_ = said("U a", "A one", "U b", "A two", "U c", "A three")
    for turn, weight in zip(turns_, (0, 0, 1, 1, None, None), strict=True):
        turn["weight"] = weight
    row = {"messages": turns_}
    if format_ == "sharegpt":
        keys = {"role": "from", "content": "value", "weight": "weight"}
        row = {"conversations": [{keys[key]: value for key, value in turn.items()} for turn in turns_]}
    kept = prepared(tmp_path, [row], format=format_).train[0]
    trained = [label for label in kept["labels"] if label != -100]
    tokenizer = make_tokenizer("chatml", "bytes")
    assert tokenizer.decode(trained) == "A two<|im_end|>A three<|im_end|>"
    assert "A one" in tokenizer.decode(kept["input_ids"])


def test_d5_converted_roles_are_said(tmp_path: Path) -> None:
    row = {"messages": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "Paris."}]}
    findings = list(find_data_findings(prepared(tmp_path, [row, {"messages": GOOD}])))
    assert any("1 of 2 rows have from/value messages" in said and "rows.jsonl:1" in said for said in findings)


def test_d7_control_tokens_become_text_when_that_is_asked(tmp_path: Path) -> None:
    row = turns(("user", "What does <|im_end|> do?"), ("assistant", "It ends."))
    kept = prepared(tmp_path, [row], chat="  control_tokens: escape\n")
    end = make_tokenizer("chatml", "bytes").convert_tokens_to_ids("<|im_end|>")
    assert kept.train[0]["input_ids"].count(end) == 2  # one for each turn, none for the text


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.txt"])
def test_d10_a_file_without_rows_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[]" if name.endswith(".json") else "")
    with pytest.raises(DataError, match=rf"{name}: found no rows"):
        prepared(tmp_path, None, file=name)


def test_d11_a_broken_line_and_a_strange_byte_are_named(tmp_path: Path) -> None:
    good = json.dumps({"messages": GOOD})
    (tmp_path / "rows.jsonl").write_text(f'{good}\n{{"messages": [\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: .* at column"):
        prepared(tmp_path, None)
    (tmp_path / "rows.jsonl").write_bytes(f"{good}\n".encode() + '{"messages": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"rows\.jsonl:2: found byte 0xe9, which is not UTF-8"):
        prepared(tmp_path, None)


def test_d13_a_file_that_unpacks_into_far_more_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "FREE_BYTES", 2**20)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b"x" * 2**26))  # 65 kB
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz: 6\d+ bytes unpack into (\d+) or more") as caught:
        prepared(tmp_path, None, file="rows.jsonl.gz")
    unpacked = int(str(caught.value).split("unpack into ")[1].split()[0])
    assert unpacked < 2**24  # far from all of it
    table = pa.table({"text": ["x" * 1000] * 20_000})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet", use_dictionary=False, compression="zstd")
    with pytest.raises(DataError, match=r"rows\.parquet: .* unpack into"):
        prepared(tmp_path, None, file="rows.parquet")


def test_d13_an_ordinary_packed_file_a_cut_one_and_a_zip(tmp_path: Path) -> None:
    packed = gzip.compress((json.dumps({"messages": GOOD}) + "\n").encode())
    (tmp_path / "rows.jsonl.gz").write_bytes(packed)
    assert len(prepared(tmp_path, None, file="rows.jsonl.gz").train) == 1
    (tmp_path / "rows.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(DataError, match="a whole gzip file was expected"):
        prepared(tmp_path, None, file="rows.jsonl.gz")
    (tmp_path / "rows.jsonl.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="not a data file"):
        prepared(tmp_path, None, file="./rows.jsonl.zip")


@pytest.mark.parametrize(("raw", "said"), [(b"", "size is 0 bytes"), (b"PAR1" + b"\x07" * 99, "Parquet magic")])
def test_a_parquet_file_that_is_none_is_refused_by_name(tmp_path: Path, raw: bytes, said: str) -> None:
    (tmp_path / "rows.parquet").write_bytes(raw)
    with pytest.raises(DataError, match=rf"rows\.parquet: .*{said}.*; a whole parquet file was expected"):
        prepared(tmp_path, None, file="rows.parquet")


def test_parquet_inside_gzip_is_refused_by_name(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "rows.parquet")
    (tmp_path / "rows.parquet.gz").write_bytes(gzip.compress((tmp_path / "rows.parquet").read_bytes()))
    with pytest.raises(DataError, match=r"rows\.parquet\.gz: found parquet inside gzip"):
        prepared(tmp_path, None, file="rows.parquet.gz")


@pytest.mark.parametrize(("pattern", "said"), [("/etc/x", "found '/etc/x'"), ("", "found ''"), ("*.csv", "nothing in")])
def test_a_pattern_of_data_files_stays_in_its_folder(tmp_path: Path, pattern: str, said: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/rows.jsonl").write_text(json.dumps({"messages": GOOD}))
    with pytest.raises(DataError, match=rf"\./set: data_files: {said}.* Correct the pattern"):
        prepared(tmp_path, None, file=f"./set\n      data_files: ['{pattern}']")


def test_a_role_that_does_not_exist_is_refused_before_any_row_is_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="roles: 'human' is mapped to 'usr'; one of system, developer, user"):
        prepared(tmp_path, [{"messages": GOOD}], format="messages\n      roles: {human: usr}")


def test_d13_one_endless_line_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MAX_LINE_BYTES", 1000)
    (tmp_path / "rows.jsonl").write_text("{}\n" + json.dumps({"messages": "x" * 2000}))
    with pytest.raises(DataError, match=r"rows\.jsonl:2: found a line of 20\d\d bytes; at most 1000"):
        prepared(tmp_path, None)


def test_x3_a_dataset_script_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/set.py").write_text("open('ran', 'w')\nraise SystemExit")
    with pytest.raises(DataError, match="found no data files"):
        prepared(tmp_path, None, file="./set")
    assert not Path("ran").exists()


ATTACKS = {
    "endless loop": (
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
        r"evil\.jinja needs more than 0\.7 s",
    ),
    "a gigabyte": ("{{ 'x' * 10 ** 9 }}", r"evil\.jinja needs more than 512 MiB"),
    "all of Python": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "does not hold what training needs|refuses"),
}


@pytest.mark.parametrize(("template", "said"), ATTACKS.values(), ids=ATTACKS)
def test_x4_a_template_that_attacks_is_stopped(
    tmp_path: Path, template: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "range" in template:
        monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.7)
    (tmp_path / "evil.jinja").write_text(template)
    with pytest.raises(DataError, match=said):
        load_chat(make_tokenizer("chatml", "bytes"), ChatSpec(template="evil.jinja"), tmp_path)


# ------------------------------------------------------------------------------------------------ what rows say together


def pair(prompt: str, chosen: str, rejected: str) -> dict:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def findings_of(tmp_path: Path, rows: list[dict]) -> dict[str, dict]:
    done = prepared(tmp_path, rows, format="preference", max_length=2000)
    return {found["kind"]: found for found in done.manifest["doctor"]}


def test_near_identical_pairs_are_counted(tmp_path: Path) -> None:
    """29 of 30 words shared is 29/31 = 0.935, below 0.95; 60 of 61 is 60/62 = 0.968."""
    words = [f"w{number}" for number in range(61)]
    near = pair("a", " ".join(words), " ".join([*words[:60], "other"]))
    far = pair("b", " ".join(words[:30]), " ".join([*words[:29], "other"]))
    found = findings_of(tmp_path, [near, far])["near_identical_pair"]
    assert (found["rows"], found["of"], found["examples"]) == (1, 2, ["rows.jsonl:1"])


def test_a_chosen_side_that_is_mostly_longer_is_said(tmp_path: Path) -> None:
    rows = [pair(f"p{n}", "a long answer " * 3, f"no {n}") for n in range(8)]
    rows += [pair(f"q{n}", f"no {n}", "a long answer " * 3) for n in range(2)]
    found = findings_of(tmp_path, rows)["length_bias"]
    assert (found["rows"], found["of"]) == (8, 10)
    assert "80%" in found["text"]
    rows = [pair(f"p{n}", f"yes {n}", f"nay {n}") for n in range(10)]
    assert "length_bias" not in findings_of(tmp_path, rows)


def test_labels_that_contradict_each_other_are_said(tmp_path: Path) -> None:
    rows = [pair("p", "yes", "no"), pair("q", "yes", "no"), pair("P ", "No", "yes")]
    found = findings_of(tmp_path, rows)["label_conflict"]
    assert found["rows"] == 2  # each of the two rejects what the other prefers
    assert found["examples"][0] == "rows.jsonl:1 against rows.jsonl:3"


def test_one_prompt_with_several_answers_is_said(tmp_path: Path) -> None:
    rows = [turns(("user", "a"), ("assistant", answer)) for answer in ("x", "y")] + [{"messages": GOOD}]
    found = prepared(tmp_path, rows).manifest["doctor"]
    assert [(one["kind"], one["rows"], one["of"]) for one in found] == [("several_answers", 2, 3)]
