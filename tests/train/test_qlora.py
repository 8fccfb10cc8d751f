"""QLoRA where bitsandbytes is installed, which computes on CPUs as well: 4-bit weights are trained on, merged into 16 bits and read back."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import study as written

from alignment.cli import main
from alignment.train import policy

FOUR_BITS = written.LORA + "  load_in_4bit: true\n"
installed = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")


@pytest.fixture(scope="module")
def wide_study(tmp_path_factory) -> Path:
    """The kernels of CPUs take 64 inputs or more."""
    return written.make_finished(tmp_path_factory.mktemp("wide"), 64)


@pytest.fixture
def study(wide_study, tmp_path, monkeypatch) -> Path:
    """A copy of the wide study as the current folder."""
    shutil.copytree(wide_study, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_without_bitsandbytes_it_is_refused_by_name(study, monkeypatch, capsys):
    monkeypatch.setattr(policy, "has_bitsandbytes", lambda: False)
    written.write_recipe(study, "four", written.CHAT.format(lora=FOUR_BITS, steps=4))
    assert main(["train", "study/four.yaml"]) == 5
    assert "bitsandbytes is not installed. Install it with `pip install 'alignment[qlora]'`" in capsys.readouterr().err


@installed
@pytest.mark.parametrize("name", ["sft", "reward", "dpo"])
def test_each_stage_starts_from_a_lora_run_in_four_bits(study, name):
    """runs/study/sft is a merged LoRA run with a receipt, which the weights are compared with before step 1."""
    text = written.CHAT.format(lora=FOUR_BITS, steps=6).replace("pretrain/final", "sft/final")
    if name != "sft":
        text = written.PAIRS.format(stage=name, start="runs/study/sft/final", lora=FOUR_BITS, steps=6)
        text += written.DPO.format(reference="start") if name == "dpo" else ""
    written.write_recipe(study, "four", text)
    assert written.run("four") == 0
    losses = written.read_losses(Path("runs/study/four"))
    assert losses[-1] < losses[0]
    assert "quantization_config" not in written.read_json(Path("runs/study/four/final/config.json"))
    if name == "dpo":
        assert losses[0] == pytest.approx(0.693147, abs=1e-5)


@installed
def test_an_adapter_run_goes_on_in_four_bits_and_is_merged(study):
    """From a run that kept only its adapter: merged before anything is quantised, or trained on; then merged by the command."""
    only = FOUR_BITS + "  save: adapter\n"
    written.write_recipe(study, "first", written.CHAT.format(lora=only, steps=6))
    assert written.run("first") == 0
    for name, start in (("merged", "merge"), ("continued", "continue")):
        text = written.CHAT.format(lora=FOUR_BITS + f"  start: {start}\n", steps=4)
        written.write_recipe(study, name, text.replace("pretrain/final", "first/final"))
        assert written.run(name) == 0
    assert main(["merge", "runs/study/first"]) == 0
    receipt = written.read_json(Path("runs/study/first-merged/receipt.json"))
    assert receipt["merge"]["base"].endswith("pretrain/final")
    assert 0 < receipt["merge"]["gap"] < 0.25


@installed
def test_other_weights_than_those_of_the_receipt_are_found_in_four_bits_too(study, capsys):
    from safetensors.torch import load_file, save_file

    path = Path("runs/study/sft/final/model.safetensors")
    weights = load_file(path)
    for name, tensor in weights.items():
        if "down_proj" in name:
            tensor.neg_()
    save_file(weights, path, metadata={"format": "pt"})
    text = written.CHAT.format(lora=FOUR_BITS, steps=4).replace("pretrain/final", "sft/final")
    written.write_recipe(study, "four", text)
    assert main(["train", "study/four.yaml"]) == 7
    assert "score differently from the receipt" in capsys.readouterr().err
