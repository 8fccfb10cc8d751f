"""Recipes of alignment-handbook and YAML of the TRL command line: both are the fields of TRL's configs, flat.

Defaults that the file leaves out are TRL 1.16's. The handbook's own keys (its mixtures, its template) are read from its
commit 925acdf.
"""

from pathlib import Path
from typing import Any, get_args

from alignment.convert.draft import Draft
from alignment.convert.options import Options
from alignment.convert.training import (
    WITHOUT_EFFECT,
    convert_batch,
    convert_duration,
    convert_lora_dropout,
    convert_optimizer,
    convert_precision,
    convert_remote_code,
    convert_schedule,
    convert_steps,
    count_steps,
    set_targets,
)
from alignment.errors import RecipeError
from alignment.recipe.stage_spec import DpoLoss

OWN_KEYS = {"dataset_mixture", "dataset_mixer", "dataset_name", "datasets"}
PROCESSES = 8  # of every launcher config in alignment-handbook
STAGES = {
    "dpo": "dpo",
    "apo": "dpo",
    "sft": "sft",
    "mid": "sft",
    "reward": "reward",
    "cpt": "pretrain",
    "continued_pretraining": "pretrain",
}
NO_STAGE = ("orpo", "kto", "grpo", "rloo", "simpo", "ppo", "gkd")
LEARNING_RATES = {"sft": 2e-5, "dpo": 1e-6, "reward": 1e-4, "pretrain": 2e-5}  # TRL 1.16
_LEAVE = (
    "dataset_seed",
    "seed_worker",
    "chat_template_path",
    "sync_ref_model",
    "dataset_streaming",
    "logging_nan_inf_filter",
)


def is_own(keys: set[str]) -> bool:
    """Whether a file with these keys is TRL's or the handbook's."""
    return "model_name_or_path" in keys and not keys & {
        "cutoff_len",
        "finetuning_type",
        "template",
        "adapter_name_or_path",
    }


def convert(draft: Draft, path: Path, options: Options) -> None:
    """Fills the draft.

    Raises:
        RecipeError: it is of a stage that does not exist here.
    """
    stage = options.stage or find_stage(draft, path)
    draft.set("stage", stage)
    draft.carry("seed", "seed", default=42)
    _convert_model(draft)
    _convert_chat(draft, stage)
    rows = convert_data(draft, stage, options)
    _convert_training(draft, stage, options, rows)
    if stage == "dpo":
        _convert_dpo(draft)
    if stage in ("dpo", "reward") and draft.take("disable_dropout", True) is False:
        draft.differ("disable_dropout", "Pairs are compared without dropout here.")
    if stage == "reward":
        draft.carry("reward.center_rewards_coefficient", "center_rewards_coefficient")
    draft.leave(*WITHOUT_EFFECT, *_LEAVE)
    draft.finish()


def find_stage(draft: Draft, path: Path) -> str:
    """The stage by the folder that the file is in, or by the keys that only one trainer has."""
    keys = set(draft.root.children)
    words = [part.lower() for part in (*path.resolve().parts[-3:-1], path.stem)]
    if found := next((word for word in reversed(words) if word in NO_STAGE), None):
        raise RecipeError(
            f"{path}: a recipe for {found}; sft, reward, dpo or pretrain was expected, for there is no {found} here."
        )
    if keys & {"beta", "loss_type", "rpo_alpha", "precompute_ref_log_probs", "ref_model_init_kwargs"}:
        return "dpo"
    if "center_rewards_coefficient" in keys:
        return "reward"
    named = next((STAGES[word] for word in reversed(words) if word in STAGES), None)
    if named is None:
        draft.assumed.append("stage sft; --stage says another one.")
    return named or "sft"


