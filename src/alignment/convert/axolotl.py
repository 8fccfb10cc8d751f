"""Recipes of axolotl (its examples at commit 1377ccc): flat YAML around `base_model` and `datasets`."""

from pathlib import Path
from typing import Any

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

TEMPLATES = {
    "llama3": "llama-3", "chatml": "chatml", "qwen3": "qwen", "qwen_25": "qwen", "gemma": "gemma", "phi_3": "phi", "mistral_v7_tekken": "mistral",
    "tokenizer_default": "from_tokenizer",
}  # fmt: skip
LOSSES = {"dpo": "sigmoid", "ipo": "ipo"}
_LEAVE = (
    "model_type", "tokenizer_type", "dataset_prepared_path", "evals_per_epoch", "saves_per_epoch", "pad_to_sequence_len", "deepspeed",
    "fsdp", "fsdp_config", "fsdp_version", "wandb_run_id", "local_rank", "xformers_attention", "s2_attention", "debug", "eval_table_size",
    "eval_max_new_tokens", "eval_table_max_new_tokens", "strict", "lora_fan_in_fan_out", "lora_mlp_kernel", "lora_qkv_kernel",
    "lora_o_kernel", "plugins", "eval_sample_packing", "save_safetensors", "early_stopping_patience", "save_first_step", "num_labels",
    "eval_batch_size", "hub_model_id", "tokens", "loss_watchdog_threshold", "loss_watchdog_patience", "use_tensorboard", "cut_cross_entropy",
    "liger_rope", "liger_rms_norm", "liger_glu_activation", "liger_fused_linear_cross_entropy", "shuffle_merged_datasets",
)  # fmt: skip


def is_own(keys: set[str]) -> bool:
    """Whether a file with these keys is axolotl's."""
    return "base_model" in keys


def convert(draft: Draft, path: Path, options: Options) -> None:
    """Fills the draft.

    Raises:
        RecipeError: it is of a stage that does not exist here.
    """
    stage = options.stage or _find_stage(draft, path)
    draft.set("stage", stage)
    draft.carry("seed", "seed", default=42)
    _convert_model(draft)
    _convert_chat(draft, stage)
    _convert_data(draft, stage)
    _convert_training(draft, options)
    if stage == "dpo":
        draft.set("dpo.reference", "start")
        draft.set("dpo.loss_type", LOSSES.get(draft.take("rl"), "sigmoid"))
        draft.carry("dpo.beta", "rl_beta", "dpo_beta", default=0.1)
    if stage == "reward":
        draft.carry("reward.center_rewards_coefficient", "center_rewards_coefficient")
    draft.leave("rl", "reward_model", *WITHOUT_EFFECT, *_LEAVE)
    draft.finish()


def _find_stage(draft: Draft, path: Path) -> str:
    rl = draft.take("rl")
    if rl and rl not in LOSSES:
        raise RecipeError(f"{path}: rl: {rl}; dpo or ipo was expected, for there is no {rl} here.")
    if draft.take("process_reward_model") or draft.take("image_size") or draft.take("processor_type"):
        raise RecipeError(f"{path}: a recipe for steps' rewards or images; sft, reward, dpo or pretrain was expected.")
    types = [str(entry.get("type", "")) for entry in draft.take("datasets", [])]
    if rl:
        return "dpo"
    if draft.take("reward_model"):
        return "reward"
    return "pretrain" if draft.take("pretraining_dataset") or (types and set(types) == {"completion"}) else "sft"


