"""What all the projects have in common, because it is transformers': batch, schedule, optimiser, precision, LoRA.

Names and defaults are those of transformers 5.23 `TrainingArguments` and peft 0.21; a project's own names are given by the caller.
"""

import math
from typing import Any, get_args

from alignment.convert.draft import Draft
from alignment.recipe.places import keeps_its_code
from alignment.recipe.train_spec import SCHEDULER_KWARGS, Optimizer, Scheduler

# Names of the same optimiser.
OPTIMIZERS = {
    "adamw_hf": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw": "paged_adamw_32bit", "adamw": "adamw_torch",
} | {name: name for name in get_args(Optimizer)}  # fmt: skip
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "half": "float16", "float": "float32"}
EVERY_LINEAR = ("all", "all-linear")
# Without effect on the weights that come out: where files go, what is shown, how fast it is.
WITHOUT_EFFECT = (
    "output_dir", "overwrite_output_dir", "run_name", "report_to", "log_level", "log_level_replica", "logging_dir", "logging_strategy",
    "logging_first_step", "push_to_hub", "hub_model_id", "hub_strategy", "hub_model_revision", "hub_private_repo", "hub_token",
    "save_strategy", "save_only_model", "save_safetensors", "do_train", "do_eval", "disable_tqdm", "ddp_timeout",
    "dataloader_num_workers", "dataloader_pin_memory", "dataset_num_proc", "preprocessing_num_workers", "remove_unused_columns",
    "resume_from_checkpoint", "gradient_checkpointing_kwargs", "use_liger_kernel", "tf32", "average_tokens_across_devices", "env",
    "eval_strategy", "evaluation_strategy", "per_device_eval_batch_size", "group_by_length", "ddp_find_unused_parameters",
    "torch_compile", "include_tokens_per_second", "wandb_project", "wandb_entity", "wandb_name", "wandb_watch", "wandb_log_model",
    "overwrite_cache", "plot_loss", "low_cpu_mem_usage", "eval_on_start",
)  # fmt: skip


def convert_remote_code(draft: Draft) -> None:
    """Carries `trust_remote_code` where the code stays what it is; our recipes run no other. The path must have been set."""
    if not draft.take("trust_remote_code"):
        return
    model = draft.values.get("model", {})
    if keeps_its_code(model.get("path", ""), model.get("revision")):
        draft.set("model.trust_remote_code", True)
        return
    draft.assumed.append(
        "transformers has the architecture itself; where it has not, loading fails: then set model.trust_remote_code, and "
        "model.revision to the commit whose code you have read."
    )


def convert_batch(
    draft: Draft, *, per_device: str, default: int, num_processes: int | None, processes: int, where: str
) -> int:
    """Sets both batch sizes; returns the global one.

    Args:
        per_device: the source's name of the rows in one pass.
        num_processes: as the user says; None: `processes`, which is then said to be assumed (`where`: why).
    """
    rows, accumulated = draft.take(per_device, default), draft.take("gradient_accumulation_steps", 1)
    count = num_processes or processes
    batch = rows * accumulated * count
    draft.set("train.global_batch_size", batch, f"{rows} rows x {accumulated} accumulated x {count} processes")
    draft.set("train.per_device_train_batch_size", rows)
    if num_processes is None:
        draft.assumed.append(f"{count} processes ({where}); --num_processes says another number.")
    return batch


def convert_duration(draft: Draft, *epochs: str, default: float) -> tuple[float | None, int | None]:
    """Sets epochs or steps; returns both, one of them None."""
    steps = draft.take("max_steps", -1)
    value = next((draft.take(name) for name in epochs if draft.take(name) is not None), default)
    if isinstance(steps, int) and steps > 0:
        draft.set("train.max_steps", steps)
        return None, steps
    draft.set("train.num_train_epochs", value)
    return value, None


