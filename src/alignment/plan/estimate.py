"""From a recipe and hardware to a plan: what fits, how long it takes, what it costs, and where each number is from."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import AutoConfig, get_scheduler

from alignment.errors import RecipeError
from alignment.plan.architecture import Architecture, find_architecture, find_own_architecture
from alignment.plan.dry_run import DryRun, Precision, Shape, dry_run
from alignment.plan.hardware import GIB, Hardware
from alignment.plan.memory import Memory, Part, estimate_memory, has_half_weights, keeps_gradients
from alignment.plan.workload import Workload, read_workload
from alignment.recipe.loader import load_recipe
from alignment.recipe.schema import PpoRecipe, Recipe
from alignment.train.precision import has_bf16_instructions
from alignment.train.trial import run_bytes

STAGES = ("pretrain", "sft", "reward", "dpo", "ppo")
# Part of a card's rate that a run reaches: assumed, unless the user gives what a run of his own reached. One H100 reached 27 % with packed
# rows of 1,024 tokens and 350 M parameters, and 4 % with padded ones (benchmarks/results/gpu.md).
MFU = 0.3
CONTEXT_GIB = 0.8  # CUDA's own, beside torch
SLACK = 0.05  # of a card's memory, that stays between allocated blocks
TOKEN_SECONDS = 0.025  # of transformers' `generate`, at least, for a token of a batch: launches of kernels


@dataclass(frozen=True)
class Options:
    """What the command line says beside the recipe."""

    hardware: Hardware
    strategy: str
    mfu: float = MFU
    usd_per_hour: float | None = None
    rows: int | None = None
    tokens_per_row: int | None = None


@dataclass(frozen=True)
class Plan:
    """What one stage will take.

    Attributes:
        limit: bytes of a card that a run can have.
        hours: None on a CPU, whose rate nobody states.
        advice: changes with which it fits, and the peak in bytes then.
    """

    recipe_path: Path
    recipe: Recipe
    options: Options
    models: dict[str, Architecture]
    workload: Workload
    run: DryRun
    memory: Memory
    precision: Precision
    limit: int
    learning_rates: tuple[tuple[int, float], ...]
    flops: float
    hours: float | None
    usd: float | None
    disk: int
    advice: tuple[tuple[str, int], ...] = ()

    @property
    def fits(self) -> bool:
        return self.memory.peak <= self.limit


def make_plan(recipe_path: Path, overrides: tuple[str, ...], run_dir: Path, options: Options) -> Plan:
    """The plan of one recipe, with advice where it does not fit.

    Raises:
        RecipeError: a stage without a model to plan for, sizes or rows that nobody knows, or a batch that does not divide.
    """
    plan = _plan(recipe_path, overrides, run_dir, options)
    return plan if plan.fits else replace(plan, advice=tuple(_find_what_fits(plan, overrides, run_dir)))


def _plan(recipe_path: Path, overrides: tuple[str, ...], run_dir: Path, options: Options) -> Plan:
    recipe, hardware = load_recipe(recipe_path, overrides), options.hardware
    if recipe.stage not in STAGES:
        raise RecipeError(
            f"{recipe_path}: stage {recipe.stage} trains no model; one of {', '.join(STAGES)} was expected."
        )
    workload = read_workload(
        recipe,
        recipe_path,
        run_dir,
        hardware.num_processes,
        rows=options.rows,
        tokens_per_row=options.tokens_per_row,
    )
    models = _find_models(recipe, recipe_path)
    bf16 = _bf16(recipe, hardware)
    gpu = not hardware.is_cpu
    precision = Precision(bf16, has_half_weights(recipe, options.strategy, bf16, gpu), gpu)
    accumulates = workload.schedule.accumulation > 1
    run = dry_run(
        recipe,
        models,
        _shapes(recipe, workload),
        precision,
        keep_gradients=keeps_gradients(options.strategy),
        accumulates=accumulates,
    )
    if isinstance(recipe, PpoRecipe):
        run = _share_base(recipe, run)
        run.peaks["rollout"] = _rollout_bytes(recipe, models["policy"], workload.longest.length, bf16)
    memory = estimate_memory(recipe, run, precision, hardware, options.strategy)
    memory = _with_engine(recipe, memory, hardware)
    flops = _count_flops(recipe, run, workload)
    hours = _hours(recipe, run, workload, flops, precision, options)
    trained = sum(one.trained for one in run.weights.values())
    total = sum(one.total for name, one in run.weights.items() if name in ("policy", "critic"))
    price = options.usd_per_hour if options.usd_per_hour is not None else hardware.card.usd_per_hour
    return Plan(
        recipe_path,
        recipe,
        options,
        models,
        workload,
        run,
        memory,
        precision,
        limit=_limit(hardware),
        learning_rates=_learning_rates(recipe, workload),
        flops=flops,
        hours=hours,
        usd=None if hours is None else hours * hardware.num_processes * price,
        disk=run_bytes(recipe.train, workload.schedule.steps, total, trained, options.strategy),
    )


def _bf16(recipe: Recipe, hardware: Hardware) -> bool:
    if recipe.train.bf16 != "auto":
        return recipe.train.bf16
    return has_bf16_instructions() if hardware.is_cpu else True


def _limit(hardware: Hardware) -> int:
    card = int(hardware.card.memory_gib * GIB)
    if hardware.is_cpu:
        return card // hardware.per_machine
    return int((1 - SLACK) * card - CONTEXT_GIB * GIB)


# ------------------------------------------------------------------------------------------------ models and passes


def _find_models(recipe: Recipe, recipe_path: Path) -> dict[str, Architecture]:
    """The models that are in memory, by what they are for."""
    policy = find_own_architecture(recipe, recipe_path)
    models = {"policy": policy}
    if recipe.stage == "dpo":
        named = recipe.dpo.reference
        if named not in ("start", "base"):
            models["reference"] = find_architecture(named, recipe_path)
        elif recipe.lora is None or (named == "base" and recipe.lora.start == "continue"):
            models["reference"] = policy
    if isinstance(recipe, PpoRecipe):
        reward = find_architecture(recipe.ppo.reward_model, recipe_path) if recipe.ppo.reward_model else None
        named = recipe.ppo.value_model or ("reward" if reward else "start")
        critics = {"start": policy, "reward": reward}
        models["critic"] = critics[named] if named in critics else find_architecture(named, recipe_path)
        if reward:
            models["reward"] = reward
        if recipe.lora is None:
            models["reference"] = policy
    return models


def _shapes(recipe: Recipe, workload: Workload) -> dict[str, Shape]:
    longest = workload.longest
    shapes = {"step": longest}
    if isinstance(recipe, PpoRecipe):
        shapes["score"] = replace(longest, rows=recipe.ppo.per_device_rollout_batch_size)
    if recipe.data.eval:
        shapes["evaluation"] = replace(longest, rows=recipe.eval.per_device_eval_batch_size)
    return shapes


def _share_base(recipe: PpoRecipe, run: DryRun) -> DryRun:
    """With one base in memory critic and reward model have their adapters only."""
    if not recipe.ppo.share_base:
        return run
    weights = {name: one if name == "policy" else replace(one, frozen=0) for name, one in run.weights.items()}
    return replace(run, weights=weights)


def _rollout_bytes(recipe: PpoRecipe, policy: Architecture, length: int, bf16: bool) -> int:
    """Keys and values of a batch of full length, and its logits in fp32 with a copy."""
    if recipe.ppo.sampler != "transformers":
        return 0
    fields = {key: value for key, value in policy.config.items() if key != "model_type"}
    config = AutoConfig.for_model(policy.config["model_type"], **fields)
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * width
    rows = recipe.ppo.per_device_rollout_batch_size
    return rows * (length * keys * (2 if bf16 else 4) + 2 * 4 * config.vocab_size)


def _with_engine(recipe: Recipe, memory: Memory, hardware: Hardware) -> Memory:
    """What vLLM takes for itself on the same card."""
    if not isinstance(recipe, PpoRecipe) or recipe.ppo.sampler != "vllm_colocate":
        return memory
    taken = Part("vLLM", int((recipe.ppo.sampler_memory or 0.3) * hardware.card.memory_gib * GIB))
    return replace(
        memory,
        parts=(*memory.parts, taken),
        phases={name: size + taken.bytes for name, size in memory.phases.items()},
    )


# ------------------------------------------------------------------------------------------------ time


def _count_flops(recipe: Recipe, run: DryRun, workload: Workload) -> float:
    """Of all steps, padding and recomputation included, evaluation not."""
    step = run.flops["step"] / run.tokens["step"]
    if not isinstance(recipe, PpoRecipe):
        return step * workload.positions
    score = run.flops["score"] / run.tokens["score"]
    sampling = 2 * run.weights["policy"].total
    return workload.positions * (recipe.ppo.num_ppo_epochs * step + score + sampling)


def _hours(
    recipe: Recipe, run: DryRun, workload: Workload, flops: float, precision: Precision, options: Options
) -> float | None:
    card, processes = options.hardware.card, options.hardware.num_processes
    tflops = card.bf16_tflops if precision.bf16 else card.fp32_tflops
    if tflops is None:
        return None
    seconds = flops / (processes * tflops * 1e12 * options.mfu)
    if isinstance(recipe, PpoRecipe):
        batches = workload.schedule.num_positions / (processes * recipe.ppo.per_device_rollout_batch_size)
        reading = 2 * run.weights["policy"].total / (card.bandwidth_gb * 1e9)
        seconds += batches * recipe.ppo.max_new_tokens * max(TOKEN_SECONDS, reading)
    return seconds / 3600


def _learning_rates(recipe: Recipe, workload: Workload) -> tuple[tuple[int, float], ...]:
    """(step, learning rate) at the start, a quarter, a half and the end."""
    import torch

    train, steps = recipe.train, workload.schedule.steps
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=train.learning_rate)
    scheduler = get_scheduler(
        train.lr_scheduler_type,
        optimizer,
        num_warmup_steps=train.warmup_steps,
        num_training_steps=steps,
        scheduler_specific_kwargs=dict(train.lr_scheduler_kwargs),
    )
    places = (0, steps // 4, steps // 2, max(0, steps - 1))
    return tuple((step, train.learning_rate * scheduler.lr_lambdas[0](step)) for step in dict.fromkeys(places))


# ------------------------------------------------------------------------------------------------ advice


def _find_what_fits(plan: Plan, overrides: tuple[str, ...], run_dir: Path) -> Iterator[tuple[str, int]]:
    """The first changes, from the cheapest on, with which it fits: recomputation, fewer rows a pass, weights dealt out."""
    options, train = plan.options, plan.recipe.train
    checkpointing = () if train.gradient_checkpointing else ("train.gradient_checkpointing=true",)
    fewer = (*checkpointing, "train.per_device_train_batch_size=1")
    tries: list[tuple[tuple[str, ...], str]] = []
    if checkpointing:
        tries.append((checkpointing, options.strategy))
    if train.per_device_train_batch_size > 1:
        tries.append((fewer, options.strategy))
    if options.hardware.num_processes > 1:
        tries += [(changes, other) for other in ("zero3", "fsdp2") if other != options.strategy for changes in (checkpointing, fewer)]  # fmt: skip
    for changes, strategy in tries:
        changed = {change.partition("=")[0] for change in changes}
        others = [one for one in overrides if one.partition("=")[0] not in changed]
        tried = _plan(plan.recipe_path, (*others, *changes), run_dir, replace(options, strategy=strategy))
        if tried.fits:
            named = [f"--accelerate_config {strategy}"] if strategy != options.strategy else []
            yield " ".join([*named, *(f"--set {change}" for change in changes)]), tried.memory.peak
            return
