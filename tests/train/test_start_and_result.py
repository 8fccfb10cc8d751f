"""Where a run starts, and what it leaves: through the worker, on real models."""

import json
import math

import pytest
import study as written
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from alignment.models.probe import make_prompts, probe, probe_gap
from alignment.train import artifacts, policy

SFT = "runs/study/sft"


def pairs(stage: str, start: str, lora: str = "", steps: int = 4, reference: str = "start") -> str:
    text = written.PAIRS.format(stage=stage, start=start, lora=lora, steps=steps)
    return text + (written.DPO.format(reference=reference) if stage == "dpo" else "")


def score(model) -> dict:
    return probe(model.eval(), make_prompts(model.config.vocab_size, model.config.max_position_embeddings))


# ------------------------------------------------------------------------------------------------ results


def test_final_is_the_base_with_its_adapter_merged(study) -> None:
    base = AutoModelForCausalLM.from_pretrained("runs/study/pretrain/final")
    final = AutoModelForCausalLM.from_pretrained(f"{SFT}/final")
    assert probe_gap(score(base), score(final)) > 1e-2
    on_base = PeftModel.from_pretrained(base, f"{SFT}/adapter")
    assert probe_gap(score(on_base), score(final)) < 1e-5


def test_final_stops_where_the_chat_stops_and_carries_its_template(study) -> None:
    tokenizer = AutoTokenizer.from_pretrained(f"{SFT}/final")
    model = AutoModelForCausalLM.from_pretrained(f"{SFT}/final")
    stop_ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.generation_config.eos_token_id == stop_ids
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    assert "{% generation %}" in tokenizer.chat_template or "{%- generation" in tokenizer.chat_template


def test_an_adapter_names_its_base_by_folder_and_hash(study) -> None:
    config = written.read_json(study / SFT / "adapter/adapter_config.json")
    assert config["base_model_name_or_path"] == "runs/study/pretrain/final"
    facts = written.read_json(study / SFT / "adapter/base.json")
    assert facts["weights_hash"] == written.read_json(study / "runs/study/pretrain/receipt.json")["weights_hash"]