def convert_schedule(draft: Draft, *, scheduler: str, default: str, total_steps: int | None) -> None:
    """Sets schedule, its arguments and the warm-up. `total_steps`: None where nobody knows it."""
    name = str(draft.take(scheduler, default))
    arguments = draft.take("lr_scheduler_kwargs", {})
    if name not in get_args(Scheduler):
        draft.differ(scheduler, f"No such schedule here; cosine is used. There are: {', '.join(get_args(Scheduler))}.")
        name, arguments = "cosine", {}
    draft.set(
        "train.lr_scheduler_type", name, "" if name != default or scheduler in draft.root.children else "its default"
    )
    kept = {key: value for key, value in arguments.items() if key in SCHEDULER_KWARGS.get(name, ())}
    if kept:
        draft.set("train.lr_scheduler_kwargs", kept)
    if arguments and kept != arguments:
        draft.differ("lr_scheduler_kwargs", f"{name} reads only {', '.join(SCHEDULER_KWARGS.get(name, ())) or 'none'}.")
    _convert_warmup(draft, total_steps)


def _convert_warmup(draft: Draft, total_steps: int | None) -> None:
    steps, ratio = draft.take("warmup_steps", 0), draft.take("warmup_ratio", 0)
    if not steps or 0 < steps < 1:  # transformers 5 and axolotl read a fraction here
        key, ratio = ("warmup_ratio", ratio) if not steps else ("warmup_steps", steps)
        if not ratio:
            return
        if total_steps is None:
            draft.differ(
                key, "Steps of the whole run are not known; set train.warmup_steps, or give --rows to compute it."
            )
            return
        steps = math.ceil(ratio * total_steps)
        draft.set("train.warmup_steps", steps, f"its {key} {ratio:g} of {total_steps} steps")
        return
    draft.set("train.warmup_steps", int(steps))


def convert_optimizer(draft: Draft, name: str = "optim") -> None:
    """Sets optimiser and its numbers, where they are not our defaults too."""
    wanted = draft.take(name)
    if wanted is not None and wanted in OPTIMIZERS:
        draft.set(
            "train.optim", OPTIMIZERS[wanted], "" if OPTIMIZERS[wanted] == wanted and name == "optim" else f"its {name}"
        )
    elif wanted is not None:
        draft.differ(name, "No such optimiser here; adamw_torch_fused is used.")
    for key in ("weight_decay", "max_grad_norm", "adam_beta1", "adam_beta2"):
        value = draft.take(key)
        if value is not None and not (key == "max_grad_norm" and value <= 0):
            draft.set(f"train.{key}", float(value))
        elif value is not None:
            draft.differ(key, "Gradients are always clipped here; 1.0 is used.")
    epsilon = draft.take("adam_epsilon")
    if epsilon not in (None, 1e-8):
        draft.differ("adam_epsilon", "It is 1e-8 here.")


def convert_precision(draft: Draft) -> None:
    """Sets the compute precision."""
    bf16, fp16 = draft.take("bf16"), draft.take("fp16")
    if fp16 is True or fp16 == "true":
        draft.differ("fp16", "There is no float16 here; bfloat16 is used.")
        bf16 = True
    if isinstance(bf16, bool) or bf16 == "auto":
        draft.set("train.bf16", bf16)


def convert_steps(draft: Draft) -> None:
    """Sets how often it is logged, evaluated and saved, where that is a whole number of steps."""
    for key in ("logging_steps", "eval_steps", "save_steps"):
        value = draft.take(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            draft.set(f"train.{key}", value)
        elif value is not None:
            draft.unread.append(f"{key}: {value}. It is a number of steps here.")
    limit = draft.take("save_total_limit")
    if limit:
        draft.set("train.save_total_limit", limit)


def convert_lora_dropout(draft: Draft, default: float | None = None) -> None:
    """Carries dropout before adapters where there is any: TRL's trainers turn it off for pairs unless `disable_dropout` is false."""
    if draft.values["stage"] in ("dpo", "reward"):
        draft.leave("lora_dropout")
    else:
        draft.carry("lora.lora_dropout", "lora_dropout", default=default)


def set_targets(draft: Draft, value: Any) -> None:
    """Sets the modules that get an adapter from a list, or a text with commas."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    if len(names) == 1 and names[0] in EVERY_LINEAR:
        draft.set("lora.target_modules", "all-linear")
    else:
        draft.set("lora.target_modules", names)


def count_steps(rows: int | None, epochs: float | None, steps: int | None, batch: int) -> int | None:
    """Steps of the whole run; None where the number of rows is not known."""
    if steps is not None:
        return steps
    return int(rows * epochs // batch) if rows is not None and epochs is not None else None
