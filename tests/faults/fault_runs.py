"""One tiny recipe a stage, run by forked ranks as `alignment train` runs them; the end, which a fresh process verifies, is left out."""

import json
import os
import shutil
from pathlib import Path

import xxhash
from injected import Fault, inject

from alignment.launch import start
from alignment.launch.ranks import run_ranks
from alignment.launch.request import TrainRequest
from alignment.launch.worker import run_worker
from alignment.recipe.loader import load_recipe
from alignment.train.seal import newest_sealed
from tests.ragged_rows import write_rows
from tests.unfinished import leave_out_the_end

CONFIGS = Path(__file__).parents[2] / "accelerate_configs"
STEPS = 6
TRAIN = f"""
train:
  max_steps: {STEPS}
  global_batch_size: 4
  per_device_train_batch_size: 2
  learning_rate: 1.0e-3
  bf16: false
  logging_steps: 1
  save_steps: 2
"""
START = "model:\n  path: runs/faults/pretrain/final\nchat:\n  template: chatml\n"
LORA = "lora:\n  r: 4\n  lora_alpha: 8\n  lora_dropout: 0.1\n"
PAIRS = "data:\n  max_length: 64\n  train:\n    - path: pairs.jsonl\n      format: preference\n"
CHATS = "data:\n  max_length: 64\n  train:\n    - path: chats.jsonl\n      format: messages\n"
PROMPTS = "data:\n  max_length: 64\n  train:\n    - path: prompts.jsonl\n      format: prompt\n"
RECIPES = {
    "tokenizer": "stage: tokenizer\ntokenizer:\n  vocab_size: 300\ndata:\n  train:\n    - path: text.jsonl\n      format: text\n",
    "pretrain": "stage: pretrain\nmodel:\n  config:\n    model_type: llama\n    hidden_size: 32\n    intermediate_size: 64\n"
    "    num_hidden_layers: 2\n    num_attention_heads: 4\n    max_position_embeddings: 64\n"
    "tokenizer:\n  path: runs/faults/tokenizer/final\ndata:\n  max_length: 64\n  packing: false\n  train:\n"
    "    - path: text.jsonl\n      format: text\n" + TRAIN,
    "sft": "stage: sft\n" + START + CHATS + TRAIN,
    "sft-lora": "stage: sft\n" + START + LORA + CHATS + TRAIN,
    "reward": "stage: reward\n" + START + PAIRS + TRAIN,
    "dpo": "stage: dpo\n" + START + PAIRS + TRAIN + "dpo:\n  reference: start\n",
    "ppo": "stage: ppo\n" + START + PROMPTS + TRAIN
    + "ppo:\n  value_model: start\n  rewards:\n    - reward: stops\n  num_ppo_epochs: 1\n  num_mini_batches: 2\n"
    "  max_new_tokens: 6\n",
}  # fmt: skip
STAGES = ["pretrain", "sft", "sft-lora", "reward", "dpo", "ppo"]


def write_study(root: Path) -> Path:
    """recipes/faults below `root`."""
    folder = root / "recipes/faults"
    folder.mkdir(parents=True)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    write_rows(folder, ("text", "chats", "pairs", "prompts"), 40, 16)
    return folder


def work(root: Path, request: TrainRequest, fault: Fault | tuple[Fault, ...] | None, whole: bool) -> int:
    """What a rank does."""
    os.chdir(root)
    inject(fault)
    if not whole:
        leave_out_the_end()
    return run_worker(request)


def train(
    root: Path,
    name: str,
    out: str,
    *overrides: str,
    fault: Fault | tuple[Fault, ...] | None = None,
    strategy: str | None = None,
    ranks: int = 2,
    whole: bool = False,
) -> int:
    """`alignment train` on a recipe of the study, with its launcher; returns its exit code.

    Args:
        strategy: a launcher config; None for one process.
        whole: write and verify the result, too.
    """
    recipe_path = root / "recipes/faults" / f"{name}.yaml"
    request = TrainRequest(
        recipe_path.relative_to(root), overrides=overrides, out=root / "runs" / out, num_processes=ranks,
        command=("alignment", "train", name),
    )  # fmt: skip
    real = start.run_worker
    start.run_worker = lambda request: work(root, request, fault, whole)
    before = Path.cwd()
    os.chdir(root)
    try:
        recipe = load_recipe(recipe_path, overrides)
        config = start.find_config(str(CONFIGS / f"{strategy}.yaml"), recipe_path) if strategy else None
        return start.launch_ranks(request, recipe, config)
    finally:
        start.run_worker = real
        os.chdir(before)


def train_alone(root: Path, name: str, out: str, *overrides: str, fault: Fault | None = None) -> int:
    """One process that no launcher of ours watches, as `alignment train` starts it without a config."""
    request = TrainRequest(
        Path("recipes/faults") / f"{name}.yaml", overrides=overrides, out=root / "runs" / out,
        command=("alignment", "train", name),
    )  # fmt: skip
    return run_ranks(
        lambda: work(root, request, fault, False), config=None, num_processes=1, log_dir=root / "runs" / out / "logs"
    )


def final_hash(root: Path, out: str) -> str:
    """Hash of the weights in the newest sealed checkpoint."""
    digest = xxhash.xxh3_128()
    paths = sorted(newest_sealed(root / "runs" / out / "checkpoints").rglob("*.safetensors"))
    assert paths
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def checkpoints(root: Path, out: str) -> list[str]:
    return sorted(path.name for path in (root / "runs" / out / "checkpoints").iterdir())


def read_exit(root: Path, out: str) -> dict:
    return json.loads((root / "runs" / out / "exit.json").read_text())


def losses(root: Path, out: str) -> list[float]:
    lines = [json.loads(line) for line in (root / "runs" / out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def set_aside(root: Path, out: str) -> None:
    shutil.rmtree(root / "runs" / out, ignore_errors=True)
