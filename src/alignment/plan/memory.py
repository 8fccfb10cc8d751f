"""What each process holds besides a pass: weights, gradients, optimizer states and an engine's buffers, by strategy.

Sources: torch 2.13 (DDP's buckets, fully_shard), accelerate 1.15 (dtypes under each engine), DeepSpeed 0.19 (`runtime/zero/`: partitions,
reduce and prefetch buckets). DeepSpeed keeps bfloat16 weights with fp32 copies of its part; FSDP2 deals out fp32 weights and gathers them in
bfloat16, a layer at a time. What is held between two passes was compared with what two CPU ranks held, for every stage and strategy
(tests/plan/test_measured.py); what an engine has gathered within one is from its source.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from alignment.plan.dry_run import DryRun, Precision, Weights
from alignment.plan.hardware import Hardware
from alignment.recipe.schema import Recipe

DEALT_OUT = ("zero3", "fsdp2")  # weights are, and those of frozen models too
BUCKET = 500_000_000  # elements that DeepSpeed reduces at once (its default), allocated whole on a GPU
LIVE = 1_000_000_000  # elements that ZeRO-3 may keep gathered (stage3_max_live_parameters)
# Bytes of optimizer state for a trained element.
STATES = {
    "adamw_torch": 8.0,
    "adamw_torch_fused": 8.0,
    "adamw_bnb_8bit": 2.03,  # two bytes, and an fp32 scale for each block of 256
    "paged_adamw_8bit": 2.03,
    "paged_adamw_32bit": 8.0,
    "adafactor": 0.02,  # a row and a column of each matrix
    "sgd": 0.0,
}
NF4 = 0.516  # bytes of a weight in nf4 with double quantisation, https://arxiv.org/abs/2305.14314


@dataclass(frozen=True)
class Part:
    """Bytes on one process that are there in every phase, and what they are."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Memory:
    """Bytes on the process that holds the most.

    Attributes:
        parts: held throughout.
        gradients: held between the passes of a step, and from the last one to the optimizer's.
        phases: the most in each phase, `parts` included.
        host: bytes of main memory on one machine while models are loaded or saved, by all its processes together.
    """

    parts: tuple[Part, ...]
    gradients: int
    phases: dict[str, int]
    host: int

    @property
    def peak(self) -> int:
        return max(self.phases.values())


def has_half_weights(recipe: Recipe, strategy: str, precision_bf16: bool, gpu: bool) -> bool:
    """Whether a forward pass reads bfloat16 weights, and not fp32 ones that autocast rounds."""
    lora = recipe.lora if recipe.stage != "pretrain" else None
    return precision_bf16 and (strategy.startswith("zero") or strategy == "fsdp2" or (lora is not None and gpu))


def keeps_gradients(strategy: str) -> bool:
    """Whether every process holds all gradients from its backward pass to its step."""
    return strategy in ("single", "ddp", "zero1")