def _convert_model(draft: Draft) -> None:
    draft.carry("model.path", "model_name_or_path")
    revision = draft.take("model_revision")
    if revision not in (None, "main"):
        draft.set("model.revision", revision, "its model_revision")
    dtype = draft.take("torch_dtype", draft.take("dtype"))
    if dtype in ("bfloat16", "float16", "float32"):
        draft.set("model.dtype", dtype)
        if dtype != "float32":
            draft.assumed.append(
                f"weights are updated in fp32 and saved in {dtype}; without a sharding engine TRL updates them in {dtype}."
            )
    kernel = draft.take("attn_implementation", "flash_attention_2" if draft.take("use_flash_attention_2") else None)
    if kernel is not None:
        draft.set("model.attn_implementation", kernel)
    convert_remote_code(draft)
    draft.carry("tokenizer.path", "tokenizer_name_or_path")
    if not draft.take("use_peft") and not draft.take("lora_r"):
        draft.leave("lora_alpha", "lora_dropout", "lora_target_modules", "load_in_4bit")
        return
    draft.carry("lora.r", "lora_r", default=16)
    draft.carry("lora.lora_alpha", "lora_alpha", default=32)
    convert_lora_dropout(draft, default=0.05)
    set_targets(draft, draft.take("lora_target_modules", "all-linear"))
    draft.carry("lora.modules_to_save", "lora_modules_to_save")
    for key in ("use_dora", "use_rslora", "load_in_4bit"):
        if draft.take(key):
            draft.set(f"lora.{key}", True)
    if draft.take("load_in_8bit"):
        draft.differ("load_in_8bit", "There is no 8-bit base here; it is loaded in 16 bits.")
    draft.leave("bnb_4bit_quant_storage", "lora_task_type", "use_bnb_nested_quant", "bnb_4bit_quant_type")


def _convert_chat(draft: Draft, stage: str) -> None:
    template = draft.take("chat_template")
    if template is not None and stage != "pretrain":
        name = f"{draft.name}.jinja"
        draft.files[name] = template
        draft.set("chat.template", name, "its chat_template, byte for byte")
    stop = draft.take("eos_token")
    if stop is not None and (template is None or stop not in template):
        draft.differ(
            "eos_token", "The stop token is the chat template's; name a template in chat.template that writes it."
        )
    if stage == "sft":
        alone = draft.take("assistant_only_loss") or draft.take("completion_only_loss")
        draft.set(
            "chat.train_on",
            "assistant" if alone else "all",
            "" if alone else "its default: every token of a conversation",
        )
    draft.leave("assistant_only_loss", "completion_only_loss")


# ------------------------------------------------------------------------------------------------ data


def convert_data(draft: Draft, stage: str, options: Options) -> int | None:
    """Sets the sources; returns how many rows are trained on where that is known."""
    length = next((draft.take(name) for name in ("max_length", "max_seq_length") if draft.take(name)), 1024)
    draft.set("data.max_length", length)
    if draft.take("max_prompt_length"):
        draft.unread.append("max_prompt_length: TRL has none any more, and neither have we.")
    if stage in ("sft", "pretrain") and draft.take("packing"):
        draft.set("data.packing", True)
    elif stage == "pretrain":
        draft.set("data.packing", False)
    draft.leave(
        "packing", "packing_strategy", "padding_free", "eval_packing", "dataset_kwargs", "max_seq_length", "max_length"
    )
    draft.set("data.on_too_long", "drop" if stage == "reward" else "truncate", "as TRL does")
    train, held_out = _find_sources(draft, stage)
    size = draft.take("test_split_size")
    if size is None and isinstance(mixture := draft.take("dataset_mixture"), dict):
        size = mixture.get("test_split_size")
    if held_out and size is not None:
        draft.differ(
            "dataset_mixture",
            "There the rows of the test splits are trained on, and new ones cut off; here they stay held out.",
        )
        if isinstance(size, int):
            held_out[0]["rows"] = size
    elif size is not None and len(train) == 1 and isinstance(size, int):
        split = train[0].get("split", "train")
        held_out = [{**train[0], "split": f"{split}[-{size}:]"}]
        train[0]["split"] = f"{split}[:-{size}]"
        draft.assumed.append(f"the last {size} rows are held out; there, rows drawn by seed.")
    elif size is not None:
        draft.differ(
            "dataset_mixture",
            f"test_split_size {size} of the mixed rows has no counterpart; write sources in data.eval.",
        )
    draft.set("data.train", train)
    if held_out:
        draft.set("data.eval", held_out)
    return options.rows


