"""The plan beside what real runs hold: every stage, every strategy, on the shapes that those runs had.

In one process the counter watches the tensors of a real pass: its peak is compared with the plan's. Of two ranks under an engine what is
held between two passes of a step is compared: weights, their parts, optimizer states and gradients, as every engine deals them out.
"""

import dataclasses
import gc
import json
import os
from pathlib import Path

import pytest
import torch

from alignment.launch.ranks import preload, run_ranks
from alignment.launch.request import TrainRequest
from alignment.launch.worker import run_worker
from alignment.plan import estimate
from alignment.plan.estimate import Options, make_plan
from alignment.plan.hardware import parse_hardware
from alignment.plan.live_bytes import LiveBytes
from alignment.plan.memory import BUCKET
from alignment.train.precision import has_bf16_instructions
from tests.ragged_rows import write_rows
from tests.unfinished import leave_out_the_end

CONFIGS = Path(__file__).parents[2] / "accelerate_configs"
START = "model:\n  path: runs/held/pretrain/final\nchat:\n  template: chatml\n"
LORA = "lora:\n  r: 16\n  lora_alpha: 32\n"
PAIRS = "data:\n  max_length: 64\n  train:\n    - path: pairs.jsonl\n      format: preference\n"
CHATS = "data:\n  max_length: 64\n  train:\n    - path: chats.jsonl\n      format: messages\n"
TRAIN = """train:
  max_steps: 8
  global_batch_size: 16
  per_device_train_batch_size: 4
  learning_rate: 1.0e-3
  bf16: false
"""
RECIPES = {
    "tokenizer": "stage: tokenizer\ntokenizer:\n  algorithm: bpe\n  vocab_size: 300\ndata:\n  train:\n"
    "    - path: text.jsonl\n      format: text\n",
    "pretrain": "stage: pretrain\nmodel:\n  config:\n    model_type: llama\n    hidden_size: 512\n    intermediate_size: 1024\n"
    "    num_hidden_layers: 4\n    num_attention_heads: 8\n    max_position_embeddings: 64\n"
    "tokenizer:\n  path: runs/held/tokenizer/final\ndata:\n  max_length: 64\n  packing: false\n  train:\n"
    "    - path: text.jsonl\n      format: text\n" + TRAIN,
    "sft": "stage: sft\n" + START + CHATS + TRAIN,
    "sft-lora": "stage: sft\n" + START + LORA + CHATS + TRAIN,
    "reward": "stage: reward\n" + START + PAIRS + TRAIN,
    "dpo": "stage: dpo\n" + START + PAIRS + TRAIN + "dpo:\n  reference: start\n",
    "dpo-lora": "stage: dpo\n" + START + LORA + PAIRS + TRAIN + "dpo:\n  reference: start\n",
    "ppo": "stage: ppo\n" + START + "data:\n  max_length: 48\n  train:\n    - path: chats.jsonl\n      format: messages\n" + TRAIN
    + "ppo:\n  reward_model: runs/held/reward/final\n  max_new_tokens: 16\n",
}  # fmt: skip
BF16, RECOMPUTED = "train.bf16=true", "train.gradient_checkpointing=true"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with recipes/held, and the runs that its stages start from."""
    root = tmp_path_factory.mktemp("held")
    folder = root / "recipes/held"
    folder.mkdir(parents=True)
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    write_rows(folder, ("text", "chats", "pairs"), 90, 24)
    preload(["sft", "reward", "dpo", "ppo"])
    for name in ("tokenizer", "pretrain"):
        make(root, name)
    return root


def make(root: Path, name: str) -> None:
    """A run that others start from, to its end."""
    if not (root / f"runs/held/{name}/final").is_dir():
        assert run_ranks(lambda: work(root, name), config=None, num_processes=1, log_dir=root / name) == 0


def work(root: Path, name: str, out: str | None = None, overrides: tuple[str, ...] = ()) -> int:
    os.chdir(root)
    if out is not None:
        measure_a_pass(root / f"{out}.json")
    run_dir = Path(f"runs/{out}") if out else None
    return run_worker(TrainRequest(Path(f"recipes/held/{name}.yaml"), out=run_dir, overrides=overrides))


def measure_a_pass(path: Path) -> None:
    """Of rank 0: what is held before the last pass of the second step, the peak of that pass, and its shape; in this forked process."""
    from transformers import Trainer

    from alignment.train import passes as spared
    from alignment.train.trl_bridge import head

    spared.LEAST_SAVED = 1  # planned is a whole pass,
    head._has_labels_only = lambda device: False  # and a label at every position
    leave_out_the_end()
    original, passes = Trainer.training_step, []

    def step(trainer: Trainer, model: torch.nn.Module, inputs: dict, count: object = None) -> torch.Tensor:
        passes.append(inputs)
        if trainer.args.process_index or len(passes) != 2 * trainer.args.gradient_accumulation_steps:
            return original(trainer, model, inputs, count)
        held = find_tensors(model)
        counter = LiveBytes()
        counter.leave_out(held)
        total = sum(tensor.untyped_storage().nbytes() for tensor in held)
        with counter:
            loss = original(trainer, model, inputs, count)
        facts = {"held": total, "peak": total + counter.peak, "length": inputs["input_ids"].shape[1]}
        path.write_text(json.dumps(facts))
        return loss

    Trainer.training_step = step


def find_tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    """One tensor of every storage in this process; a bucket in which an engine collects gradients is left out."""
    gc.collect()
    found = {}
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    for one in [*gc.get_objects(), *gradients]:
        if isinstance(one, torch.Tensor):
            local = one.to_local() if hasattr(one, "to_local") else one
            if local.numel() not in (0, BUCKET):
                found[local.untyped_storage().data_ptr()] = local
    return list(found.values())


def measure(study: Path, name: str, strategy: str, overrides: tuple[str, ...]) -> dict[str, int]:
    if name == "ppo":
        make(study, "reward")
    out = "-".join([name, strategy, *overrides])
    config = None if strategy == "single" else CONFIGS / f"{strategy}.yaml"
    processes = 1 if config is None else 2
    code = run_ranks(
        lambda: work(study, name, out, overrides), config=config, num_processes=processes, log_dir=study / "logs" / out
    )
    assert code == 0
    return json.loads((study / f"{out}.json").read_text())


def plan(
    study: Path,
    name: str,
    strategy: str,
    overrides: tuple[str, ...],
    length: int,
    monkeypatch: pytest.MonkeyPatch,
) -> estimate.Plan:
    """The plan for a pass of rows of that length: which batch is measured is chance, and the plan's is the longest."""
    monkeypatch.chdir(study)
    read = estimate.read_workload

    def read_shape(*args: object, **options: object) -> object:
        workload = read(*args, **options)
        completion = 16 if name == "ppo" else 1
        prompt = length - completion if name == "ppo" else length // 2
        return dataclasses.replace(
            workload, longest=dataclasses.replace(workload.longest, length=length, prompt=prompt)
        )

    monkeypatch.setattr(estimate, "read_workload", read_shape)
    hardware = parse_hardware("cpu" if strategy == "single" else "2xcpu")
    return make_plan(
        Path(f"recipes/held/{name}.yaml"), overrides, Path(f"runs/held/{name}"), Options(hardware, strategy)
    )


