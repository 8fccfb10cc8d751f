"""A PPO trainer on a two-layer model, made on the spot: no stage before it, and nothing verified after it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alignment.data.templates import template_text
from alignment.models.tokenizer import train_tokenizer
from alignment.recipe.loader import load_recipe
from alignment.recipe.model_spec import NewTokenizerSpec
from alignment.train.context import StageContext
from alignment.train.ppo.trainer import PPOTrainer
from alignment.train.prepare import prepare_run
from alignment.train.stages.ppo import build
from alignment.train.training import Training, open_training

WORDS = "the cat sat on a mat and saw an old dog run far away from all of it "
RECIPE = """stage: ppo
seed: {seed}
model:
  path: {start}
{lora}chat:
  template: chatml
data:
  max_length: 64
  train:
    - path: prompts.jsonl
      format: prompt
  eval:
    - path: held_out.jsonl
      format: prompt
train:
  max_steps: 12
  global_batch_size: 8
  per_device_train_batch_size: 8
  learning_rate: 1.0e-3
  lr_scheduler_type: constant
  optim: adamw_torch
  bf16: false
ppo:
  rewards:
    - stops
  max_new_tokens: 6
  per_device_rollout_batch_size: 8
  num_ppo_epochs: 2
  num_mini_batches: 2
  missing_eos_penalty: 0
eval:
  num_samples: 0
"""
LORA = "lora:\n  r: 4\n  lora_alpha: 8\n"


def make_config(vocab_size: int, **further: Any) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=96, tie_word_embeddings=True, **further,
    )  # fmt: skip


def write_toy(folder: Path, num_prompts: int = 24) -> Path:
    """Writes start/ and reward/ (models of one tokenizer), prompts and held-out prompts. Returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer([WORDS * 20], NewTokenizerSpec(algorithm="bpe", vocab_size=270), "chatml")
    tokenizer.chat_template = template_text("chatml")
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    torch.manual_seed(3)
    LlamaForCausalLM(make_config(len(tokenizer), **ids)).save_pretrained(folder / "start")
    torch.manual_seed(4)
    reward = LlamaForSequenceClassification(make_config(len(tokenizer), num_labels=1, **ids))
    with torch.no_grad():
        reward.score.weight.mul_(20)
    reward.save_pretrained(folder / "reward")
    for name in ("start", "reward"):
        tokenizer.save_pretrained(folder / name)
    rows = [{"prompt": f"{WORDS.split()[n % 11]} " * (1 + n % 4) + str(n), "answer": "cat"} for n in range(num_prompts)]
    write_rows(folder / "prompts.jsonl", rows)
    write_rows(folder / "held_out.jsonl", [{"prompt": f"dog {n}", "answer": "mat"} for n in range(5)])
    return folder


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


class TextRewards:
    """Stands in for the recipe's rewards: any function of a completion's text."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def place(self, place: Any) -> "TextRewards":
        return self

    def score(self, asked: Sequence[dict], rows: Sequence[Any]) -> list[float]:
        return [float(self.function(row.completion)) for row in rows]


def vowel_share(text: str) -> float:
    """Four times the share of vowels among the characters."""
    return 4 * sum(character in "aeiou" for character in text) / max(len(text), 1)


def open_toy(
    folder: Path, *overrides: str, run: str = "run", lora: bool = False, seed: int = 1, **context: Any
) -> Training:
    """A Training on the toy, with keys of the recipe set as on the command line."""
    path = folder / f"{run}.yaml"
    path.write_text(RECIPE.format(start=folder / "start", lora=LORA if lora else "", seed=seed), encoding="utf-8")
    recipe = load_recipe(path, overrides)
    prepared = prepare_run(recipe, folder, folder / run, folder / "prepared")
    (folder / run).mkdir(exist_ok=True)
    return open_training(recipe, StageContext(path, folder / run, prepared.folder, **context))


RECIPES_OWN = "the recipe's own"


def make_trainer(folder: Path, *overrides: str, rewards: Any = None, gate: bool = False, **toy: Any) -> PPOTrainer:
    """A trainer that is ready to train; silent, and without the gates of the first step unless they are asked for."""
    training = open_toy(folder, *overrides, **toy)
    chosen = None if rewards == RECIPES_OWN else rewards or TextRewards(lambda text: len(text) / 10)
    trainer, _, _ = build(training, chosen)
    training.log.console._speaks = False
    if not gate:
        trainer.callback_handler.callbacks = [
            one for one in trainer.callback_handler.callbacks if type(one).__name__ != "FirstStepGate"
        ]
    return trainer


def get_weights(trainer: PPOTrainer) -> torch.Tensor:
    return torch.cat([one.detach().float().reshape(-1) for one in trainer.model.parameters()])


def read_lines(trainer: PPOTrainer) -> list[dict]:
    """Lines of training from the log history, without times."""
    timed = ("time/", "tokens_per_second", "epoch")
    return [
        {name: value for name, value in line.items() if not name.startswith(timed)}
        for line in trainer.state.log_history
        if "loss" in line
    ]
