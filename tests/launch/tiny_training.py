"""A two-layer Llama and transformers' Trainer, for what launches are tested with. Runs in forked ranks."""

import json
from pathlib import Path

import torch

from alignment.launch.check import check_launch
from alignment.launch.environment import LaunchEnvironment, settle_environment

GLOBAL_BATCH, STEPS = 4, 2


def make_model(seed: int = 0) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, use_cache=False,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def make_rows() -> list[dict]:
    """Rows of the same length, so that each rank's mean is its share of the tokens."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 64, (GLOBAL_BATCH * STEPS, 12), generator=generator)
    return [{"input_ids": row, "labels": row} for row in ids]


def make_trainer(environment: LaunchEnvironment, out: Path, weights: Path | None = None, **arguments):
    """A trainer that checks the launch when training begins. ZeRO-3 draws other weights than one process, so they may be given."""
    from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

    class Check(TrainerCallback):
        def on_train_begin(self, *_, **__):
            check_launch(trainer, environment)

    args = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=GLOBAL_BATCH // environment.world_size,
        max_steps=STEPS,
        logging_steps=1,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        **{"use_cpu": environment.cpu, "bf16": False} | arguments,
    )
    model = AutoModelForCausalLM.from_pretrained(weights, use_cache=False) if weights else make_model()
    trainer = Trainer(model, args, train_dataset=make_rows(), callbacks=[Check()])
    return trainer


def train(out: Path, weights: Path | None = None, **arguments) -> int:
    """Two steps; every rank writes the losses that it logged to `out`/RANK.json."""
    environment = settle_environment()
    trainer = make_trainer(environment, out, weights, **arguments)
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    (out / f"{environment.rank}.json").write_text(json.dumps(losses))
    return 0


def read_losses(out: Path, num_ranks: int) -> list[list[float]]:
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(num_ranks)]