def _find_sources(draft: Draft, stage: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mixture, mixer = draft.take("dataset_mixture"), draft.take("dataset_mixer")
    if mixture is not None or draft.take("datasets") is not None:
        entries = mixture["datasets"] if mixture is not None else draft.take("datasets")
        sources = [_make_source(draft, stage, entry) for entry in entries]
    elif mixer is not None:
        splits, configs = draft.take("dataset_splits", ["train"]), draft.take("dataset_configs") or []
        # data.py of the handbook (commit 007939e) takes test splits whole; the number is of the train splits.
        sources = [
            _make_source(
                draft,
                stage,
                {"id": name, "weight": None if _is_held_out(split) else weight, "split": split, "config": config},
            )
            for (name, weight), config in zip(mixer.items(), [*configs, *[None] * len(mixer)], strict=False)
            for split in splits
        ]
    else:
        name = draft.take("dataset_name")
        if name is None:
            draft.differ("dataset_name", "There is none; name sources in data.train.")
            return [{"path": "NAME/OF-DATASET", "format": _format(stage, ())}], []
        entry = {
            "id": name,
            "config": draft.take("dataset_config"),
            "split": draft.take("dataset_train_split", "train"),
        }
        test = draft.take("dataset_test_split")
        evaluated = [_make_source(draft, stage, {**entry, "split": test})] if test else []
        if not draft.take("columns"):
            draft.assumed.append(f"format {_format(stage, ())} of {name}: `alignment preview` shows whether it fits.")
        return [_make_source(draft, stage, entry)], evaluated
    held_out = [source for source in sources if _is_held_out(source["split"])]
    train = [source for source in sources if source not in held_out]
    return (train or held_out), (held_out if train else [])


def _is_held_out(split: str) -> bool:
    return split.startswith(("test", "valid", "eval"))


def _make_source(draft: Draft, stage: str, entry: dict[str, Any]) -> dict[str, Any]:
    columns = entry.get("columns") or ()
    config = entry.get("config", entry.get("name"))
    source: dict[str, Any] = {"path": entry.get("id", entry.get("path"))}
    if config not in (None, "default"):
        source["name"] = config
    if entry.get("revision"):
        source["revision"] = entry["revision"]
    source["split"] = entry.get("split") or "train"
    source["format"] = _format(stage, columns)
    weight = entry.get("weight", 1.0)
    if weight is not None and float(weight) != 1.0:
        source["repeat"] = float(weight)
    if "chat_template_kwargs" in columns:
        note = "The column chat_template_kwargs of its sources is not read: the template gets no arguments of its own for a row."
        if not any(note in said for said in draft.differs):
            draft.differs.append(note)
    return source


def _format(stage: str, columns: Any) -> str:
    if stage in ("dpo", "reward"):
        return "preference"
    if stage == "pretrain" or list(columns) == ["text"]:
        return "text" if stage == "pretrain" else "messages"
    return "prompt_completion" if {"prompt", "completion"} <= set(columns) else "messages"


# ------------------------------------------------------------------------------------------------ training


def _convert_training(draft: Draft, stage: str, options: Options, rows: int | None) -> None:
    epochs, steps = convert_duration(draft, "num_train_epochs", default=3)
    is_handbook = bool({"dataset_mixture", "dataset_mixer"} & set(draft.root.children))
    batch = convert_batch(
        draft,
        per_device="per_device_train_batch_size",
        default=8,
        num_processes=options.num_processes,
        processes=PROCESSES if is_handbook else 1,
        where="as in the handbook's launcher configs" if is_handbook else "one GPU, as its examples are run",
    )
    draft.carry("train.learning_rate", "learning_rate", default=LEARNING_RATES[stage])
    convert_schedule(
        draft, scheduler="lr_scheduler_type", default="linear", total_steps=count_steps(rows, epochs, steps, batch)
    )
    convert_optimizer(draft)
    convert_precision(draft)
    draft.set("train.gradient_checkpointing", bool(draft.take("gradient_checkpointing", True)))
    convert_steps(draft)
    neftune = draft.take("neftune_noise_alpha")
    if neftune:
        draft.differ("neftune_noise_alpha", "There is no noise on embeddings here.")
    if draft.values["data"].get("eval"):
        draft.carry("eval.per_device_eval_batch_size", "per_device_eval_batch_size")


def _convert_dpo(draft: Draft) -> None:
    loss = draft.take("loss_type", "sigmoid")
    names = loss if isinstance(loss, list) else [loss]
    known = [name for name in names if name in get_args(DpoLoss)]
    draft.set("dpo.reference", "start", "the model it starts from, which is what TRL does without ref_model")
    draft.set("dpo.loss_type", known[0] if known else "sigmoid")
    draft.carry("dpo.beta", "beta", default=0.1)
    if isinstance(draft.values["dpo"]["beta"], int):
        draft.values["dpo"]["beta"] = float(draft.values["dpo"]["beta"])
    draft.carry("dpo.label_smoothing", "label_smoothing")
    draft.carry("dpo.sft_weight", "rpo_alpha")
    if len(known) != len(names) or len(known) > 1:
        draft.differ("loss_type", f"One loss of {', '.join(get_args(DpoLoss))} is trained with here.")
    for key in ("ref_model", "model_ref"):
        if draft.take(key):
            draft.set("dpo.reference", draft.take(key), f"its {key}")
    draft.leave("precompute_ref_log_probs", "model_adapter_name", "truncation_mode", "loss_weights")
