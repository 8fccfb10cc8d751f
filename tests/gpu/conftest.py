"""What only a GPU shows: `python -m pytest tests/gpu -n 8` on a machine with one. Skipped where there is none.

Each test gives whole commands, as a user does. Their runs start from one study, made once whatever the number of workers.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from tests.ragged_rows import write_rows

CONFIGS = Path(__file__).parents[2] / "accelerate_configs"
STEPS = 12
FEW_STEPS = "train.max_steps=4"
TRAIN = f"""
train:
  max_steps: {STEPS}
  global_batch_size: 16
  per_device_train_batch_size: 8
  learning_rate: 1.0e-3
  lr_scheduler_type: constant
  bf16: false
  logging_steps: 1
"""
START = "model:\n  path: runs/gpu/pretrain/final\nchat:\n  template: chatml\n"
LORA = "lora:\n  r: 8\n  lora_alpha: 16\n"
PAIRS = "data:\n  max_length: 96\n  train:\n    - path: pairs.jsonl\n      format: preference\n"
CHATS = "data:\n  max_length: 96\n  train:\n    - path: chats.jsonl\n      format: messages\n"
PACKED = CHATS.replace("data:\n", "data:\n  packing: true\n")
DPO = "dpo:\n  reference: start\n  beta: 0.5\n"
PROMPTS = "data:\n  max_length: 32\n  train:\n    - path: prompts.jsonl\n      format: prompt\n"
PPO = "ppo:\n  rewards:\n    - stops\n  max_new_tokens: 12\n  per_device_rollout_batch_size: 16\n  num_ppo_epochs: 2\n  num_mini_batches: 2\n"
RECIPES = {
    "tokenizer": "stage: tokenizer\ntokenizer:\n  algorithm: bpe\n  vocab_size: 300\ndata:\n  train:\n"
    "    - path: text.jsonl\n      format: text\n",
    # A head of 32 and rows of 128: what the kernels of GPUs and the 4-bit blocks need.
    "pretrain": "stage: pretrain\nmodel:\n  config:\n    model_type: llama\n    hidden_size: 128\n    intermediate_size: 256\n"
    "    num_hidden_layers: 2\n    num_attention_heads: 4\n    num_key_value_heads: 2\n    max_position_embeddings: 128\n"
    "tokenizer:\n  path: runs/gpu/tokenizer/final\ndata:\n  max_length: 64\n  packing: false\n  train:\n"
    "    - path: text.jsonl\n      format: text\n" + TRAIN,
    "sft": "stage: sft\n" + START + CHATS + TRAIN,
    "sft-packed": "stage: sft\n" + START + PACKED + TRAIN,
    "sft-lora": "stage: sft\n" + START + LORA + CHATS + TRAIN,
    "reward": "stage: reward\n" + START + PAIRS + TRAIN,
    "reward-lora": "stage: reward\n" + START + LORA + PAIRS + TRAIN,
    "dpo": "stage: dpo\n" + START + PAIRS + TRAIN + DPO,
    "dpo-lora": "stage: dpo\n" + START + LORA + PAIRS + TRAIN + DPO,
    "ppo": "stage: ppo\n" + START + PROMPTS + TRAIN + PPO,
    "ppo-lora": "stage: ppo\n" + START + LORA + PROMPTS + TRAIN + PPO,
    "evaluate": "stage: evaluate\n" + START + CHATS.replace("train:", "eval:")
    + "evaluate:\n  max_new_tokens: 12\n  metrics:\n    - bits_per_byte\n    - stops\n",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


@dataclass(frozen=True)
class Study:
    """A folder with recipes/gpu and the runs of tokenizer and pretraining."""

    root: Path

    def command(self, *words: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "alignment", *words],
            cwd=self.root, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def train(
        self,
        name: str,
        out: str,
        *keys: str,
        strategy: str | None = None,
        environment: Mapping[str, str] | None = None,
        code: int = 0,
    ) -> Path:
        """Runs a stage by our command; returns its run folder. Another exit code fails with the end of what it said."""
        words = ["train", f"recipes/gpu/{name}.yaml", "--out", f"runs/{out}"]
        words += [word for key in keys for word in ("--set", key)]
        if strategy:
            words += ["--accelerate_config", str(CONFIGS / f"{strategy}.yaml"), "--num_processes", "1"]
        done = self.command(*words, environment=environment)
        assert done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}"
        return self.root / "runs" / out

    def exact(self, name: str) -> list[float]:
        """Losses of the first steps in fp32, run once."""
        with FileLock(self.root / f"{name}-exact.lock"):
            run = self.root / f"runs/{name}-exact"
            return read_log(run if (run / "exit.json").exists() else self.train(name, run.name, FEW_STEPS))


def read_log(run_dir: Path, key: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if "loss" in line]


def read_gpus(run_dir: Path) -> Sequence[str]:
    return json.loads((run_dir / "receipt.json").read_text())["hardware"].get("gpus", [])


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "gpu-study"
    found = Study(root)
    with FileLock(f"{root}.lock"):
        if not root.exists():
            folder = root / "recipes/gpu"
            folder.mkdir(parents=True)
            for name, text in RECIPES.items():
                (folder / f"{name}.yaml").write_text(text)
            write_rows(folder, ("text", "chats", "pairs", "prompts"), 120, 24)
            for name in ("tokenizer", "pretrain"):
                found.train(name, f"gpu/{name}")
    return found


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Outcomes are kept too, at once: a machine that is lent for minutes may be gone before the summary."""
    path = os.environ.get("GPU_FIGURES")
    if path and "PYTEST_XDIST_WORKER" not in os.environ and (report.when == "call" or report.failed):
        outcome = {"outcome": report.outcome, "of": report.nodeid.split("::")[-1], "seconds": round(report.duration, 1)}
        with open(path, "a") as file:
            file.write(json.dumps(outcome | ({"why": report.longreprtext[-3000:]} if report.failed else {})) + "\n")


@pytest.fixture
def note(request: pytest.FixtureRequest):
    """Keeps a figure: a line in the file that GPU_FIGURES names."""

    def write(**figures: object) -> None:
        if path := os.environ.get("GPU_FIGURES"):
            with open(path, "a") as file:
                file.write(json.dumps({"test": request.node.name} | figures) + "\n")

    return write