def _convert_model(draft: Draft) -> None:
    draft.carry("model.path", "base_model")
    draft.carry("model.revision", "revision_of_model")
    draft.carry("tokenizer.path", "tokenizer_config")
    kernel = draft.take("attn_implementation")
    flash, sdpa = draft.take("flash_attention"), draft.take("sdp_attention")
    if kernel or flash or sdpa:
        draft.set("model.attn_implementation", kernel or ("flash_attention_2" if flash else "sdpa"))
    convert_remote_code(draft)
    adapter = draft.take("adapter")
    if not adapter:
        draft.leave("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_linear")
        return
    draft.carry("lora.r", "lora_r", default=8)
    draft.carry("lora.lora_alpha", "lora_alpha", default=16)
    convert_lora_dropout(draft)
    everywhere, named = draft.take("lora_target_linear"), draft.take("lora_target_modules")
    set_targets(draft, named if named and not everywhere else "all-linear")
    draft.carry("lora.modules_to_save", "lora_modules_to_save")
    for ours, theirs in (("use_dora", "peft_use_dora"), ("use_rslora", "peft_use_rslora")):
        if draft.take(theirs):
            draft.set(f"lora.{ours}", True)
    if draft.take("load_in_4bit") or adapter == "qlora":
        draft.set("lora.load_in_4bit", True)
    if draft.take("load_in_8bit"):
        draft.differ("load_in_8bit", "There is a 4-bit base and a 16-bit one; it is loaded in 16 bits.")
    if draft.take("lora_model_dir"):
        draft.differ(
            "lora_model_dir",
            "A run starts from one folder: merge that adapter first, and name the result in model.path.",
        )


def _convert_chat(draft: Draft, stage: str) -> None:
    name, jinja = draft.take("chat_template"), draft.take("chat_template_jinja")
    if stage == "pretrain":
        return
    if jinja:
        draft.files[f"{draft.name}.jinja"] = jinja
        draft.set("chat.template", f"{draft.name}.jinja", "its chat_template_jinja")
    elif name in TEMPLATES:
        draft.set("chat.template", TEMPLATES[name], f"its chat_template {name}")
        if name != "tokenizer_default":
            draft.assumed.append(
                f"chat_template {name} writes what {TEMPLATES[name]} writes; compare with `alignment preview`."
            )
    elif name is not None:
        draft.differ("chat_template", "The model's own template is used.")
    tokens = draft.take("special_tokens", {}) or {}
    if tokens.get("pad_token"):
        draft.set("chat.pad_token", tokens["pad_token"])
    if set(tokens) - {"pad_token", "eos_token", "bos_token", "unk_token"}:
        draft.differ("special_tokens", "Only the pad token is chosen here.")
    draft.carry("chat.system", "default_system_message")
    if stage == "sft":
        draft.set("chat.train_on", "all" if draft.take("train_on_inputs") else "assistant")


def _convert_data(draft: Draft, stage: str) -> None:
    draft.carry("data.max_length", "sequence_len", default=2048)
    if stage in ("sft", "pretrain"):
        draft.set("data.packing", bool(draft.take("sample_packing", stage == "pretrain")))
    draft.leave("sample_packing")
    draft.set("data.on_too_long", "split" if stage == "pretrain" else "drop", "as axolotl does")
    entries = draft.take("datasets") or draft.take("pretraining_dataset") or []
    entries = [{"path": entries}] if isinstance(entries, str) else entries
    sources = [_make_source(draft, entry, stage) for entry in entries]
    tests = [_make_source(draft, entry, stage) for entry in draft.take("test_datasets", [])]
    size = draft.take("val_set_size", 0)
    if size and len(sources) == 1 and "[" not in sources[0].get("split", "train"):
        split = sources[0].get("split", "train")
        cut = f"-{int(size)}" if size >= 1 else f"{round(100 * (1 - size))}%"
        tests = [{**sources[0], "split": f"{split}[{cut}:]"}]
        sources[0]["split"] = f"{split}[:{cut}]"
        draft.assumed.append("the last rows are held out; there, rows drawn by seed.")
    elif size:
        draft.differ("val_set_size", "A share of several sources has no counterpart; write sources in data.eval.")
    draft.set("data.train", sources)
    if tests:
        draft.set("data.eval", tests)


