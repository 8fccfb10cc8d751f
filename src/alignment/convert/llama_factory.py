"""Recipes of LLaMA-Factory (its examples at commit ff6d4d1), flat YAML, and those of its v1 trainer with nested sections.

What a data set's name means stands in its `dataset_info.json`; where that file is not found, the layout is assumed and said so.
Recipes with images are not for a text model, and are refused.
"""

import json
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

STAGES = {"sft": "sft", "pt": "pretrain", "rm": "reward", "dpo": "dpo"}
FORMATS = {"sft": "alpaca", "pretrain": "text", "reward": "preference", "dpo": "preference"}
TEMPLATES = {
    "llama3": "llama-3", "qwen": "qwen", "qwen3": "qwen", "qwen3_nothink": "qwen", "chatml": "chatml", "mistral": "mistral",
    "gemma": "gemma", "gemma2": "gemma", "phi": "phi", "zephyr": "zephyr",
}  # fmt: skip
KERNELS = {"fa2": "flash_attention_2", "fa3": "flash_attention_3", "sdpa": "sdpa", "disabled": "eager"}
# Our column to theirs in dataset_info.json, with what theirs is called when it is not said.
ALPACA_COLUMNS = {
    "instruction": ("prompt", "instruction"),
    "input": ("query", "input"),
    "output": ("response", "output"),
}
_IMAGE_KEYS = {"image_max_pixels", "video_max_pixels", "freeze_vision_tower", "image_dir", "media_dir"}
_LEAVE = ("deepspeed", "fsdp", "fsdp_config", "dataset_dir", "tokenized_path", "dist_config", "kernel_config", "model_class",
          "sample_backend", "max_new_tokens", "ray_run_name", "ray_storage_path", "ray_num_workers", "placement_strategy",
          "resources_per_worker", "ray_init_kwargs", "fsdp_transformer_layer_cls_to_wrap", "use_v1_kernels", "quantization_method",
          "double_quantization", "bnb_4bit_quant_type", "predict_with_generate", "max_new_tokens", "use_fast_tokenizer",
          "cache_dir", "upcast_layernorm", "enable_liger_kernel", "save_hf_model", "export_hf_on_finish")  # fmt: skip


def is_own(keys: set[str]) -> bool:
    """Whether a file with these keys trains with LLaMA-Factory."""
    flat = "model_name_or_path" in keys and bool(keys & {"finetuning_type", "cutoff_len", "stage", "template"})
    return flat or {"model", "train_dataset"} <= keys


def convert(draft: Draft, path: Path, options: Options) -> None:
    """Fills the draft.

    Raises:
        RecipeError: it trains on images, does not train, or is of a stage that does not exist here.
    """
    keys = set(draft.root.children)
    model = str(draft.take("model_name_or_path", draft.take("model", "")))
    if keys & _IMAGE_KEYS or "VL" in model or "vl" in Path(path).stem or "multimodal" in Path(path).stem:
        raise RecipeError(f"{path}: a recipe for images and text; one for text alone was expected.")
    is_v1 = "train_dataset" in keys
    if not is_v1 and not draft.take("do_train"):
        raise RecipeError(f"{path}: do_train is not set; a recipe that trains was expected.")
    stage = _find_stage(draft, path, options, is_v1)
    draft.set("stage", stage)
    draft.carry("seed", "seed", default=42)
    _convert_model(draft, model)
    _convert_chat(draft, stage)
    _convert_data(draft, path, stage, options)
    _convert_training(draft, options, is_v1)
    if stage == "dpo":
        _convert_dpo(draft)
    draft.leave(*WITHOUT_EFFECT, *_LEAVE)
    draft.finish()


def _find_stage(draft: Draft, path: Path, options: Options, is_v1: bool) -> str:
    named = draft.take("stage", "dpo" if "dpo" in path.stem else "sft")
    if is_v1 and "stage" not in draft.root.children:
        draft.assumed.append(f"stage {named}, by the file's name; --stage says another one.")
    if options.stage is None and named not in STAGES:
        raise RecipeError(
            f"{path}: stage: {named}; one of {', '.join(STAGES)} was expected, for there is no {named} here."
        )
    return options.stage or STAGES[named]


