"""`alignment plan`: the arithmetic against values worked out by hand, what the command prints, advises and refuses."""

import json
import re
from pathlib import Path

import pytest

from alignment import cli
from alignment.commands import plan as command
from alignment.errors import RecipeError
from alignment.plan.dry_run import DryRun, Precision, Weights
from alignment.plan.estimate import MFU, Options, make_plan
from alignment.plan.hardware import GIB, parse_hardware
from alignment.plan.memory import BUCKET, estimate_memory
from alignment.recipe.loader import load_recipe

GALLERY = Path(__file__).parents[2] / "recipes"
BILLION = 1_000_000_000


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was run in this checkout must not be found, nor the Hub asked."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# ------------------------------------------------------------------------------------------------ arithmetic


def full_model() -> DryRun:
    """A billion weights, all trained, in ten layers; a pass of one GiB."""
    weights = Weights(trained=BILLION, frozen=0, quantised=0, layer=90_000_000, root=100_000_000)
    return DryRun({"policy": weights}, peaks={"step": GIB}, gradients=4 * BILLION)


@pytest.mark.parametrize(
    ("strategy", "half", "parts", "gradients"),
    [
        # weights, what an engine adds, moments; bytes of a weight on each of 8 processes
        ("ddp", False, {"policy weights": 4, "optimizer": 8, "buckets": 4}, 4),
        ("zero1", True, {"policy weights": 2, "DeepSpeed's": 4 / 8, "optimizer": 8 / 8, "reduce": 1}, 2),
        ("zero2", True, {"policy weights": 2, "DeepSpeed's": 4 / 8, "optimizer": 8 / 8, "reduce": 1}, 2 / 8),
        ("zero3", True, {"policy weights": 2 / 8, "DeepSpeed's": 4 / 8, "optimizer": 8 / 8, "reduce": 1}, 2 / 8),
        ("fsdp2", True, {"policy weights": 4 / 8, "optimizer": 8 / 8}, 4 / 8),
    ],
)
def test_memory_by_strategy_is_the_arithmetic_of_its_engine(strategy, half, parts, gradients):
    recipe = load_recipe(GALLERY / "smollm2-1.7b/sft.yaml")
    precision = Precision(bf16=True, half_weights=half, gpu=True)
    memory = estimate_memory(recipe, full_model(), precision, parse_hardware("8xH100"), strategy)
    found = {part.name.split(" (")[0].split(" states")[0]: part.bytes / BILLION for part in memory.parts}
    named = {next(name for name in found if name.startswith(key)): value for key, value in parts.items()}
    assert found == pytest.approx(named)
    assert memory.gradients / BILLION == pytest.approx(gradients)
    assert 2 * BUCKET == BILLION


def test_a_base_in_four_bits_takes_half_a_byte_a_weight():
    recipe = load_recipe(GALLERY / "zephyr-7b/sft-qlora.yaml")
    weights = Weights(trained=10_000_000, frozen=BILLION, quantised=900_000_000, layer=90_000_000, root=100_000_000)
    run = DryRun({"policy": weights}, peaks={"step": 0}, gradients=40_000_000)
    precision = Precision(bf16=True, half_weights=True, gpu=True)
    memory = estimate_memory(recipe, run, precision, parse_hardware("H100"), "single")
    expected = 0.516 * 900_000_000 + 4 * 100_000_000 + 4 * 10_000_000
    assert memory.parts[0].bytes == pytest.approx(expected, rel=1e-3)


# ------------------------------------------------------------------------------------------------ a plan


def plan(recipe: str, hardware: str, strategy: str, *overrides: str, **options: object):
    path = GALLERY / recipe
    return make_plan(path, overrides, Path("runs/x/y"), Options(parse_hardware(hardware), strategy, **options))


