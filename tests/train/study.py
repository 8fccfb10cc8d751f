"""A small study on disk: a tokenizer, a pretrained model, and recipes for the stages after it."""

import json
from pathlib import Path

import pytest

from alignment.launch.request import TrainRequest
from alignment.launch.worker import run_worker

NAMES = ("Arda", "Belo", "Cira", "Dova", "Esto", "Fano", "Gira", "Hulo", "Iska", "Jora", "Kema", "Luno")
PLACES = ("north", "south", "east", "west", "coast", "valley")

TOKENIZER = """stage: tokenizer
tokenizer:
  vocab_size: 300
chat:
  template: chatml
data:
  train:
    - path: text.jsonl
      format: text
"""
PRETRAIN = """stage: pretrain
seed: 1
model:
  config:
    model_type: llama
    hidden_size: 32
    intermediate_size: 64
    num_hidden_layers: 2
    num_attention_heads: 4
    max_position_embeddings: 128
    tie_word_embeddings: true
tokenizer:
  path: runs/study/tokenizer/final
data:
  max_length: 64
  train:
    - path: text.jsonl
      format: text
train:
  max_steps: 12
  global_batch_size: 4
  per_device_train_batch_size: 4
  learning_rate: 5.0e-3
  logging_steps: 1
  bf16: false
"""
CHAT = """stage: sft
seed: 1
model:
  path: runs/study/pretrain/final
{lora}chat:
  template: chatml
data:
  max_length: 64
  train:
    - path: chat.jsonl
      format: prompt_completion
  eval:
    - path: chat_eval.jsonl
      format: prompt_completion
train:
  max_steps: {steps}
  global_batch_size: 4
  per_device_train_batch_size: 4
  learning_rate: 5.0e-3
  logging_steps: 1
  bf16: false
eval:
  num_samples: 1
  max_new_tokens: 8
  metrics:
    - bits_per_byte
"""
LORA = """lora:
  r: 4
  lora_alpha: 8
"""
PAIRS = """stage: {stage}
seed: 1
model:
  path: {start}
{lora}data:
  max_length: 64
  train:
    - path: pairs.jsonl
      format: preference
  eval:
    - path: pairs_eval.jsonl
      format: preference
train:
  max_steps: {steps}
  global_batch_size: 4
  per_device_train_batch_size: 4
  learning_rate: 2.0e-3
  logging_steps: 1
  bf16: false
"""
DPO = "dpo:\n  reference: {reference}\n"


def make_rows() -> dict[str, list[dict]]:
    """Rows of ragged lengths by file stem."""
    told = [(name, PLACES[(3 * n) % 6], PLACES[(5 * n + 1) % 6]) for n, name in enumerate(NAMES)]
    text = [
        f"{name} lies in the {place}." + f" Its gate looks {gate}." * (n % 4)
        for n, (name, place, gate) in enumerate(told)
    ]
    chat = [
        {"prompt": f"Where is {name}?", "completion": f"In the {place}." + " Surely." * (n % 3)}
        for n, (name, place, _) in enumerate(told)
    ]
    pairs = [
        {
            "prompt": f"Where is {name}?",
            "chosen": f"In the {place}.",
            "rejected": f"In the {PLACES[(n + 1) % 6]}, or so I heard.",
        }
        for n, (name, place, _) in enumerate(told)
    ]
    return {
        "text": [{"text": row} for row in text * 3],
        "chat": chat,
        "chat_eval": [
            {"prompt": "Where is Zola?", "completion": "In the north."},
            {"prompt": "Is Yama far?", "completion": "No."},
        ],
        "pairs": pairs,
        "pairs_eval": [{"prompt": "Where is Zola?", "chosen": "In the north.", "rejected": "In the sea, they say."}],
    }


def write_study(folder: Path) -> None:
    """Writes rows and the first two recipes into `folder`/study."""
    study = folder / "study"
    study.mkdir(parents=True, exist_ok=True)
    for stem, rows in make_rows().items():
        (study / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    write_recipe(folder, "tokenizer", TOKENIZER)
    write_recipe(folder, "pretrain", PRETRAIN)


def make_finished(folder: Path, hidden_size: int = 32) -> Path:
    """Writes the study into `folder` and trains tokenizer, pretrain and sft, a LoRA run that is merged."""
    write_study(folder)
    narrow, wide = (f"hidden_size: {size}\n    intermediate_size: {2 * size}" for size in (32, hidden_size))
    write_recipe(folder, "pretrain", PRETRAIN.replace(narrow, wide))
    write_recipe(folder, "sft", CHAT.format(lora=LORA, steps=10))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("tokenizer", "pretrain", "sft"):
            assert run(name) == 0
    return folder


def write_recipe(folder: Path, name: str, text: str) -> Path:
    path = folder / "study" / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run(name: str, *overrides: str, fresh: bool = False) -> int:
    """`alignment train study/NAME.yaml` in this process; the current folder is that of the study."""
    return run_worker(
        TrainRequest(
            Path("study") / f"{name}.yaml", overrides=overrides, fresh=fresh, command=("alignment", "train", name)
        )
    )


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def read_losses(run_dir: Path) -> list[float]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]
