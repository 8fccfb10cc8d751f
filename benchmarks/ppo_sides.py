"""One training of the PPO benchmark in a process of its own: ours, or TRL 1.12's in its own environment. Prints one JSON line.

    python -m benchmarks.ppo_sides {ours|trl} FOLDER --task NAME --updates N --seed N [--lora] [--share_base]

Both sides get the same models, prompts, batch, epochs, learning rates, KL weight and penalties. Neither evaluates or saves. Seconds are those
of the updates after the first; memory is the process's largest resident set.
"""

import argparse
import json
import os
import re
import time
from pathlib import Path
from typing import Any

from benchmarks.ppo_task import TASKS, Task

KL_COEF, MISSING_EOS = 0.05, 1.0
RECIPE = """stage: ppo
seed: {seed}
model:
  path: {folder}/policy
{lora}chat:
  template: chatml
data:
  max_length: 128
  train:
    - path: {folder}/prompts.jsonl
      format: prompt
train:
  max_steps: {steps}
  global_batch_size: {batch}
  per_device_train_batch_size: {batch}
  learning_rate: {learning_rate}
  lr_scheduler_type: linear
  optim: adamw_torch
  weight_decay: 0
  bf16: false
ppo:
  reward_model: {folder}/reward
  max_new_tokens: {max_new_tokens}
  per_device_rollout_batch_size: {batch}
  num_ppo_epochs: {epochs}
  kl_coef: {kl_coef}
  missing_eos_penalty: {missing_eos}
{ppo}eval:
  num_samples: 0
"""
LORA = "lora:\n  r: 16\n  lora_alpha: 32\n"
SHARED = "  share_base: true\n  value_model: start\n"


def peak_memory() -> float:
    """Largest resident set of this process in MiB. Its ru_maxrss would be the parent's, where that was larger when it forked."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


class Clock:
    """Wall and CPU seconds at the end of each update, and what was logged."""

    def __init__(self) -> None:
        self.wall, self.cpu, self.lines = [], [], []

    def tick(self, line: dict[str, Any]) -> None:
        """An update ended with this line."""
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.lines.append(line)

    def figures(self, batch: int) -> dict[str, float]:
        """Per second without the first update, which warms up; the score of the last ten updates."""
        updates = len(self.wall) - 1
        last = [line["objective/scores"] for line in self.lines[-10:]]
        figures = {
            "memory_mib": peak_memory(),
            "score_first": self.lines[0]["objective/scores"],
            "score": sum(last) / len(last),
            "kl": self.lines[-1]["objective/kl"],
        }
        if updates:
            figures["wall"] = batch * updates / (self.wall[-1] - self.wall[0])
            figures["cpu"] = batch * updates / (self.cpu[-1] - self.cpu[0])
        return figures


def run_ours(task: Task, folder: Path, updates: int, seed: int, *, lora: bool, share_base: bool) -> Clock:
    """Our trainer, as the stage builds it."""
    from transformers import TrainerCallback

    from alignment.recipe.loader import load_recipe
    from alignment.train.context import StageContext
    from alignment.train.prepare import prepare_run
    from alignment.train.stages.ppo import build
    from alignment.train.training import open_training

    name = f"ours-{seed}-{os.getpid()}"
    run_dir = folder / name
    run_dir.mkdir()
    path = folder / f"{name}.yaml"
    text = RECIPE.format(
        seed=seed, folder=folder, lora=LORA if lora else "", steps=updates * task.epochs, batch=task.batch,
        learning_rate=task.learning_rate, max_new_tokens=task.max_new_tokens, epochs=task.epochs, kl_coef=KL_COEF,
        missing_eos=MISSING_EOS, ppo=SHARED if share_base else "",
    )  # fmt: skip
    path.write_text(text)
    recipe = load_recipe(path, [])
    prepared = prepare_run(recipe, folder, run_dir, folder / "prepared")
    trainer, _, _ = build(open_training(recipe, StageContext(path, run_dir, prepared.folder)))
    trainer.args.save_strategy = "no"
    clock = Clock()

    class Tick(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            # The first update also has a line of its first step.
            if logs and "loss" in logs and state.global_step % task.epochs == 0:
                clock.tick({**scores, **logs})
            elif logs and "objective/scores" in logs:
                scores.update(logs)

    scores: dict[str, float] = {}
    trainer.add_callback(Tick())
    trainer.train()
    return clock


def run_trl(task: Task, folder: Path, updates: int, seed: int) -> Clock:
    """TRL 1.12's trainer with the same settings."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        PrinterCallback,
        TrainerCallback,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    ids = json.loads((folder / "prompt_ids.json").read_text())
    data = Dataset.from_list([{"input_ids": row} for row in ids])
    arguments = PPOConfig(
        output_dir=str(folder / f"trl-{seed}-{os.getpid()}"), per_device_train_batch_size=task.batch, gradient_accumulation_steps=1,
        num_mini_batches=1, num_ppo_epochs=task.epochs, total_episodes=updates * task.batch, learning_rate=task.learning_rate,
        lr_scheduler_type="linear", weight_decay=0.0, kl_coef=KL_COEF, missing_eos_penalty=MISSING_EOS, temperature=1.0,
        response_length=task.max_new_tokens, stop_token="eos", local_rollout_forward_batch_size=task.batch,
        num_sample_generations=0, report_to=[], bf16=False, use_cpu=True, seed=seed, gradient_checkpointing=False,
        logging_steps=1, disable_tqdm=True, save_strategy="no", max_grad_norm=1.0, optim="adamw_torch",
    )  # fmt: skip
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32) for _ in range(2))
    reward, critic = (
        AutoModelForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32) for _ in range(2)
    )
    clock = Clock()

    class Tick(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if logs and "objective/scores" in logs:
                clock.tick(dict(logs))

    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(policy.generation_config.eos_token_id)
    trainer = PPOTrainer(
        args=arguments, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward, value_model=critic,
        train_dataset=data, eval_dataset=data.select(range(8)), callbacks=[Tick()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return clock


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("side", choices=("ours", "trl"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--share_base", action="store_true")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    task, folder = TASKS[options.task], options.folder.resolve()
    if options.side == "ours":
        forms = {"lora": options.lora, "share_base": options.share_base}
        clock = run_ours(task, folder, options.updates, options.seed, **forms)
    else:
        clock = run_trl(task, folder, options.updates, options.seed)
    print(json.dumps(clock.figures(task.batch)))


if __name__ == "__main__":
    main()