# Without instructions for it bfloat16 takes minutes here.
IN_BF16 = has_bf16_instructions()
FAST_PASSES = [("sft", (BF16, RECOMPUTED) if IN_BF16 else ())]
ALL_PASSES = [
    (name, overrides)
    for name in RECIPES
    if name != "tokenizer"
    for overrides in ((), (BF16,), (BF16, RECOMPUTED))
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        pytest.param(*one, marks=() if one in FAST_PASSES else pytest.mark.slow, id="-".join([one[0], *one[1]]))
        for one in ALL_PASSES
    ],
)
def test_a_pass_takes_what_was_planned(study, monkeypatch, name, overrides):
    found = measure(study, name, "single", overrides)
    planned = plan(study, name, "single", overrides, found["length"], monkeypatch)
    assert planned.memory.phases["step"] == pytest.approx(found["peak"], rel=0.02)


FAST_HELD = [(*one, (BF16,) if IN_BF16 else ()) for one in (("dpo", "zero3"), ("sft", "fsdp2"))]
ALL_HELD = [
    (name, strategy, overrides)
    for name in RECIPES
    if name != "tokenizer"
    for strategy in ("ddp", "zero1", "zero2", "zero3", "fsdp2")
    for overrides in ((BF16,), ())
]


@pytest.mark.parametrize(
    ("name", "strategy", "overrides"),
    [
        pytest.param(*one, marks=() if one in FAST_HELD else pytest.mark.slow, id="-".join([*one[:2], *one[2]]))
        for one in ALL_HELD
    ],
)
def test_ranks_hold_what_was_planned(study, monkeypatch, name, strategy, overrides):
    found = measure(study, name, strategy, overrides)
    memory = plan(study, name, strategy, overrides, found["length"], monkeypatch).memory
    # The engines' C++ holds buckets that Python does not see.
    held = sum(part.bytes for part in memory.parts if "bucket" not in part.name) + memory.gradients
    # Small weights, as those of adapters, stay whole on every rank of ZeRO-3 (stage3_param_persistence_threshold).
    assert held == pytest.approx(found["held"], rel=0.15 if (name, strategy) in SMALL_WEIGHTS else 0.02)


SMALL_WEIGHTS = [("sft-lora", "zero3"), ("dpo-lora", "zero3")]
