"""A plan for a terminal, and as JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

from alignment.plan.estimate import CONTEXT_GIB, SLACK, Plan
from alignment.plan.hardware import GIB
from alignment.report.numbers import format_count, format_number, format_seconds

_NAMES = {
    "step": "forward and backward pass",
    "optimizer": "optimizer step",
    "evaluation": "evaluation",
    "rollout": "rollout",
    "score": "scoring a rollout",
}


def format_plan(plan: Plan) -> str:
    """The plan as lines of a terminal, 100 columns wide."""
    options, hardware = plan.options, plan.options.hardware
    precision = "bfloat16" if plan.precision.bf16 else "float32"
    total = format_count(plan.run.weights["policy"].total)
    lines = [
        f"{plan.recipe_path}: {plan.recipe.stage}, {total} parameters, on {hardware}, {options.strategy}, {precision}",
        *(_line(name, text) for name, text in _facts(plan)),
        *_memory_lines(plan),
        _line("host memory", f"{plan.memory.host / GIB:,.1f} GiB on each machine while models are read or saved"),
        _line("disk", f"{plan.disk / 1e9:,.1f} GB: checkpoints that are kept, and the result"),
        *(_line(name, text) for name, text in _time(plan)),
    ]
    return "\n".join(lines)


def _line(name: str, text: str) -> str:
    return f"  {name:<13}{text}"


def _facts(plan: Plan) -> Iterator[tuple[str, str]]:
    schedule, train = plan.workload.schedule, plan.recipe.train
    for name, found in plan.models.items():
        weights = plan.run.weights[name]
        trained = f", {format_count(weights.trained)} trained" if 0 < weights.trained < weights.total else ""
        yield name, f"{format_count(weights.total)}{trained}: {found.known_from}"
    yield "rows", plan.workload.known_from
    number = "1 pass" if schedule.accumulation == 1 else f"{schedule.accumulation} passes"
    passes = f"{schedule.per_device_batch_size} a pass, {number} a step"
    yield "steps", f"{schedule.steps:,} of {schedule.global_batch_size:,} rows: {passes} on each process"
    rates = ", ".join(f"{rate:.2g} at step {step:,}" for step, rate in plan.learning_rates)
    yield "rate", f"{rates}; warm-up {train.warmup_steps:,} steps"
    most = "at most " if plan.workload.is_bound else ""
    padding = 1 - plan.workload.tokens / plan.workload.positions
    yield "tokens", f"{most}{format_count(plan.workload.tokens)}" + (f", and {padding:.0%} padding" if padding > 0.005 else "")  # fmt: skip


def _memory_lines(plan: Plan) -> Iterator[str]:
    place = "process" if plan.options.hardware.is_cpu else "card"
    yield _line("memory", f"GiB on each {place}")
    for part in plan.memory.parts:
        yield f"    {part.name:<44}{part.bytes / GIB:>8.2f}  throughout"
    for name, size in plan.memory.phases.items():
        yield f"    {_NAMES[name]:<44}{size / GIB:>8.2f}  in all"
    peak, limit = plan.memory.peak / GIB, plan.limit / GIB
    verdict = "fits" if plan.fits else "does not fit"
    whole = plan.options.hardware.card.memory_gib
    rest = "" if plan.options.hardware.is_cpu else f" ({whole:g} less {CONTEXT_GIB} for CUDA and {SLACK:.0%} between blocks)"  # fmt: skip
    yield _line("", f"{verdict}: {peak:,.1f} GiB at the most, of {limit:,.1f}{rest}")
    for change, size in plan.advice:
        yield _line("", f"fits with {change}: {size / GIB:,.1f} GiB")
    if not plan.fits and not plan.advice:
        yield _line("", "nothing tried here makes it fit: more or larger cards, LoRA, or shorter rows")


def _time(plan: Plan) -> Iterator[tuple[str, str]]:
    most = "at most " if plan.workload.is_bound else ""
    yield "FLOPs", f"{most}{plan.flops:.3g}, recomputation included, evaluation not"
    if plan.hours is None:
        yield "time", "not estimated on a CPU, whose rate nobody states"
        return
    hardware = plan.options.hardware
    rate = hardware.card.bf16_tflops if plan.precision.bf16 else hardware.card.fp32_tflops
    yield (
        "time",
        f"{most}{format_seconds(plan.hours * 3600)} at {plan.options.mfu:.0%} of {hardware.num_processes} x {rate:g} TFLOP/s; --mfu says "
        "otherwise",
    )
    hours = plan.hours * hardware.num_processes
    yield "cost", f"{most}{format_number(float(plan.usd))} USD for {hours:,.1f} card hours, before evaluation and set-up; --price says otherwise"  # fmt: skip


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The plan as flat facts, sizes in bytes."""
    schedule = plan.workload.schedule
    return {
        "recipe": str(plan.recipe_path),
        "stage": plan.recipe.stage,
        "hardware": str(plan.options.hardware),
        "strategy": plan.options.strategy,
        "bf16": plan.precision.bf16,
        "parameters": {name: one.total for name, one in plan.run.weights.items()},
        "trained_parameters": {name: one.trained for name, one in plan.run.weights.items()},
        "known_from": {name: found.known_from for name, found in plan.models.items()},
        "rows": plan.workload.known_from,
        "steps": schedule.steps,
        "global_batch_size": schedule.global_batch_size,
        "accumulation": schedule.accumulation,
        "tokens": plan.workload.tokens,
        "positions": plan.workload.positions,
        "is_upper_bound": plan.workload.is_bound,
        "learning_rates": [list(pair) for pair in plan.learning_rates],
        "memory_parts": {part.name: part.bytes for part in plan.memory.parts},
        "memory_phases": plan.memory.phases,
        "memory_limit": plan.limit,
        "fits": plan.fits,
        "fits_with": [change for change, _ in plan.advice],
        "host_memory": plan.memory.host,
        "disk": plan.disk,
        "flops": plan.flops,
        "hours": plan.hours,
        "usd": plan.usd,
    }


def format_total(plans: Sequence[Plan]) -> str:
    """Of several stages one after the other."""
    flops = sum(plan.flops for plan in plans)
    if any(plan.hours is None for plan in plans):
        return f"in all: {len(plans)} stages, {flops:.3g} FLOPs"
    hours, usd = sum(plan.hours for plan in plans), sum(plan.usd for plan in plans)
    return f"in all: {len(plans)} stages, {flops:.3g} FLOPs, {format_seconds(hours * 3600)}, {format_number(float(usd))} USD"