def estimate_memory(recipe: Recipe, run: DryRun, precision: Precision, hardware: Hardware, strategy: str) -> Memory:
    """Bytes of one process in each phase of a run."""
    processes = hardware.num_processes
    parts = [Part(f"{name} weights", _weights(one, name, recipe, precision, strategy, processes)) for name, one in run.weights.items()]  # fmt: skip
    trained = sum(one.trained for one in run.weights.values())
    dealt = processes if strategy.startswith("zero") or strategy == "fsdp2" else 1
    if strategy.startswith("zero"):
        parts.append(Part("DeepSpeed's fp32 copies of the trained weights", 4 * trained // dealt))
    parts.append(Part(f"optimizer states ({recipe.train.optim})", int(STATES[recipe.train.optim] * trained / dealt)))
    parts += _engine_parts(trained, strategy, precision, processes)
    constant = sum(part.bytes for part in parts)
    gradients = _gradients(trained, strategy, precision, dealt)
    phases = {}
    for name, peak in run.peaks.items():
        # The gradients that a pass makes are in its peak where they stay whole, in the dtype that it was run in.
        further = max(0, gradients - run.gradients) if keeps_gradients(strategy) else gradients
        training = name == "step"
        phases[name] = constant + peak + (further if training else 0) + _gathered(run, strategy, precision, training)
    # Between backward pass and step the activations are gone and all gradients are there.
    whole = gradients + (4 * trained // dealt if strategy.startswith("zero") else 0)
    phases["optimizer"] = constant + whole + _optimizer_extra(recipe, trained, dealt)
    return Memory(tuple(parts), gradients, phases, _host(run, hardware))


def _weights(
    one: Weights, name: str, recipe: Recipe, precision: Precision, strategy: str, processes: int
) -> int:  # fmt: skip
    """Bytes of a model's weights on one process."""
    lora = recipe.lora if recipe.stage != "pretrain" else None
    engine_half = strategy.startswith("zero") and precision.bf16
    half_frozen = precision.bf16 and precision.gpu and (lora is not None or name == "reward")
    # TRL hands DPO's reference to DeepSpeed under every stage; PPO's and the reward model's are handed to ZeRO-3 alone.
    in_engine = name in ("policy", "critic") or recipe.stage == "dpo" or strategy == "zero3"
    frozen_bytes = 2 if half_frozen or (engine_half and in_engine) else 4
    trained_bytes = 2 if engine_half else 4
    if strategy == "fsdp2" and lora is not None and half_frozen:
        trained_bytes = 2  # the engine mixes no dtypes
    plain = one.frozen - one.quantised
    # What is not in 4 bits of such a model (embeddings, norms) peft keeps in fp32.
    frozen = NF4 * one.quantised + (4 if one.quantised else frozen_bytes) * plain
    total = trained_bytes * one.trained + frozen
    return int(total / processes) if strategy in DEALT_OUT else int(total)


def _engine_parts(trained: int, strategy: str, precision: Precision, processes: int) -> Iterator[Part]:
    """Buffers that are there whatever a pass does."""
    if processes == 1:
        return
    if strategy == "ddp":
        yield Part("buckets of DDP", 4 * trained)
    if strategy.startswith("zero") and precision.gpu:
        yield Part("reduce bucket of DeepSpeed", (2 if precision.bf16 else 4) * BUCKET)


def _gradients(trained: int, strategy: str, precision: Precision, dealt: int) -> int:
    """Bytes of the gradients that a process holds when its last backward pass is done."""
    size = 2 if strategy.startswith("zero") and precision.bf16 else 4
    return size * trained // (1 if strategy == "zero1" else dealt)


def _gathered(run: DryRun, strategy: str, precision: Precision, training: bool) -> int:
    """Bytes of weights, and of gradients on their way, that an engine has whole for a moment."""
    size = 2 if precision.bf16 else 4
    if strategy == "zero3":
        largest = max(run.weights.values(), key=lambda one: one.total)
        return size * min(largest.total, max(LIVE, largest.root + 2 * largest.layer))
    if strategy == "fsdp2":
        # The layer at work and the next one, what stands outside of layers, and unsharded gradients until they are reduced in fp32.
        gathered = max(size * (2 * one.layer + one.root) for one in run.weights.values())
        largest = max((max(one.layer, one.root) for one in run.weights.values() if one.trained), default=0)
        share = max((one.trained / one.total for one in run.weights.values()), default=0)
        return gathered + (int((size + 4) * largest * share) if training else 0)
    return 0


def _optimizer_extra(recipe: Recipe, trained: int, dealt: int) -> int:
    """Temporary tensors of a step: none of fused AdamW; torch's own works on lists of whole tensors."""
    return 4 * trained // dealt if recipe.train.optim in ("adamw_torch", "adafactor") else 0


def _host(run: DryRun, hardware: Hardware) -> int:
    """Every process reads the weights for itself; one gathers what is saved, in fp32 and once more in the saved dtype."""
    loading = hardware.per_machine * 4 * max(one.total for one in run.weights.values())
    return max(loading, 2 * 4 * run.weights["policy"].total)
