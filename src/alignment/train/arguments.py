"""Recipe to the arguments of transformers' Trainer and TRL's, for every stage alike.

Everything that a default of either library could change is stated here, so an upstream change of defaults changes
nothing. What the recipe does not decide (logging to services, pushing, cards) is switched off: this project does it.
"""

from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

from alignment.recipe.train_spec import TrainSpec
from alignment.train.training import Training

Arguments = TypeVar("Arguments", bound=TrainingArguments)
PROCESS_GROUP_TIMEOUT_SECONDS = 1800
# Otherwise every process keeps all gradients whole, in fp32, from the first pass of a step to its last: 27 GiB of a model of 7 B parameters.
_SHARDED_GRADIENTS = {"gradient_accumulation_kwargs": {"sync_each_batch": True}}


def make_arguments(kind: type[Arguments], training: Training, **further: Any) -> Arguments:
    """The arguments of one training run.

    Args:
        kind: `TrainingArguments` or a TRL configuration class.
        further: what only this stage's trainer has.
    """
    recipe, context, schedule = training.recipe, training.context, training.schedule
    train: TrainSpec = recipe.train
    save_steps = train.save_steps or schedule.steps
    # Of a run in updates the default is one update.
    logging_steps = train.logging_steps or schedule.steps_per_update
    return kind(
        output_dir=str(context.run_dir / "checkpoints"),
        max_steps=schedule.steps,
        per_device_train_batch_size=schedule.per_device_batch_size,
        per_device_eval_batch_size=training.fitted.eval.per_device_eval_batch_size,
        gradient_accumulation_steps=schedule.accumulation,
        learning_rate=train.learning_rate,
        lr_scheduler_type=train.lr_scheduler_type,
        lr_scheduler_kwargs=dict(train.lr_scheduler_kwargs),
        warmup_steps=train.warmup_steps,
        optim=train.optim,
        adam_beta1=train.adam_beta1,
        adam_beta2=train.adam_beta2,
        adam_epsilon=1e-8,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        bf16=training.bf16,
        fp16=False,
        tf32=None,
        use_cpu=context.cpu,
        gradient_checkpointing=train.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False} if train.gradient_checkpointing else None,
        logging_strategy="steps",
        logging_steps=logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if train.eval_steps else "no",
        eval_steps=train.eval_steps,
        save_strategy="steps",
        save_steps=save_steps,
        save_total_limit=None,  # `seal.py` lets go of old ones, and counts only those that are whole
        load_best_model_at_end=train.keep == "best",
        metric_for_best_model="eval_loss" if train.keep == "best" else None,
        greater_is_better=False if train.keep == "best" else None,
        seed=recipe.seed,
        data_seed=recipe.seed,
        # Rows come in the order of `row_order`; accelerate deals whole batches to the ranks in turn.
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        average_tokens_across_devices=True,
        dataloader_pin_memory=not context.cpu and torch.cuda.is_available(),
        dataloader_drop_last=False,
        ddp_timeout=PROCESS_GROUP_TIMEOUT_SECONDS,
        ddp_find_unused_parameters=False,
        accelerator_config=_SHARDED_GRADIENTS if context.strategy == "fsdp2" else None,
        disable_tqdm=True,
        report_to=[],
        push_to_hub=False,
        **further,
    )