def test_steps_tokens_and_time_of_stated_rows():
    found = plan("smollm2-135m/sft.yaml", "H100", "single", rows=10_000, tokens_per_row=400)
    recipe = load_recipe(GALLERY / "smollm2-135m/sft.yaml")
    schedule = found.workload.schedule
    rows = 10_000 * 400 / recipe.data.max_length if recipe.data.packing else 10_000
    assert schedule.steps == int(rows * recipe.train.num_train_epochs // recipe.train.global_batch_size)
    # Of every weight a product in the forward pass, one for recomputation and two in the backward pass; of attention, which a mask
    # does not make smaller, two, two and five. Recomputation of a layer stops before its last product.
    weights = 8 * found.run.weights["policy"].total - 2 * 1536 * 576 * 30
    attention = (2 + 2 + 5) * 2 * recipe.data.max_length * 576 * 30
    assert found.flops / found.workload.positions == pytest.approx(weights + attention, rel=0.01)
    assert found.hours == pytest.approx(found.flops / (989e12 * MFU) / 3600)
    assert found.usd == pytest.approx(found.hours * 2.8)


def test_twice_the_cards_take_half_the_time_and_the_same_money():
    one = plan("gpt2-nl/sft.yaml", "4xH100", "zero2", rows=100_000)
    two = plan("gpt2-nl/sft.yaml", "8xH100", "zero2", rows=100_000)
    assert one.hours == pytest.approx(2 * two.hours)
    assert one.usd == pytest.approx(two.usd)
    assert one.workload.schedule.steps == two.workload.schedule.steps


def test_dealing_weights_out_takes_less_on_more_cards():
    few, many = (plan("gpt2-nl/sft.yaml", f"{n}xH100", "zero3", rows=50_000).memory.peak for n in (2, 8))
    assert many < few


def test_a_reference_that_is_no_adapter_takes_its_own_weights():
    own = plan("quickstart/dpo.yaml", "cpu", "single")
    other = plan("quickstart/dpo.yaml", "cpu", "single", "dpo.reference=runs/quickstart/pretrain/final")
    assert "reference weights" not in {part.name for part in own.memory.parts}
    [reference] = [part.bytes for part in other.memory.parts if part.name == "reference weights"]
    assert reference == 4 * other.run.weights["reference"].total
    assert other.memory.peak > own.memory.peak


def test_models_on_one_base_are_in_memory_once():
    apart = plan("quickstart/ppo.yaml", "cpu", "single")
    shared = plan("quickstart/ppo.yaml", "cpu", "single", "ppo.share_base=true", "ppo.value_model=start")
    saved = sum(part.bytes for part in apart.memory.parts) - sum(part.bytes for part in shared.memory.parts)
    assert saved == pytest.approx(2 * 4 * apart.run.weights["reward"].total, rel=0.02)


def test_the_learning_rate_is_that_of_the_schedule():
    found = plan("gpt2-nl/sft.yaml", "8xH100", "zero2", "train.warmup_steps=100", rows=100_000)
    rates = dict(found.learning_rates)
    peak = load_recipe(GALLERY / "gpt2-nl/sft.yaml").train.learning_rate
    assert rates[0] == 0
    assert max(rates.values()) <= peak
    assert list(rates)[-1] == found.workload.schedule.steps - 1


def test_advice_is_the_first_change_with_which_it_fits():
    off, on = "train.gradient_checkpointing=false", "train.gradient_checkpointing=true"
    found = plan("gpt2-nl/pretrain.yaml", "RTX4090", "single", off, rows=50_000)
    assert not found.fits
    [(change, peak)] = found.advice
    assert change == f"--set {on}"
    assert peak < found.limit
    assert plan("gpt2-nl/pretrain.yaml", "RTX4090", "single", on, rows=50_000).memory.peak == peak


# ------------------------------------------------------------------------------------------------ the command


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str]:
    code = cli.main(["plan", *map(str, argv)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_the_command_says_what_fits_and_what_it_takes(capsys):
    code, text = run(capsys, GALLERY / "smollm2-135m/sft.yaml", "--hardware", "RTX4090", "--rows", 20_000)
    assert code == 0
    assert re.search(r"fits: [\d.]+ GiB at the most, of 21\.5 \(23\.5 less 0\.8 for CUDA", text)
    for name in ("steps", "tokens", "memory", "disk", "FLOPs", "time", "cost"):
        assert re.search(rf"^  {name} ", text, re.MULTILINE), name


def test_what_does_not_fit_ends_with_5(capsys):
    arguments = ("--hardware", "RTX4090", "--rows", 20_000, "--set", "train.gradient_checkpointing=false")
    code, text = run(capsys, GALLERY / "gpt2-nl/pretrain.yaml", *arguments)
    assert code == command.DOES_NOT_FIT
    assert re.search(r"does not fit: [\d.]+ GiB", text)
    assert "fits with --set train.gradient_checkpointing=true: " in text


def test_a_study_is_summed_up_and_json_holds_every_number(capsys):
    arguments = ("--hardware", "RTX4090", "--rows", 20_000)
    code, text = run(capsys, GALLERY / "gpt2-nl", *arguments)
    assert code == 0
    assert text.splitlines()[-1].startswith("in all: 2 stages")
    code, text = run(capsys, GALLERY / "gpt2-nl/pipeline.yaml", *arguments, "--json")
    stages = json.loads(text)
    assert [one["stage"] for one in stages] == ["pretrain", "sft"]
    assert all(one["fits"] and max(one["memory_phases"].values()) < one["memory_limit"] for one in stages)


def test_rows_that_are_on_this_disk_are_counted(tmp_path, capsys):
    rows = "".join(json.dumps({"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c " * n}]}) + "\n" for n in range(1, 41))  # fmt: skip
    (tmp_path / "rows.jsonl").write_text(rows)
    write_model(tmp_path / "model")
    recipe = (
        "stage: sft\nmodel:\n  path: ./model\nchat:\n  template: chatml\ndata:\n  max_length: 512\n  train:\n"
        "    - path: rows.jsonl\n      format: messages\ntrain:\n  num_train_epochs: 1\n  global_batch_size: 8\n"
        "  per_device_train_batch_size: 4\n  learning_rate: 1.0e-3\n"
    )
    (tmp_path / "sft.yaml").write_text(recipe)
    code, text = run(capsys, "sft.yaml", "--hardware", "cpu")
    assert code == 0
    assert "40 prepared rows" in text
    assert re.search(r"steps +5 of 8 rows: 4 a pass, 2 passes a step", text)
    assert "at most" not in text.partition("memory")[0]  # every length is known


