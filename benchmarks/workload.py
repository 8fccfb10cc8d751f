"""The rows and the model of the benchmark cells, made on the spot from one seed, and the two configuration files of each run."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SEED = 0
ROWS = 480  # that are written; a cell reads the first of them
MAX_LENGTH = 256
BATCH = 8
WORDS = 400


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        kind: of rows: conversations or preferences.
        rows: as many are read, once.
        passes: forward passes of an optimizer step.
        packing: whether rows are packed; None where the stage has no such choice.
        trl: further settings of TRL's file.
    """

    name: str
    stage: str
    kind: str = "conversations"
    rows: int = 160
    passes: int = 1
    packing: bool | None = None
    trl: Mapping[str, object] = field(default_factory=dict)

    @property
    def settings(self) -> str:
        """One line for the table: everything that both sides have in common."""
        batch = f"{BATCH} rows a pass, {self.passes} {'passes' if self.passes > 1 else 'pass'} a step"
        return (
            f"{self.rows} rows of up to {MAX_LENGTH} tokens, {batch}, {'packed' if self.packing else 'padded'}, float32 weights, bfloat16 "
            "compute, sdpa, fused AdamW, no gradient checkpointing, one checkpoint and the model written, Llama of 4.3 M parameters."
        )


COMMON = {
    "per_device_train_batch_size": BATCH,
    "learning_rate": 1.0e-4,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "gradient_checkpointing": False,
    "bf16": True,
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
      rows: {num_rows}
train:
  num_train_epochs: 1
  global_batch_size: {batch}
  per_device_train_batch_size: {per_device}
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


CELLS = {
    cell.name: cell
    for cell in (
        Cell("sft", "sft", packing=False, trl={"packing": False}),
        Cell("sft-packed", "sft", packing=True, trl={"packing": True, "packing_strategy": "bfd"}),
        Cell("sft-accumulated", "sft", rows=480, passes=4, packing=False, trl={"packing": False}),
        Cell("reward", "reward", "preferences"),
        Cell("dpo", "dpo", "preferences", trl={"beta": 0.1}),
    )
}
FORMATS = {"conversations": "prompt_completion", "preferences": "preference"}
FURTHER = {"sft": "", "reward": "", "dpo": "dpo:\n  reference: start\n  beta: 0.1\n"}


def make_workload(folder: Path) -> None:
    """Writes rows and model into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, write_rows(folder))


def write_configs(folder: Path, cell: Cell, seed: int) -> None:
    """Our recipe and TRL's file for one run. Both shuffle in their own way, so the seed is another one each run: a lucky order of
    ragged rows pads a few percent less."""
    text = OURS.format(
        stage=cell.stage,
        seed=seed,
        max_length=MAX_LENGTH,
        packing="" if cell.packing is None else f"  packing: {str(cell.packing).lower()}\n",
        rows=f"{cell.kind}.jsonl",
        format=FORMATS[cell.kind],
        num_rows=cell.rows,
        batch=BATCH * cell.passes,
        per_device=BATCH,
        further=FURTHER[cell.stage],
    )
    (folder / f"{cell.name}.yaml").write_text(text, encoding="utf-8")
    source = {"path": "json", "data_files": str(folder / f"{cell.kind}.jsonl"), "split": f"train[:{cell.rows}]"}
    config = COMMON | {
        "model_name_or_path": str(folder / "model"),
        "datasets": [source],
        "max_length": MAX_LENGTH,
        "gradient_accumulation_steps": cell.passes,
        "seed": seed,
        "num_train_epochs": 1,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "epoch",
        "disable_tqdm": True,
        "attn_implementation": "sdpa",
        "dtype": "float32",
        **cell.trl,
    }
    (folder / f"trl-{cell.name}.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")
