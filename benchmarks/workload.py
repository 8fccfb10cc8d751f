"""The rows, the model and the two configuration files of each benchmark cell, made on the spot from one seed."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SEED = 0
ROWS = 160
MAX_LENGTH = 256
BATCH = 8
WORDS = 400


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        settings: one line for the table: everything that both sides have in common.
    """

    name: str
    trl_command: str
    settings: str


COMMON = {
    "per_device_train_batch_size": BATCH,
    "learning_rate": 1.0e-4,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "gradient_checkpointing": False,
    "bf16": True,
    "seed": SEED,
    "logging_steps": 1,
}

OURS = """stage: {stage}
seed: {seed}
model:
  path: model
chat:
  template: from_tokenizer
data:
  max_length: {max_length}
{packing}  train:
    - path: {rows}
      format: {format}
train:
  num_train_epochs: 1
  global_batch_size: {batch}
  per_device_train_batch_size: {batch}
  learning_rate: 1.0e-4
  lr_scheduler_type: constant
  bf16: true
  logging_steps: 1
{further}"""


def make_words(rng: random.Random) -> list[str]:
    """Pronounceable words, so that a byte-level BPE finds something to merge."""
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    return ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(WORDS)]


def make_text(rng: random.Random, words: list[str], longest: int) -> str:
    """A sentence; lengths are log-uniform, as ragged as chat rows are."""
    return " ".join(rng.choice(words) for _ in range(int(2 ** rng.uniform(1, longest.bit_length() - 1)))) + "."


def write_rows(folder: Path) -> list[str]:
    """Writes conversations and preferences; returns all text for the tokenizer."""
    rng = random.Random(SEED)
    words = make_words(rng)
    texts = [make_text(rng, words, 128) for _ in range(3 * ROWS)]
    conversations, preferences = [], []
    for index in range(ROWS):
        prompt, answer, other = texts[3 * index : 3 * index + 3]
        user = [{"role": "user", "content": prompt}]
        reply, rejected = ([{"role": "assistant", "content": text}] for text in (answer, other))
        conversations.append({"prompt": user, "completion": reply})
        preferences.append({"prompt": user, "chosen": reply, "rejected": rejected})
    for name, rows in (("conversations", conversations), ("preferences", preferences)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return texts


def write_model(folder: Path, texts: list[str]) -> None:
    """A Llama of 4.3 M parameters with a chatml tokenizer trained on the rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignment.data.chat import load_chat
    from alignment.models.tokenizer import train_tokenizer
    from alignment.recipe.schema import ChatSpec, NewTokenizerSpec

    tokenizer = train_tokenizer(texts, NewTokenizerSpec(algorithm="bpe", vocab_size=1024), "chatml")
    load_chat(tokenizer, ChatSpec(template="chatml"), folder)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def _sft(packing: bool) -> tuple[str, str, str, dict]:
    trl = {"max_length": MAX_LENGTH, "packing": packing, "packing_strategy": "bfd"}
    return "sft", "conversations", f"  packing: {str(packing).lower()}\n", trl


# name -> stage, rows, our packing line, TRL's further settings
CELLS: dict[str, Callable[[], tuple[str, str, str, dict]]] = {
    "sft": lambda: _sft(False),
    "sft-packed": lambda: _sft(True),
    "reward": lambda: ("reward", "preferences", "", {"max_length": MAX_LENGTH}),
    "dpo": lambda: ("dpo", "preferences", "", {"max_length": MAX_LENGTH, "beta": 0.1}),
}
FORMATS = {"conversations": "prompt_completion", "preferences": "preference"}
FURTHER = {"sft": "", "reward": "", "dpo": "dpo:\n  reference: start\n  beta: 0.1\n"}


def make_workload(folder: Path, names: list[str]) -> list[Cell]:
    """Writes rows, model and both configurations into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, write_rows(folder))
    return [_make_cell(folder, name) for name in names]


def _make_cell(folder: Path, name: str) -> Cell:
    stage, rows, packing, trl = CELLS[name]()
    text = OURS.format(
        stage=stage,
        seed=SEED,
        max_length=MAX_LENGTH,
        packing=packing,
        rows=f"{rows}.jsonl",
        format=FORMATS[rows],
        batch=BATCH,
        further=FURTHER[stage],
    )
    (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    config = (
        COMMON
        | trl
        | {
            "model_name_or_path": str(folder / "model"),
            "dataset_name": "json",
            "datasets": [{"path": "json", "data_files": str(folder / f"{rows}.jsonl"), "split": "train"}],
            "num_train_epochs": 1,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "attn_implementation": "sdpa",
            "dtype": "float32",
        }
    )
    config.pop("dataset_name")
    (folder / f"trl-{name}.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")
    settings = (
        f"{ROWS} rows of up to {MAX_LENGTH} tokens, batch {BATCH}, {'packed' if trl.get('packing') else 'padded'}, "
        "float32 weights, bfloat16 compute, sdpa, fused AdamW, no checkpointing, Llama of 4.3 M parameters."
    )
    return Cell(name, stage, settings)