def _convert_model(draft: Draft, model: str) -> None:
    draft.set("model.path", model)
    revision = draft.take("model_revision")
    if revision not in (None, "main"):
        draft.set("model.revision", revision)
    if kernel := KERNELS.get(draft.take("flash_attn", "auto")):
        draft.set("model.attn_implementation", kernel, "its flash_attn")
    convert_remote_code(draft)
    if any(word in model.upper() for word in ("AWQ", "GPTQ", "AQLM")):
        draft.differs.append(f"{model} is quantised already; a 16-bit model is trained here: name the original.")
    peft, quant = draft.take("peft_config", {}), draft.take("quant_config", {})
    kind = draft.take("finetuning_type", peft.get("name", "lora" if "stage" in draft.root.children else "full"))
    bits = draft.take("quantization_bit", quant.get("quantization_bit"))
    if kind == "lora":
        _convert_lora(draft, peft, bits)
    elif kind != "full":
        draft.differ(
            "finetuning_type" if not peft else "peft_config", "There is lora, and all weights; all are trained here."
        )
    elif bits:
        draft.differ("quantization_bit", "All weights are trained, in 16 bits.")
    if draft.take("adapter_name_or_path"):
        draft.differ(
            "adapter_name_or_path",
            "A run starts from one folder: merge that adapter first, and name the result in model.path.",
        )


def _convert_lora(draft: Draft, peft: dict[str, Any], bits: int | None) -> None:
    rank = draft.take("lora_rank", peft.get("r", 8))
    draft.set("lora.r", rank)
    alpha = draft.take("lora_alpha", peft.get("lora_alpha"))
    draft.set("lora.lora_alpha", alpha or 2 * rank, "" if alpha else "its default: twice the rank")
    if draft.values["stage"] == "reward" and draft.take("lora_dropout"):
        draft.differ("lora_dropout", "Scores are compared without dropout here.")
    convert_lora_dropout(draft, peft.get("lora_dropout"))
    set_targets(draft, draft.take("lora_target", peft.get("target_modules", "all")))
    modules = draft.take("additional_target")
    if modules:
        draft.set("lora.modules_to_save", [name.strip() for name in modules.split(",")])
    for ours, theirs in (("use_dora", "use_dora"), ("use_rslora", "use_rslora")):
        if draft.take(theirs):
            draft.set(f"lora.{ours}", True)
    if bits == 4:
        draft.set("lora.load_in_4bit", True, "its quantization_bit")
    elif bits:
        draft.differ("quantization_bit", "There is a 4-bit base and a 16-bit one; it is loaded in 16 bits.")


def _convert_chat(draft: Draft, stage: str) -> None:
    name = draft.take("template")
    if stage == "pretrain":
        return
    if name in TEMPLATES:
        draft.set("chat.template", TEMPLATES[name], f"its template {name}")
        draft.assumed.append(f"template {name} writes what {TEMPLATES[name]} writes; compare with `alignment preview`.")
    elif name is not None:
        draft.set("chat.template", "from_tokenizer")
        draft.differ(
            "template",
            f"The model's own template is used; there are also {', '.join(sorted(set(TEMPLATES.values())))}.",
        )
    draft.carry("chat.system", "default_system")
    if stage == "sft":
        alone = "last_assistant" if draft.take("mask_history") else "assistant"
        draft.set("chat.train_on", "all" if draft.take("train_on_prompt") else alone)


# ------------------------------------------------------------------------------------------------ data


def _convert_data(draft: Draft, path: Path, stage: str, options: Options) -> None:
    draft.carry("data.max_length", "cutoff_len", default=2048)
    packing, neat = draft.take("packing", stage == "pretrain"), draft.take("neat_packing")
    if stage in ("sft", "pretrain"):
        draft.set("data.packing", bool(packing or neat))
    if packing and not neat and stage == "sft":
        draft.differ("packing", "There packed examples see each other without neat_packing; here they do not.")
    draft.set("data.on_too_long", "split" if stage == "pretrain" else "truncate")
    draft.leave("packing")
    info, folder = _read_info(draft, path, options)
    names = str(draft.take("dataset", draft.take("train_dataset", ""))).split(",")
    sources = [_make_source(draft, name.strip(), stage, info, folder) for name in names if name.strip()]
    limit = draft.take("max_samples")
    if limit:
        for source in sources:
            source["rows"] = limit
        draft.assumed.append(
            f"each source has {limit} rows or more; there max_samples takes the first ones, here they are drawn by seed."
        )
    evaluated = [name.strip() for name in str(draft.take("eval_dataset", "")).split(",") if name.strip()]
    held_out = [_make_source(draft, name, stage, info, folder) for name in evaluated]
    share = draft.take("val_size")
    if share and len(sources) == 1 and not limit:
        cut = f"-{share}" if isinstance(share, int) else f"{round(100 * (1 - share))}%"
        held_out = [{**sources[0], "split": f"train[{cut}:]"}]
        sources[0]["split"] = f"train[:{cut}]"
    elif share:
        draft.differ("val_size", "A share of several sources has no counterpart; write sources in data.eval.")
    draft.set("data.train", sources)
    if held_out:
        draft.set("data.eval", held_out)
    draft.leave("eval_dataset", "mix_strategy", "interleave_probs", "streaming")