def _make_source(draft: Draft, entry: dict[str, Any], stage: str) -> dict[str, Any]:
    entry = {key: value for key, value in entry.items() if value is not None}
    source: dict[str, Any] = {"path": entry.pop("path", entry.get("id"))}
    for ours, theirs in (("name", "name"), ("revision", "revision"), ("split", "split")):
        if theirs in entry:
            source[ours] = entry.pop(theirs)
    files = entry.pop("data_files", None)
    if files:
        source["data_files"] = [files] if isinstance(files, str) else files
    kind = str(entry.pop("type", "completion"))
    source |= _layout(draft, source["path"], kind, entry, stage)
    entry.pop("ds_type", None)
    for key in entry:
        draft.differs.append(f"datasets: {source['path']}: {key}: {entry[key]}. Not known here; look up what it does.")
    return source


def _layout(draft: Draft, path: str, kind: str, entry: dict[str, Any], stage: str) -> dict[str, Any]:
    """Format, columns and roles of a source; takes what it reads out of `entry`."""
    messages = entry.pop("field_messages", None)
    mapping = entry.pop("message_property_mappings", {}) or {}
    role = entry.pop("message_field_role", mapping.get("role", "role"))
    entry.pop("message_field_content", None)
    roles = {
        their: ours for ours, theirs in (entry.pop("roles", {}) or {}).items() for their in theirs if their != ours
    }
    columns = {
        ours: entry.pop(field)
        for ours, field in (("chosen", "field_chosen"), ("rejected", "field_rejected"))
        if field in entry
    }
    columns = {ours: theirs for ours, theirs in columns.items() if ours != theirs}
    if stage in ("dpo", "reward"):
        if messages:
            columns["prompt"] = messages
        if not kind.endswith(("chat_template", "chat_template.default")):
            draft.assumed.append(f"{path}: rows of type {kind} have the columns prompt, chosen and rejected.")
        return (
            {"format": "preference"} | ({"columns": columns} if columns else {}) | ({"roles": roles} if roles else {})
        )
    if stage == "pretrain" or kind == "completion":
        text = entry.pop("field", entry.pop("text_column", "text"))
        return {"format": "text" if stage == "pretrain" else "messages"} | (
            {"columns": {"text": text}} if text != "text" else {}
        )
    if kind == "chat_template" and role == "from":
        named = {"columns": {"conversations": messages}} if messages not in (None, "conversations") else {}
        return {"format": "sharegpt"} | named | ({"roles": roles} if roles else {})
    if kind == "chat_template":
        named = {"columns": {"messages": messages}} if messages not in (None, "messages") else {}
        return {"format": "messages"} | named | ({"roles": roles} if roles else {})
    if kind.startswith(("alpaca", "sharegpt")):
        if kind.startswith("alpaca"):
            draft.differs.append(
                f"{path}: type {kind}: there an instruction is written as text under headings; here the chat template writes it."
            )
        return {"format": "alpaca" if kind.startswith("alpaca") else "sharegpt"}
    draft.differs.append(f"{path}: type {kind}: no such layout here; messages is written. Correct the format.")
    return {"format": "messages"}


def _convert_training(draft: Draft, options: Options) -> None:
    epochs, steps = convert_duration(draft, "num_epochs", default=1)
    batch = convert_batch(
        draft,
        per_device="micro_batch_size",
        default=1,
        num_processes=options.num_processes,
        processes=1,
        where="one GPU, as its examples are run",
    )
    draft.carry("train.learning_rate", "learning_rate", "lr", default=2e-4)
    total = count_steps(options.rows, epochs, steps, batch)
    convert_schedule(draft, scheduler="lr_scheduler", default="cosine", total_steps=total)
    convert_optimizer(draft, "optimizer")
    convert_precision(draft)
    draft.set("train.gradient_checkpointing", bool(draft.take("gradient_checkpointing", False)))
    convert_steps(draft)
    if draft.take("neftune_noise_alpha"):
        draft.differ("neftune_noise_alpha", "There is no noise on embeddings here.")
