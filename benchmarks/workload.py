"""The rows and the model of the benchmark cells, made on the spot from one seed, and the two configuration files of each run."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SEED = 0
WORDS = 400


@dataclass(frozen=True)
class Scale:
    """How large the comparison is.

    Attributes:
        rows: that are written for each cell to read the first of them.
        batch: rows of a forward pass.
        longest: words of a text; a row has up to two.
        vocab_size: of the model; the tokenizer's is 1024.
    """

    rows: int
    max_length: int
    longest: int
    batch: int
    model: Mapping[str, int]
    parameters: float
    vocab_size: int = 1024
    gpu: bool = False

    def count(self, cell: "Cell") -> int:
        """Rows that a cell reads."""
        return cell.gpu_rows if self.gpu else cell.rows


CPU = Scale(
    480,
    256,
    128,
    8,
    {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
    },
    4.3e6,
)
# Wide and shallow: of a deep model of this size the launches of kernels would be measured, and not the kernels.
GPU = Scale(
    2560,
    1024,
    512,
    16,
    {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    350e6,
    vocab_size=32768,
    gpu=True,
)


@dataclass(frozen=True)
class Cell:
    """One comparison.

    Attributes:
        kind: of rows: conversations or preferences.
        rows: as many are read, once; on a GPU `gpu_rows`.
        passes: forward passes of an optimizer step.
        packing: whether rows are packed; None where the stage has no such choice.
        trl: further settings of TRL's file.
    """

    name: str
    stage: str
    kind: str = "conversations"
    rows: int = 160
    gpu_rows: int = 400
    passes: int = 1
    packing: bool | None = None
    trl: Mapping[str, object] = field(default_factory=dict)

    def settings(self, scale: Scale) -> str:
        """One line for the table: everything that both sides have in common."""
        batch = f"{scale.batch} rows a pass, {self.passes} {'passes' if self.passes > 1 else 'pass'} a step"
        return (
            f"{scale.count(self)} rows of up to {scale.max_length} tokens, {batch}, {'packed' if self.packing else 'padded'}, float32 weights, "
            f"{'bfloat16' if computes_in_bf16(scale) else 'float32'} compute, sdpa, fused AdamW, no gradient checkpointing, one checkpoint and the model written, Llama of {scale.parameters / 1e6:g} M parameters."
        )


def computes_in_bf16(scale: Scale) -> bool:
    """On both sides: always on a GPU, and on processors that have instructions for it."""
    from alignment.train.precision import has_bf16_instructions

    return scale.gpu or has_bf16_instructions()


COMMON = {
    "learning_rate": 1.0e-4,
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch_fused",
    "gradient_checkpointing": False,
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
      split: train[:{num_rows}]
train:
  num_train_epochs: 1
  global_batch_size: {batch}
  per_device_train_batch_size: {per_device}
  learning_rate: 1.0e-4
  lr_scheduler_type: constant
  bf16: {bf16}
  logging_steps: 1
{further}"""


def make_words(rng: random.Random) -> list[str]:
    """Pronounceable words, so that a byte-level BPE finds something to merge."""
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    return ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(WORDS)]


def make_text(rng: random.Random, words: list[str], longest: int) -> str:
    """A sentence; lengths are log-uniform, as ragged as chat rows are."""
    return " ".join(rng.choice(words) for _ in range(int(2 ** rng.uniform(1, longest.bit_length() - 1)))) + "."


def write_rows(folder: Path, scale: Scale) -> list[str]:
    """Writes conversations and preferences; returns all text for the tokenizer."""
    rng = random.Random(SEED)
    words = make_words(rng)
    texts = [make_text(rng, words, scale.longest) for _ in range(3 * scale.rows)]
    conversations, preferences = [], []
    for index in range(scale.rows):
        prompt, answer, other = texts[3 * index : 3 * index + 3]
        user = [{"role": "user", "content": prompt}]
        reply, rejected = ([{"role": "assistant", "content": text}] for text in (answer, other))
        conversations.append({"prompt": user, "completion": reply})
        preferences.append({"prompt": user, "chosen": reply, "rejected": rejected})
    for name, rows in (("conversations", conversations), ("preferences", preferences)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return texts


def write_model(folder: Path, texts: list[str], scale: Scale) -> None:
    """A Llama with a chatml tokenizer trained on the rows."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignment.data.chat import load_chat
    from alignment.models.tokenizer import train_tokenizer
    from alignment.recipe.model_spec import ChatSpec, NewTokenizerSpec

    tokenizer = train_tokenizer(texts, NewTokenizerSpec(algorithm="bpe", vocab_size=1024), "chatml")
    load_chat(tokenizer, ChatSpec(template="chatml"), folder)
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=max(len(tokenizer), scale.vocab_size),
            **scale.model,
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
        Cell("sft-packed", "sft", gpu_rows=2400, packing=True, trl={"packing": True, "packing_strategy": "bfd"}),
        Cell("sft-accumulated", "sft", rows=480, gpu_rows=1600, passes=4, packing=False, trl={"packing": False}),
        Cell("reward", "reward", "preferences"),
        Cell("dpo", "dpo", "preferences", trl={"beta": 0.1}),
    )
}
FORMATS = {"conversations": "prompt_completion", "preferences": "preference"}
FURTHER = {"sft": "", "reward": "", "dpo": "dpo:\n  reference: start\n  beta: 0.1\n"}


def make_workload(folder: Path, scale: Scale) -> None:
    """Writes rows and model into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, write_rows(folder, scale), scale)


def write_configs(folder: Path, cell: Cell, scale: Scale, seed: int) -> None:
    """Our recipe and TRL's file for one run. Both shuffle in their own way, so the seed is another one each run: a lucky order of
    ragged rows pads a few percent less."""
    text = OURS.format(
        stage=cell.stage,
        seed=seed,
        max_length=scale.max_length,
        packing="" if cell.packing is None else f"  packing: {str(cell.packing).lower()}\n",
        rows=f"{cell.kind}.jsonl",
        format=FORMATS[cell.kind],
        num_rows=scale.count(cell),
        batch=scale.batch * cell.passes,
        per_device=scale.batch,
        bf16=str(computes_in_bf16(scale)).lower(),
        further=FURTHER[cell.stage],
    )
    (folder / f"{cell.name}.yaml").write_text(text, encoding="utf-8")
    source = {
        "path": "json",
        "data_files": str(folder / f"{cell.kind}.jsonl"),
        "split": f"train[:{scale.count(cell)}]",
    }
    config = COMMON | {
        "model_name_or_path": str(folder / "model"),
        "datasets": [source],
        "max_length": scale.max_length,
        "per_device_train_batch_size": scale.batch,
        "gradient_accumulation_steps": cell.passes,
        "seed": seed,
        "num_train_epochs": 1,
        "use_cpu": not scale.gpu,
        "report_to": "none",
        "save_strategy": "epoch",
        "disable_tqdm": True,
        "attn_implementation": "sdpa",
        "dtype": "float32",
        "bf16": computes_in_bf16(scale),
        **cell.trl,
    }
    (folder / f"trl-{cell.name}.yaml").write_text(json.dumps(config, indent=1), encoding="utf-8")
