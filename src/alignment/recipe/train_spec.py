"""How a stage trains: `train` of a recipe, with the rules between durations, schedules and checkpoints."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from alignment.recipe.shape import expected, kinds
from alignment.recipe.spec import BrokenRule, Fraction, Positive, PositiveNumber, Scalar, Spec, mapping_of

Scheduler = Literal[
    "linear", "cosine", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt", "cosine_with_min_lr",
    "warmup_stable_decay",
]  # fmt: skip
_Ramp = Literal["linear", "cosine", "1-sqrt"]
# What each scheduler of transformers 5.23 reads from lr_scheduler_kwargs (optimization.py), and the values that make a schedule.
SCHEDULER_KWARGS: dict[str, dict[str, Any]] = {
    "cosine": {"num_cycles": PositiveNumber},
    "polynomial": {"lr_end": Annotated[float, Field(ge=0)], "power": PositiveNumber},
    "inverse_sqrt": {"timescale": Positive},
    "cosine_with_min_lr": {
        "num_cycles": PositiveNumber, "min_lr": Annotated[float, Field(ge=0)], "min_lr_rate": Fraction,
    },
    "warmup_stable_decay": {
        "num_decay_steps": Positive, "warmup_type": _Ramp, "decay_type": _Ramp, "min_lr_ratio": Fraction,
        "num_cycles": PositiveNumber,
    },
}  # fmt: skip
# Of these it needs exactly one.
SCHEDULER_NEEDS = {"cosine_with_min_lr": ("min_lr", "min_lr_rate"), "warmup_stable_decay": ("num_decay_steps",)}
# The key that says where a schedule ends, and its default.
_SCHEDULER_ENDS = {"polynomial": ("lr_end", 1e-7), "cosine_with_min_lr": ("min_lr", 0.0)}
Optimizer = Literal[
    "adamw_torch", "adamw_torch_fused", "adamw_bnb_8bit", "paged_adamw_8bit", "paged_adamw_32bit", "adafactor", "sgd"
]  # fmt: skip


def _one_duration(train: "TrainSpec") -> None:
    if (train.num_train_epochs is None) == (train.max_steps is None):
        raise BrokenRule("give exactly one of 'num_train_epochs' and 'max_steps'", "num_train_epochs", "max_steps")


def _scheduler_reads_kwargs(train: "TrainSpec") -> None:
    types = SCHEDULER_KWARGS.get(train.lr_scheduler_type, {})
    known = sorted(types)
    for name, value in train.lr_scheduler_kwargs.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise BrokenRule(
                f"lr_scheduler_kwargs: '{name}' is not read by lr_scheduler_type {train.lr_scheduler_type}; "
                + (f"did you mean '{near[0]}'?" if near else f"it reads: {', '.join(known) or 'none'}"),
                f"lr_scheduler_kwargs.{name}",
            )
        if not _is_of_type(value, types[name]):
            raise BrokenRule(
                f"lr_scheduler_kwargs.{name}: found {value!r}; {expected(kinds(types[name]))} was expected",
                f"lr_scheduler_kwargs.{name}",
            )
    _check_needed_kwargs(train)


def _is_of_type(value: Scalar, wanted: Any) -> bool:
    try:
        TypeAdapter(wanted, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError:
        return False
    return True


def _check_needed_kwargs(train: "TrainSpec") -> None:
    needed = SCHEDULER_NEEDS.get(train.lr_scheduler_type, ())
    given = [name for name in needed if name in train.lr_scheduler_kwargs]
    if needed and len(given) != 1:
        raise BrokenRule(
            f"lr_scheduler_type {train.lr_scheduler_type} needs {'one of ' if len(needed) > 1 else ''}{', '.join(needed)} in "
            f"lr_scheduler_kwargs; found {' and '.join(given) or 'none'}",
            "lr_scheduler_type",
            *(f"lr_scheduler_kwargs.{name}" for name in given),
        )


def _schedule_falls(train: "TrainSpec") -> None:
    if train.lr_scheduler_type not in _SCHEDULER_ENDS:
        return
    name, default = _SCHEDULER_ENDS[train.lr_scheduler_type]
    end = train.lr_scheduler_kwargs.get(name, default)
    if isinstance(end, int | float) and end >= train.learning_rate:
        raise BrokenRule(
            f"lr_scheduler_kwargs.{name}: {end:g} is not below learning_rate {train.learning_rate:g}, from which it falls; "
            "lower it",
            "lr_scheduler_type",
            f"lr_scheduler_kwargs.{name}",
        )


def _polynomial_has_steps(train: "TrainSpec") -> None:
    """It divides by the steps that follow the warm-up, at the very last one."""
    if train.lr_scheduler_type == "polynomial" and train.warmup_steps == train.max_steps:
        raise BrokenRule(
            f"warmup_steps: {train.warmup_steps} are all of max_steps; lr_scheduler_type polynomial needs steps after them",
            "warmup_steps",
        )


def _constant_has_no_warmup(train: "TrainSpec") -> None:
    if train.lr_scheduler_type == "constant" and train.warmup_steps:
        raise BrokenRule(
            "lr_scheduler_type constant ignores warmup_steps; use constant_with_warmup", "lr_scheduler_type"
        )


def _best_is_evaluated(train: "TrainSpec") -> None:
    if train.keep == "best" and train.eval_steps is None:
        raise BrokenRule("keep: best needs eval_steps", "keep")


def _best_is_saved(train: "TrainSpec") -> None:
    if train.keep == "best" and train.save_steps != train.eval_steps:
        raise BrokenRule(
            "keep: best needs save_steps equal to eval_steps, so that the best weights are on disk", "keep"
        )


class TrainSpec(Spec):
    """The optimisation. Nothing here depends on how many processes run it."""

    num_train_epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="passes over the rows; or give `max_steps`"
    )
    max_steps: Positive | None = Field(None, description="optimizer steps; or give `num_train_epochs`")
    global_batch_size: Positive = Field(
        32, description="rows in one optimizer step over all processes; accumulation is derived"
    )
    per_device_train_batch_size: Positive = Field(8, description="rows in one forward pass of one process")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate")
    lr_scheduler_type: Scheduler = Field("cosine", description="shape of the schedule")
    lr_scheduler_kwargs: mapping_of(Scalar) = Field({}, description="further arguments of that schedule")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="steps of linear warm-up")
    optim: Optimizer = Field("adamw_torch_fused", description="optimizer")
    adam_beta1: Fraction = Field(0.9, description="decay of the first moment")
    adam_beta2: Fraction = Field(0.999, description="decay of the second moment")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="decoupled weight decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradient norm is clipped to this")
    bf16: Literal["auto"] | bool = Field(
        "auto", description="compute in bfloat16; auto: where the device is faster with it"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations to save memory")
    logging_steps: Positive = Field(10, description="steps between two lines of metrics.jsonl")
    eval_steps: Positive | None = Field(None, description="steps between two evaluations; default: at the end only")
    save_steps: Positive | None = Field(None, description="steps between two checkpoints; default: at the end only")
    save_total_limit: Positive = Field(2, description="checkpoints kept")
    keep: Literal["last", "best"] = Field(
        "last", description="which weights become final/: the last or those of the best eval loss"
    )
    hang_timeout: Annotated[float, Field(ge=0)] = Field(
        1800.0, description="seconds without progress in training after which a rank counts as hung; 0: never"
    )
    max_restarts: Annotated[int, Field(ge=0)] = Field(
        0, description="times that a run with a lost or hung rank is started again from its last checkpoint"
    )

    on_loss_spike: Literal["ignore", "alert", "stop"] = Field(
        "alert",
        description="what follows a logged loss far above the lines before it: nothing, a line in log and report, or the end of the run",
    )

    RULES = (
        _one_duration,
        _scheduler_reads_kwargs,
        _schedule_falls,
        _polynomial_has_steps,
        _constant_has_no_warmup,
        _best_is_evaluated,
        _best_is_saved,
    )


class PpoTrainSpec(TrainSpec):
    """The optimisation. Steps are optimizer steps; an update is `num_ppo_epochs` x `num_mini_batches` of them."""

    num_train_epochs: Annotated[float, Field(gt=0)] | None = Field(
        None, description="passes over the prompts; or give `max_steps`"
    )
    max_steps: Positive | None = Field(
        None, description="optimizer steps, in whole updates; or give `num_train_epochs`"
    )
    global_batch_size: Positive = Field(
        32, description="completions in one optimizer step (a mini-batch) over all processes; accumulation is derived"
    )
    per_device_train_batch_size: Positive = Field(8, description="completions in one forward pass of one process")
    learning_rate: Annotated[float, Field(gt=0)] = Field(description="peak learning rate of the policy")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        1.0, description="gradient norms of policy and critic are clipped to this, each by itself (ZeRO: both together)"
    )
    logging_steps: Positive | None = Field(
        None, description="steps between two lines of metrics.jsonl; default: one update"
    )
    eval_steps: Positive | None = Field(
        None, description="steps between two evaluations, in whole updates; default: at the end only"
    )
    save_steps: Positive | None = Field(
        None, description="steps between two checkpoints, in whole updates; default: at the end only"
    )
    keep: Literal["last"] = Field("last", description="which weights become final/")
    on_loss_spike: Literal["ignore"] = Field(
        "ignore", description="losses of a policy and its critic rise and fall as both change; see `ppo.alerts`"
    )