def _read_info(draft: Draft, path: Path, options: Options) -> tuple[dict[str, Any], Path]:
    """LLaMA-Factory's table of data sets and the folder that its files are in."""
    folder = str(draft.take("dataset_dir", "data"))
    places = [options.dataset_info] if options.dataset_info else [
        parent / folder / "dataset_info.json" for parent in list(path.resolve().parents)[:4]
    ]  # fmt: skip
    found = next((place for place in places if place.is_file()), None)
    return (json.loads(found.read_text(encoding="utf-8")), found.parent) if found else ({}, Path(folder))


def _make_source(draft: Draft, name: str, stage: str, info: dict[str, Any], folder: Path) -> dict[str, Any]:
    entry = info.get(name)
    if entry is None:
        if "train_dataset" in draft.root.children:
            draft.differ("train_dataset", "The files that it lists are not read; write them as sources.")
            return {
                "path": name.removesuffix(".yaml") + ".jsonl",
                "format": "messages" if stage == "sft" else FORMATS[stage],
            }
        draft.assumed.append(
            f"{name} is {folder.name}/{name}.json with rows of format {FORMATS[stage]}; --dataset_info FILE says what it is."
        )
        return {"path": f"{folder.name}/{name}.json", "format": FORMATS[stage]}
    if "hf_hub_url" in entry:
        source: dict[str, Any] = {"path": entry["hf_hub_url"], "split": entry.get("split", "train")}
        source |= {"name": entry["subset"]} if entry.get("subset") else {}
    else:
        source = {"path": str(folder / entry.get("file_name", f"{name}.json"))}
    kind, columns = entry.get("formatting", "alpaca"), entry.get("columns", {})
    if entry.get("ranking"):
        source["format"] = "preference"
        ours = {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}
        if kind == "sharegpt":
            draft.differs.append(
                f"{name}: pairs of its sharegpt layout are no text and no list of messages; rewrite the file."
            )
    elif stage == "pretrain":
        source["format"], ours = "text", {"text": "prompt"}
    elif kind == "sharegpt":
        source["format"], ours = "sharegpt", {"conversations": "messages", "system": "system", "tools": "tools"}
        source |= _roles(entry.get("tags", {}))
    else:
        source["format"], ours = (
            "alpaca",
            {our: their for our, (their, _) in ALPACA_COLUMNS.items()} | {"system": "system"},
        )
    renamed = {our: columns[their] for our, their in ours.items() if columns.get(their) not in (None, our)}
    return source | ({"columns": renamed} if renamed else {})


def _roles(tags: dict[str, str]) -> dict[str, Any]:
    names = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool"}
    roles = {tags[tag]: role for tag, role in names.items() if tag in tags and tags[tag] != role}
    return {"roles": roles} if roles else {}


# ------------------------------------------------------------------------------------------------ training


def _convert_training(draft: Draft, options: Options, is_v1: bool) -> None:
    epochs, steps = convert_duration(draft, "num_train_epochs", default=3.0)
    batch = convert_batch(
        draft,
        per_device="micro_batch_size" if is_v1 else "per_device_train_batch_size",
        default=1 if is_v1 else 8,
        num_processes=options.num_processes,
        processes=draft.take("ray_num_workers", 1),
        where="one GPU, as its examples are run",
    )
    draft.carry("train.learning_rate", "learning_rate", default=5e-5)
    convert_schedule(
        draft,
        scheduler="lr_scheduler_type",
        default="linear",
        total_steps=count_steps(options.rows, epochs, steps, batch),
    )
    convert_optimizer(draft)
    convert_precision(draft)
    if draft.take("pure_bf16"):
        draft.differ("pure_bf16", "The weights are trained in fp32 here, and computed with in bfloat16.")
        draft.set("train.bf16", True)
    draft.set("train.gradient_checkpointing", not draft.take("disable_gradient_checkpointing", False), "its default")
    convert_steps(draft)
    if draft.values["data"].get("eval"):
        draft.carry("eval.per_device_eval_batch_size", "per_device_eval_batch_size")


def _convert_dpo(draft: Draft) -> None:
    loss = draft.take("pref_loss", "sigmoid")
    draft.set("dpo.reference", draft.take("ref_model", "start"))
    draft.set("dpo.loss_type", loss if loss in get_args(DpoLoss) else "sigmoid")
    if loss not in get_args(DpoLoss):
        draft.differ("pref_loss", f"No such loss here; sigmoid is used. There are: {', '.join(get_args(DpoLoss))}.")
    draft.carry("dpo.beta", "pref_beta", default=0.1)
    draft.carry("dpo.sft_weight", "pref_ftx")
    draft.carry("dpo.label_smoothing", "dpo_label_smoothing")