def test_tied_weights_are_saved_once(study) -> None:
    from safetensors import safe_open

    with safe_open("runs/study/pretrain/final/model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118


def test_a_result_that_is_not_the_trained_model_is_refused(study, monkeypatch, capsys) -> None:
    written.write_recipe(study, "again", pairs("reward", f"{SFT}/final"))
    real = artifacts._save_whole

    def spoiled(model, folder, training, policy, state) -> None:
        name = next(name for name in state if "q_proj" in name)
        spoilt = {} if "trial" in folder.parts else {name: state[name] + 0.5}  # what is tried before step 1 is whole
        real(model, folder, training, policy, dict(state) | spoilt)

    monkeypatch.setattr(artifacts, "_save_whole", spoiled)
    assert written.run("again") == 7
    assert "scores the fixed prompts differently" in capsys.readouterr().err
    assert not (study / "runs/study/again/final").exists()
    assert (study / "runs/study/again/unverified/final").is_dir()
    assert written.read_json(study / "runs/study/again/exit.json")["code"] == 7
    monkeypatch.setattr(artifacts, "_save_whole", real)
    # The same command goes on from the last checkpoint and writes the result again.
    assert written.run("again") == 0
    model = AutoModelForSequenceClassification.from_pretrained("runs/study/again/final")
    assert model.score.weight.shape == (1, 32)


# ------------------------------------------------------------------------------------------------ starts


def test_an_adapter_that_was_dropped_on_the_way_is_caught_before_step_1(study, monkeypatch, capsys) -> None:
    """What `from_pretrained` on an adapter folder and a new adapter of the same name do without a word."""
    written.write_recipe(study, "dpo", pairs("dpo", f"{SFT}/adapter", lora=written.LORA))
    monkeypatch.setattr(policy, "merge_adapter", lambda base, adapter, dtype: base)
    assert written.run("dpo") == 7
    assert "before step 1 the fixed prompts score differently" in capsys.readouterr().err
    assert not (study / "runs/study/dpo/metrics.jsonl").exists()


@pytest.mark.parametrize("start", ["merge", "continue"])
def test_dpo_from_a_lora_run_starts_at_ln_2_and_ends_loadable(study, start: str) -> None:
    lora = written.LORA + f"  start: {start}\n"
    written.write_recipe(study, "dpo", pairs("dpo", f"{SFT}/final", lora=lora))
    assert written.run("dpo") == 0
    losses = written.read_losses(study / "runs/study/dpo")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < losses[0]
    base = written.read_json(study / "runs/study/dpo/adapter/adapter_config.json")["base_model_name_or_path"]
    assert base == ("runs/study/sft/final" if start == "merge" else "runs/study/pretrain/final")
    weights = AutoModelForCausalLM.from_pretrained(base)
    on_base = PeftModel.from_pretrained(weights, "runs/study/dpo/adapter")
    assert probe_gap(score(on_base), score(AutoModelForCausalLM.from_pretrained("runs/study/dpo/final"))) < 1e-5
    [note] = written.read_json(study / "runs/study/dpo/receipt.json")["notes"]
    assert ("merged" if start == "merge" else "trained on") in note


def test_a_run_that_keeps_only_its_adapter_is_verified_and_started_from(study) -> None:
    written.write_recipe(study, "small", pairs("reward", f"{SFT}/final", lora=written.LORA + "  save: adapter\n"))
    assert written.run("small") == 0
    final = study / "runs/study/small/final"
    assert not list(final.glob("model*.safetensors"))
    base = AutoModelForSequenceClassification.from_pretrained(f"{SFT}/final", num_labels=1)
    model = PeftModel.from_pretrained(base, str(final))
    receipt = written.read_json(study / "runs/study/small/receipt.json")
    assert probe_gap(score(model), receipt["probe"]) < 1e-5


def test_a_reference_that_is_not_the_start_model_stops_the_run(study, monkeypatch, capsys) -> None:
    from alignment.train.stages import dpo

    written.write_recipe(study, "dpo", pairs("dpo", f"{SFT}/final"))
    monkeypatch.setattr(
        dpo, "load_frozen", lambda training, path: policy.load_frozen(training, "runs/study/pretrain/final")
    )
    assert written.run("dpo") == 4
    assert "step 0: rewards/" in capsys.readouterr().err


def test_a_base_that_changed_since_is_refused(study, capsys) -> None:
    path = study / "runs/study/pretrain/final"
    model = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():
        model.model.norm.weight.add_(0.1)
    model.save_pretrained(path)
    written.write_recipe(study, "dpo", pairs("dpo", f"{SFT}/adapter", lora=written.LORA))
    assert written.run("dpo") == 7
    assert "are not those that it was trained on" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the way there


def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(study, monkeypatch) -> None:
    recipe = written.CHAT.format(lora="", steps=8).replace(
        "  logging_steps: 1\n", "  logging_steps: 1\n  save_steps: 3\n"
    )
    written.write_recipe(study, "whole", recipe)
    written.write_recipe(study, "cut", recipe)
    assert written.run("whole") == 0
    from alignment.train.callbacks import RunLog

    real = RunLog.on_step_end

    def cut_off(self, args, state, control, **kwargs) -> None:
        real(self, args, state, control, **kwargs)
        if state.global_step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunLog, "on_step_end", cut_off)
    with pytest.raises(KeyboardInterrupt):
        written.run("cut")
    assert written.read_json(study / "runs/study/cut/exit.json")["code"] == 130
    monkeypatch.setattr(RunLog, "on_step_end", real)
    assert written.run("cut") == 0
    whole, cut = (study / "runs/study" / name for name in ("whole", "cut"))
    assert written.read_losses(cut) == written.read_losses(whole)
    assert (cut / "final/model.safetensors").read_bytes() == (whole / "final/model.safetensors").read_bytes()


def test_a_loss_that_is_not_a_number_ends_with_4_and_no_model(study, monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        policy, "fit_embeddings", lambda model, tokenizer: model.model.norm.weight.data.fill_(math.nan) is None
    )
    written.write_recipe(
        study, "nan", written.CHAT.format(lora="", steps=3).replace("  metrics:\n    - bits_per_byte\n", "")
    )
    monkeypatch.setattr("alignment.train.begin.check_start", lambda *args: None)
    assert written.run("nan") == 4
    assert "expected a finite number" in capsys.readouterr().err
    assert not (study / "runs/study/nan/final").exists()


def test_the_receipt_says_what_was_seen(study) -> None:
    receipt = written.read_json(study / SFT / "receipt.json")
    lines = [json.loads(line) for line in (study / SFT / "metrics.jsonl").read_text().splitlines()]
    assert receipt["tokens"]["seen"] == max(line.get("tokens", 0) for line in lines)
    assert 0 < receipt["tokens"]["trained"] < receipt["tokens"]["seen"]
    assert receipt["parents"][0]["path"] == "runs/study/pretrain/final"
    assert receipt["metrics"]["bits_per_byte"] < receipt["metrics_before"]["bits_per_byte"]
