import argparse
import json
import subprocess
import sys

import pytest

from alignment.commands import chat
from alignment.errors import ArtifactError, RecipeError
from alignment.measure.generation import generate_batch

PAD, STOP, UNSAID = 0, 1, 47
TEMPLATE = "{% for m in messages %}{{ 'w40 ' if m.role == 'user' else 'w41 ' }}{{ m.content }} {% endfor %}w42"


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    chat.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def run_folder(make_causal, tokenizer, tmp_path):
    model = make_causal()
    model.generation_config.eos_token_id = [STOP, UNSAID]
    final = tmp_path / "run" / "final"
    model.save_pretrained(final)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(final)
    tokenizer.chat_template = None
    (tmp_path / "run" / "recipe.yaml").write_text("stage: sft\n")
    return tmp_path / "run"


def expect(model, tokenizer, prompt: list[int]) -> str:
    return generate_batch(model, tokenizer, [prompt], (STOP, UNSAID), PAD, 6, 1)[0].text.strip()


def test_a_prompt_prints_the_answer_only(run_folder, make_causal, tokenizer, capsys):
    assert chat.run(parse(str(run_folder), "--prompt", "w5 w6", "--max_new_tokens", "6")) == 0
    assert capsys.readouterr().out == expect(make_causal(), tokenizer, [40, 5, 6, 42]) + "\n"


def test_every_saved_stop_id_ends_an_answer(run_folder, make_causal, tokenizer, capsys):
    free = generate_batch(make_causal(), tokenizer, [[40, 5, 42]], (), PAD, 6, 1)[0].ids
    stop = next(token for token in free if token != free[0])
    config = run_folder / "final" / "generation_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": [STOP, stop]}))
    chat.run(parse(str(run_folder), "--prompt", "w5", "--max_new_tokens", "6"))
    assert capsys.readouterr().out.strip() == tokenizer.decode(free[: free.index(stop)])


def test_the_system_message_comes_first(run_folder, make_causal, tokenizer, capsys):
    chat.run(parse(str(run_folder / "final"), "--prompt", "w5", "--system", "w9", "--max_new_tokens", "6"))
    assert capsys.readouterr().out.strip() == expect(make_causal(), tokenizer, [41, 9, 40, 5, 42])


def test_a_conversation_streams_and_remembers(run_folder, make_causal, tokenizer, capsys, monkeypatch):
    lines = iter(["w5", "", "w6", "/new", "w5", "/exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    chat.run(parse(str(run_folder), "--max_new_tokens", "6"))
    first = expect(make_causal(), tokenizer, [40, 5, 42])
    second = expect(make_causal(), tokenizer, [40, 5, 41, *tokenizer(first).input_ids, 40, 6, 42])
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[1:]] == [first, second, first]


def test_a_conversation_too_long_for_the_model_says_so_and_goes_on(run_folder, capsys, monkeypatch):
    lines = iter([" ".join(["w5"] * 70), "/exit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    chat.run(parse(str(run_folder)))
    assert "72 tokens" in capsys.readouterr().out


def test_a_model_without_a_template_continues_the_text(make_causal, tokenizer, tmp_path, capsys):
    make_causal().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    chat.run(parse(str(tmp_path), "--prompt", "w5 w6", "--max_new_tokens", "6"))
    said = generate_batch(make_causal(), tokenizer, [[5, 6]], (STOP,), PAD, 6, 1)[0].text.strip()
    assert capsys.readouterr().out.strip() == said
    with pytest.raises(RecipeError, match="has no chat template"):
        chat.run(parse(str(tmp_path), "--prompt", "w5", "--system", "w9"))


def test_an_adapter_is_loaded_with_its_base(make_causal, tokenizer, tmp_path, capsys):
    from peft import LoraConfig, get_peft_model

    make_causal().save_pretrained(tmp_path / "base")
    base = make_causal()
    base.name_or_path = str(tmp_path / "base")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "run" / "final")
    tokenizer.save_pretrained(tmp_path / "run" / "final")
    chat.run(parse(str(tmp_path / "run"), "--prompt", "w5 w6", "--max_new_tokens", "6"))
    said = generate_batch(adapted, tokenizer, [[5, 6]], (STOP,), PAD, 6, 1)[0].text.strip()
    assert capsys.readouterr().out.strip() == said


def test_folders_without_a_finished_model_are_refused(run_folder, tmp_path):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text("stage: sft\n")
    with pytest.raises(
        ArtifactError, match=r"unfinished: found no finished model in .*final; .* An unfinished run goes on"
    ):
        chat.run(parse(str(unfinished), "--prompt", "w5"))
    with pytest.raises(ArtifactError, match="runs/none/sft: no such folder"):
        chat.run(parse("runs/none/sft", "--prompt", "w5"))
    config = run_folder / "final" / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"architectures": ["LlamaForSequenceClassification"]})
    )
    with pytest.raises(RecipeError, match="a reward model"):
        chat.run(parse(str(run_folder), "--prompt", "w5"))


@pytest.mark.parametrize(("option", "value"), [("--max_new_tokens", "0"), ("--temperature", "-1")])
def test_impossible_options_are_refused_before_anything_is_loaded(option, value):
    with pytest.raises(RecipeError, match=option):
        chat.run(parse("nowhere", option, value))


def test_importing_the_command_imports_no_torch():
    code = "import sys, alignment.commands.chat; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
