"""Two processes give the losses of one: 30 steps, ragged rows, fp32, accumulation 1 against 2, through the worker itself.

Only the end is left out, where the result is written and read back by a fresh process: no loss comes after it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.launch.ranks import preload, run_ranks
from alignment.launch.request import TrainRequest
from alignment.launch.worker import run_worker
from tests.ragged_rows import write_rows
from tests.unfinished import leave_out_the_end

STEPS, NUM_ROWS = 30, 90  # 240 positions: two whole epochs and a part of the third
STRATEGIES = ["ddp", "zero3", "fsdp2"]

TRAIN = f"""
train:
  max_steps: {STEPS}
  global_batch_size: 8
  per_device_train_batch_size: 4
  learning_rate: 1.0e-3
  lr_scheduler_type: cosine
  warmup_steps: 5
  bf16: false
  logging_steps: 1
"""
START = "model:\n  path: runs/same/pretrain/final\nchat:\n  template: chatml\n"
LORA = "lora:\n  r: 4\n  lora_alpha: 8\n"
PAIRS = "data:\n  max_length: 64\n  train:\n    - path: pairs.jsonl\n      format: preference\n"
CHATS = "data:\n  max_length: 64\n  train:\n    - path: chats.jsonl\n      format: messages\n"
RECIPES = {
    "tokenizer": "stage: tokenizer\ntokenizer:\n  algorithm: bpe\n  vocab_size: 300\ndata:\n  train:\n"
    "    - path: text.jsonl\n      format: text\n",
    "pretrain": "stage: pretrain\nmodel:\n  config:\n    model_type: llama\n    hidden_size: 32\n    intermediate_size: 64\n"
    "    num_hidden_layers: 2\n    num_attention_heads: 4\n    max_position_embeddings: 64\n"
    "tokenizer:\n  path: runs/same/tokenizer/final\ndata:\n  max_length: 64\n  packing: false\n  train:\n"
    "    - path: text.jsonl\n      format: text\n" + TRAIN,
    "sft": "stage: sft\n" + START + CHATS + TRAIN,
    "sft-lora": "stage: sft\n" + START + LORA + CHATS + TRAIN,
    "reward": "stage: reward\n" + START + PAIRS + TRAIN,
    "dpo": "stage: dpo\n" + START + PAIRS + TRAIN + "dpo:\n  reference: start\n  beta: 0.5\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipes/same, and the runs of tokenizer and pretraining that the other stages start from."""
    root = tmp_path_factory.mktemp("same")
    folder = root / "recipes/same"
    folder.mkdir(parents=True)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    write_rows(folder, ("text", "chats", "pairs"), NUM_ROWS, 24)
    preload(["sft", "reward", "dpo"])
    for name in ("tokenizer", "pretrain"):
        assert run_ranks(lambda name=name: work(root, name), config=None, num_processes=1, log_dir=root / name) == 0
    return root


def work(root: Path, name: str, out: str | None = None, overrides: tuple[str, ...] = ()) -> int:
    """A stage from beginning to end, as every rank does it; with `out`, up to its last step."""
    os.chdir(root)
    if out is not None:
        leave_out_the_end()
    recipe, run_dir = Path(f"recipes/same/{name}.yaml"), Path(f"runs/{out}") if out else None
    return run_worker(TrainRequest(recipe, out=run_dir, overrides=overrides))


def losses(
    study: Path, name: str, strategy: str | None, configs: Path, overrides: tuple[str, ...] = ()
) -> dict[str, list[float]]:
    """What a run logs at each step."""
    if (name, strategy, overrides) == ("pretrain", None, ()):
        return read_log(study / "runs/same/pretrain")
    out = "-".join([name, strategy or "one", *overrides])
    if not (study / "runs" / out).exists():
        config = configs / f"{strategy}.yaml" if strategy else None
        code = run_ranks(
            lambda: work(study, name, out, overrides),
            config=config,
            num_processes=2 if strategy else 1,
            log_dir=study / "logs" / out,
        )
        assert code == 0
    return read_log(study / "runs" / out)


def read_log(run_dir: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    return {key: [line[key] for line in lines] for key in ("step", "loss", "grad_norm", "learning_rate", "tokens")}


FAST = [("sft", "ddp"), ("reward", "zero3"), ("dpo", "fsdp2")]
ALL = [(name, strategy) for name in RECIPES if name != "tokenizer" for strategy in STRATEGIES]


@pytest.mark.parametrize(
    ("name", "strategy"),
    [pytest.param(*pair, marks=() if pair in FAST else pytest.mark.slow, id="-".join(pair)) for pair in ALL],
)
def test_two_processes_give_the_losses_of_one(study, configs, name, strategy):
    one, two = losses(study, name, None, configs), losses(study, name, strategy, configs)
    assert one["step"] == two["step"] == list(range(1, STEPS + 1))
    assert (two["learning_rate"], two["tokens"]) == (one["learning_rate"], one["tokens"])
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    assert abs(one["loss"][0] - one["loss"][-1]) > 2e-3  # it trains


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretrain", "sft", "sft-lora", "reward", "dpo"])
@pytest.mark.parametrize("strategy", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_bf16_follows_fp32(study, configs, name, strategy):
    """FSDP2 and ZeRO cast inputs and outputs: log-probabilities from bf16 logits would make the first DPO loss 0.6914.

    At a learning rate that hardly moves the weights, so that a step's gap is its own: at 1e-3 a reward model's first difference
    grows to 1.2e-2 within 23 steps, in one process as under every strategy.
    """
    slow = "train.learning_rate=1e-5"
    exact = losses(study, name, None, configs, (slow,))["loss"]
    found = losses(study, name, strategy, configs, (slow, "train.bf16=true"))["loss"]
    gaps = [abs(one - other) for one, other in zip(exact, found, strict=True)]
    assert len(gaps) == STEPS
    assert max(gaps) < 2.5e-3  # 2.1e-3 was seen: reward and dpo under ZeRO
    assert sum(gaps) / STEPS < 1e-3
    assert gaps[0] < (1e-4 if name == "dpo" else 2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_accelerate_launch_is_the_same_thing(study, configs, strategy):
    """The command of the manuals, to the verified end."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(configs / f"{strategy}.yaml")]
    command += [
        "--num_processes",
        "2",
        "-m",
        "alignment",
        "train",
        "recipes/same/sft.yaml",
        "--out",
        f"runs/accelerate-{strategy}",
    ]
    subprocess.run(command, cwd=study, check=True, timeout=600)
    assert json.loads((study / f"runs/accelerate-{strategy}/exit.json").read_text())["code"] == 0
    found = read_log(study / f"runs/accelerate-{strategy}")
    assert found["loss"] == pytest.approx(losses(study, "sft", None, configs)["loss"], abs=1e-5)