def write_model(folder: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignment.models.tokenizer import train_tokenizer
    from alignment.recipe.model_spec import NewTokenizerSpec

    spec = NewTokenizerSpec(algorithm="bpe", vocab_size=300)
    tokenizer = train_tokenizer([" ".join(map(str, range(2000)))], spec, "chatml")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("smollm2-135m/sft.yaml", "--hardware", "9xNothing"), "--hardware"),
        (("smollm2-135m/sft.yaml", "--hardware", "H100", "--mfu", "1.5"), "--mfu: 1.5"),
        (("smollm2-135m/sft.yaml", "--hardware", "H100", "--rows", "0"), "--rows: 0"),
        (("quickstart/tokenizer.yaml", "--hardware", "H100"), "nothing that trains a model"),
        (("smollm2-135m/sft.yaml", "--hardware", "7xH100", "--rows", "1000"), "global_batch_size"),
        (("zephyr-7b/sft.yaml", "--hardware", "8xH100"), "--rows N was expected"),
    ],
)
def test_what_cannot_be_planned_is_refused(capsys, arguments, said):
    code, text = run(capsys, GALLERY / arguments[0], *arguments[1:])
    assert code == 2
    assert said in text


def test_an_architecture_that_cannot_be_built_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "no-such-model", "vocab_size": 10}))
    text = (GALLERY / "smollm2-135m/sft.yaml").read_text().replace("HuggingFaceTB/SmolLM2-135M", "./model")
    (tmp_path / "sft.yaml").write_text(text)
    with pytest.raises(RecipeError, match="no-such-model cannot be planned"):
        make_plan(tmp_path / "sft.yaml", (), Path("runs/x/y"), Options(parse_hardware("H100"), "single", rows=10_000))


# ------------------------------------------------------------------------------------------------ the gallery

HARDWARE = {
    "gpt2-nl": "8xRTX4090",
    "llama-124m": "8xA100-80GB",
    "llama-3.1-70b": "8xH100",
    "llama-3.1-70b/sft-full.yaml": "8x8xH100",
    "llama-3.1-8b": "2xRTX4090",
    "mixtral-style-small": "8xA100-80GB",
    "qwen3-0.6b": "RTX4090",
    "qwen3-30b-a3b": "4xH100",
    "smollm2-1.7b": "8xH100",
    "smollm2-135m": "RTX4090",
    "smollm3-style": "8x8xH100",
    "smollm3-style/dpo.yaml": "2x8xH100",
    "tldr-pythia-1b": "8xH100",
    "tulu3-8b": "8x8xH100",
    "tulu3-8b/dpo.yaml": "8xH100",
    "zephyr-7b": "8xH100",
    "zephyr-7b/sft-qlora.yaml": "RTX4090",
    "zephyr-7b/dpo-qlora.yaml": "RTX4090",
}
TRAINED = sorted(
    str(path.relative_to(GALLERY))
    for path in GALLERY.glob("*/*.yaml")
    if path.parent.name in HARDWARE and re.search(r"^stage: (pretrain|sft|reward|dpo|ppo)", path.read_text(), re.MULTILINE)
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_study_fits_the_hardware_that_its_readme_names(name):
    from alignment.launch.rehearse.gallery import find_strategy

    hardware = HARDWARE.get(name) or HARDWARE[name.partition("/")[0]]
    strategy = find_strategy(GALLERY / name) if parse_hardware(hardware).num_processes > 1 else "single"
    found = plan(name, hardware, strategy, rows=200_000)
    assert found.fits, found.advice
